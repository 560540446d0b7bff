"""Ports for servers of tests and benchmarks.

Not those that the kernel gives to whoever connects somewhere (`net.ipv4.ip_local_port_range`), as binding to port 0
does: another connection may take one before the server listens on it. Nor those that another process was given here.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

HOST = "127.0.0.1"
# Above well-known servers, below Kubernetes' node ports.
_PORTS = range(10_000, 30_000)
_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses, for TCP or UDP, and that no test was given that runs now."""
    kernels = handed_out()
    while True:
        port = random.SystemRandom().choice(_PORTS)
        if port in _given or port in kernels:
            continue
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((HOST, port))
                udp.bind((HOST, port))
            except OSError:
                continue
        if _claim(port):
            _given.add(port)
            return port


def free_ports(count: int) -> list[int]:
    """So many of them."""
    return [free_port() for _ in range(count)]


def handed_out() -> range:
    """The ports that the kernel gives to whoever does not ask for a certain one.

    Raises:
        OSError: when it leaves too few others.
    """
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    found = range(first, last + 1)
    if len(set(_PORTS).difference(found)) < 1000:
        raise OSError(
            f"the kernel gives out the ports {first} to {last}: set net.ipv4.ip_local_port_range to a part of it"
        )
    return found


def _claim(port: int) -> bool:
    """Keep a name for as long as this process runs, which no two processes of a network namespace can have at once.

    The port itself cannot be kept: the server is another process, or another socket of this one.
    """
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0kybern-test-port-{port}")
    except OSError:
        name.close()
        return False
    # Closed by the kernel.
    name.detach()
    return True
