"""Ports for servers of tests.

Not those that the kernel gives to whoever connects somewhere (`net.ipv4.ip_local_port_range`, from 32768 on), as
binding to port 0 does: another test's connection may take one before the server listens on it.
"""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"
# Above well-known servers, below Kubernetes' node ports.
_PORTS = range(10_000, 30_000)
_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses, for TCP or UDP, and that this process was not given before."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        if port in _given:
            continue
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((HOST, port))
                udp.bind((HOST, port))
            except OSError:
                continue
        _given.add(port)
        return port


def free_ports(count: int) -> list[int]:
    """So many of them."""
    return [free_port() for _ in range(count)]
