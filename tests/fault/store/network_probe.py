"""What the harness's network lets through, tried with datagrams; runs inside `own_namespaces`, for `test_network`.

Prints, as JSON, which of "a>b" and "b>a" arrive, at each of several states of the network.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import time
from pathlib import Path

from tests.fault.store.network import Network

_PORT = 9
_CLONE_NEWNET = 0x40000000
# What has not come by then is lost.
_SECONDS = 0.3
_DELAY = 0.15


def socket_in(name: str, address: str) -> socket.socket:
    """A datagram socket in a member's namespace: where it is made, there it stays."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open() as own, Path("/run/netns", name).open() as other:
        if libc.setns(other.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        finally:
            libc.setns(own.fileno(), _CLONE_NEWNET)
    made.bind((address, _PORT))
    made.setblocking(False)
    return made


async def arrive(network: Network, sockets: dict[str, socket.socket]) -> dict[str, float]:
    """How many seconds a datagram took each way; only those that came."""
    loop = asyncio.get_running_loop()
    took: dict[str, float] = {}

    async def receive(receiver: str, began: float) -> None:
        data, _ = await loop.sock_recvfrom(sockets[receiver], 100)
        took[data.decode()] = time.monotonic() - began

    receiving = [asyncio.create_task(receive(name, time.monotonic())) for name in sockets]
    for sender, receiver in (("a", "b"), ("b", "a")):
        sockets[sender].sendto(f"{sender}>{receiver}".encode(), (network.addresses[receiver], _PORT))
    await asyncio.wait(receiving, timeout=_SECONDS)
    for task in receiving:
        task.cancel()
    await asyncio.gather(*receiving, return_exceptions=True)
    return took


async def main() -> None:
    """Try all states."""
    network = Network(("a", "b"))
    await network.start()
    sockets = {name: socket_in(name, address) for name, address in network.addresses.items()}
    found: dict[str, list[str]] = {}

    async def note(state: str) -> dict[str, float]:
        took = await arrive(network, sockets)
        found[state] = sorted(took)
        return took

    await note("open")
    await network.hold("a", "b")
    await note("held a>b")
    await network.cut("a", "b")
    await note("cut")
    await network.heal()
    await note("healed")
    await network.lose(1.0, 1)
    await note("all lost")
    await network.delay(_DELAY)
    took = await note("delayed")
    found["at once although delayed"] = [way for way, seconds in took.items() if seconds < _DELAY]
    await network.heal()
    await note("healed again")
    await network.stop()
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
