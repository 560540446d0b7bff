"""Which address a pod gets."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from node.network.addresses import gateway_of, mac_of, next_free, parse_address, parse_network

SMALL = IPv4Network("10.244.1.0/29")


def ips(*last: int) -> list[IPv4Address]:
    return [IPv4Address(f"10.244.1.{n}") for n in last]


def test_addresses_go_round_so_that_none_is_reused_at_once() -> None:
    given = []
    last = None
    for _ in range(7):
        last = next_free(SMALL, [], last)
        given.append(last)
    # .0 is the network, .1 the gateway, .7 the broadcast address.
    assert given == ips(2, 3, 4, 5, 6, 2, 3)


@pytest.mark.parametrize(
    ("used", "last", "want"),
    [
        ([], None, 2),
        ([2, 3], None, 4),
        ([3], 2, 4),
        ([4, 5, 6], 3, 2),
        ([2, 4, 5, 6], 3, 3),
        # Remembered from another range.
        ([2], 99, 3),
    ],
)
def test_the_lowest_free_address_after_the_last(used: list[int], last: int | None, want: int) -> None:
    assert next_free(SMALL, ips(*used), ips(last)[0] if last else None) == ips(want)[0]


def test_a_full_range_gives_none() -> None:
    assert next_free(SMALL, ips(2, 3, 4, 5, 6), ips(4)[0]) is None
    assert next_free(IPv4Network("10.244.1.0/31"), [], None) is None
    assert next_free(IPv4Network("10.244.1.0/30"), [], None) == ips(2)[0]


def test_every_pods_hardware_address_follows_from_its_address() -> None:
    assert mac_of(IPv4Address("10.244.1.5")) == "02:4b:0a:f4:01:05"
    # Locally administered, and not a group's.
    assert int(mac_of(IPv4Address("255.255.255.255"))[:2], 16) & 3 == 2


def test_texts() -> None:
    assert str(gateway_of(parse_network("10.244.1.0/24"))) == "10.244.1.1/24"
    for text in ("10.244.1.1/24", "fd00::/64", "nonsense"):
        with pytest.raises(ValueError, match=r".+"):
            parse_network(text)
    assert parse_address("10.0.0.1") == IPv4Address("10.0.0.1")
    assert parse_address("fd00::1") is None
    assert parse_address("") is None
