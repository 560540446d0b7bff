"""What a Raft group of three members costs, all in one process on loopback with mTLS and fdatasync.

Prints one JSON line per figure: `name`, `value`, `unit`, `ratio`. The ratio's floor is the same disk's write and
fdatasync of 4 KiB, measured in turn with it: a latency as a multiple of it, a rate as commands per such write's time.
All three members share one core here, so rates are lower than those of three hosts. Run with `python -m bench.raft`.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from kybern import pki
from kybern.config.models import StoreConfig, Tls
from store.raft.interface import Applied, Levels
from store.raft.node import RaftNode
from tests.ports import free_ports

ROUNDS = 5
SEQUENTIAL = 100
COMMANDS = 4000
SIZE = 256


class Counter:
    """A state machine that does nothing."""

    levels = Levels()
    level = 1

    def rise(self, level: int) -> None:
        """There is one level."""

    def apply(self, command: bytes, applied: Applied) -> object:
        """The length of the command."""
        return len(command)

    def caught_up(self) -> None:
        """Nobody watches."""

    def dump(self) -> Iterator[bytes]:
        """There is nothing."""
        return iter(())

    def load(self) -> Counter:
        """As `dump`."""
        return self

    def feed(self, part: bytes) -> None:
        """There is nothing."""

    def finish(self) -> None:
        """There is nothing."""


def configurations(directory: Path) -> list[StoreConfig]:
    """Three members on free ports with certificates of one authority."""
    now = datetime.now(UTC)
    authority = pki.new_authority("store-ca", now)
    authority.write(directory / "ca.crt", directory / "ca.key")
    members = {f"s{i + 1}": f"127.0.0.1:{port}" for i, port in enumerate(free_ports(3))}
    configs = []
    for name, address in members.items():
        tls = Tls(directory / f"{name}.crt", directory / f"{name}.key", directory / "ca.crt")
        identity = pki.Identity(name, ("kybern:store",))
        pki.issue(authority, identity, now, hosts=["127.0.0.1"], server=True).write(tls.cert, tls.key)
        config = StoreConfig(
            name=name,
            data_dir=directory / name,
            client_address="127.0.0.1:1",
            peer_address=address,
            members=members,
            clients={},
            tls=tls,
        )
        configs.append(config)
    return configs


def floor(directory: Path) -> float:
    """Median seconds of a write and fdatasync of 4 KiB at the end of a file."""
    descriptor = os.open(directory / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    times = []
    for _ in range(SEQUENTIAL):
        start = time.perf_counter()
        os.write(descriptor, bytes(4096))
        os.fdatasync(descriptor)
        times.append(time.perf_counter() - start)
    os.close(descriptor)
    return statistics.median(times)


async def latency(call: Callable[[], Awaitable[object]]) -> float:
    """Median seconds of a call, one at a time."""
    times = []
    for _ in range(SEQUENTIAL):
        start = time.perf_counter()
        await call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


async def rate(node: RaftNode, workers: int) -> float:
    """Commands per second with so many in flight."""
    numbers = iter(range(COMMANDS))

    async def work() -> None:
        for _ in numbers:
            await node.propose(bytes(SIZE))

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    return COMMANDS / (time.perf_counter() - start)


async def measure(directory: Path) -> None:
    """Measure all figures in turn, and print the medians."""
    nodes = [RaftNode(config) for config in configurations(directory)]
    for node in nodes:
        await node.start(Counter())
    await nodes[0].propose(b"warm")
    leader = next(node for node in nodes if node.is_leader)
    follower = next(node for node in nodes if not node.is_leader)
    figures: dict[str, list[float]] = {}
    floors = []
    for _ in range(ROUNDS):
        floors.append(await asyncio.to_thread(floor, directory))
        for who, node in (("leader", leader), ("follower", follower)):
            proposed = await latency(lambda node=node: node.propose(bytes(SIZE)))  # type: ignore[misc]
            figures.setdefault(f"raft.propose.{who}.1", []).append(proposed)
            figures.setdefault(f"raft.read_barrier.{who}", []).append(await latency(node.read_barrier))
            for workers in (16, 128):
                figures.setdefault(f"raft.propose.{who}.{workers}", []).append(await rate(node, workers))
    for node in nodes:
        await node.stop()
    base = statistics.median(floors)
    for name, values in figures.items():
        value = statistics.median(values)
        if value > 1:
            line = {"name": name, "value": round(value), "unit": "commands/s", "ratio": round(value * base, 2)}
        else:
            line = {"name": name, "value": round(value * 1000, 3), "unit": "ms", "ratio": round(value / base, 2)}
        print(json.dumps(line), flush=True)


def main() -> None:
    """Run in a directory that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="kybern-bench-raft-") as directory:
        uvloop.run(measure(Path(directory)))


if __name__ == "__main__":
    main()
