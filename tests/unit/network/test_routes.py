"""Which routes follow from the nodes, and what interfaces say about their pods."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import msgspec
import pytest

from kybern.api.types import Node, decode
from node.network.links import PORT_PREFIX, alias_of, parse_alias, port_name
from node.network.routes import DirectReach


def node(name: str, pods: str = "", address: str = "") -> Node:
    document: dict[str, Any] = {"metadata": {"name": name}, "spec": {}, "status": {}}
    if pods:
        document["spec"]["podCIDR"] = pods
    if address:
        document["status"]["addresses"] = [
            {"type": "Hostname", "address": name},
            {"type": "InternalIP", "address": address},
        ]
    return decode(msgspec.json.encode(document), Node)


def plan(*nodes: Node) -> dict[str, str]:
    return {str(d): str(r.gateway) for d, r in DirectReach().plan(nodes, "n1").items()}


def test_every_other_node_is_the_way_to_its_pods() -> None:
    assert plan(
        node("n1", "10.244.1.0/24", "192.168.7.11"),
        node("n2", "10.244.2.0/24", "192.168.7.12"),
        node("n3", "10.244.3.0/24", "192.168.7.13"),
    ) == {"10.244.2.0/24": "192.168.7.12", "10.244.3.0/24": "192.168.7.13"}


def test_nodes_that_are_not_complete_have_no_route_yet() -> None:
    assert not plan(
        node("a"), node("b", "10.244.2.0/24"), node("c", "", "192.168.7.13"), node("d", "nonsense", "192.168.7.14")
    )
    assert not plan(node("v6", "10.244.2.0/24", "fd00::2"))


def test_of_two_nodes_with_one_range_neither_gets_the_others_packets() -> None:
    assert not plan(node("n2", "10.244.2.0/24", "192.168.7.12"), node("n3", "10.244.2.0/24", "192.168.7.13"))


def test_an_interface_tells_its_sandbox_and_address() -> None:
    sandbox, address = "a" * 64, IPv4Address("10.244.1.5")
    assert parse_alias(alias_of(sandbox, address)) == (sandbox, address)
    # The kernel keeps 255 characters.
    assert len(alias_of(sandbox, IPv4Address("255.255.255.255"))) < 256
    assert port_name(sandbox).startswith(PORT_PREFIX)
    assert len(port_name(sandbox)) == 15
    assert port_name("a") != port_name("b")


@pytest.mark.parametrize("alias", ["", "eth0", "kybern", "kybern:10.244.1.5", "kybern:10.244.1.5:", "kybern:x:y"])
def test_other_aliases_are_not_ours(alias: str) -> None:
    assert parse_alias(alias) is None
