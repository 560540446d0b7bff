"""Addresses of the form `host:port`, as configurations and command lines have them."""

from __future__ import annotations

from ipaddress import ip_address


def split(address: str) -> tuple[str, int]:
    """Host (one of IPv6 without its brackets) and port.

    Raises:
        ValueError: when it is not of the form host:port.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise ValueError(f"{address!r} is not of the form HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def split_literal(address: str) -> tuple[str, int]:
    """As `split`, of an address whose host is an IP address.

    Raises:
        ValueError: when it is not one.
    """
    host, port = split(address)
    try:
        ip_address(host)
    except ValueError:
        raise ValueError(f"{address!r} is not of the form HOST:PORT with an IP address") from None
    return host, port
