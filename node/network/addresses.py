"""Which address a pod gets, and what follows from an address. Pure."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

# Prefix of our hardware addresses: locally administered (bit 1 of the first byte), unicast.
_MAC_PREFIX = (0x02, 0x4B)


def gateway_of(network: IPv4Network) -> IPv4Interface:
    """The node's own address in its range: the first."""
    return IPv4Interface((network.network_address + 1, network.prefixlen))


def mac_of(address: IPv4Address) -> str:
    """The hardware address that goes with a pod's address.

    Derived, so that a neighbour entry that outlives its pod is right for the next pod with that address.
    """
    return ":".join(f"{byte:02x}" for byte in (*_MAC_PREFIX, *address.packed))


def next_free(network: IPv4Network, used: Collection[IPv4Address], last: IPv4Address | None) -> IPv4Address | None:
    """The lowest free address after `last`, from the start of the range again after its end; None when all are taken.

    Going round keeps an address out of use for as long as possible after its pod: clients and caches forget it
    meanwhile. The network's, the gateway's (the first) and the broadcast address are never given.
    """
    first, final = int(network.network_address) + 2, int(network.broadcast_address) - 1
    count = final - first + 1
    if count <= 0:
        return None
    start = int(last) + 1 if last is not None and first <= int(last) < final else first
    taken = {int(address) for address in used}
    for step in range(count):
        candidate = first + (start - first + step) % count
        if candidate not in taken:
            return IPv4Address(candidate)
    return None


def parse_network(text: str) -> IPv4Network:
    """A range such as `10.244.1.0/24`.

    Raises:
        ValueError: when it is not an IPv4 range with a clear host part.
    """
    return IPv4Network(text)


def parse_address(text: str) -> IPv4Address | None:
    """An IPv4 address, or None when the text is something else."""
    try:
        return IPv4Address(text)
    except ValueError:
        return None
