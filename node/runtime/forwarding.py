"""TCP connections to ports inside a sandbox."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

from node.network.netlink import in_namespace

_LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_CONNECT_SECONDS = 10.0


async def connect(namespace: Path | None, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a port of the loopback interface of a network namespace (None: this process's own).

    Raises:
        OSError: when the namespace is gone, or nobody listens on the port.
        TimeoutError: when nobody answers.
    """
    refused: OSError | None = None
    for family, address in _LOOPBACKS:
        sock = await asyncio.to_thread(_socket, namespace, family)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                # A socket belongs to the namespace that it was opened in, whoever uses it.
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
            return await asyncio.open_connection(sock=sock)
        except OSError as error:
            sock.close()
            # What 127.0.0.1 says is what people look for.
            refused = refused or error
        except BaseException:
            sock.close()
            raise
    raise refused or OSError("no address to connect to")


def _socket(namespace: Path | None, family: int) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setblocking(False)
        return made

    return _inside(namespace, make) if namespace is not None else make()


def _inside(namespace: Path, make: Callable[[], socket.socket]) -> socket.socket:
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return in_namespace(descriptor, make)
    finally:
        os.close(descriptor)
