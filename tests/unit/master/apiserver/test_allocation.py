"""Which values are chosen, and what objects claim."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from kybern.api import resources
from kybern.config.models import Cluster
from master.apiserver.allocation import (
    CLUSTER_IP,
    NODE_PORT,
    POD_CIDR,
    Allocator,
    ExhaustedError,
    Taken,
    allocate,
    carry_over,
    claims_of,
)
from master.apiserver.keys import Claim


def allocator(**settings: Any) -> Allocator:
    return Allocator(Cluster(**settings), Random(1))


def service(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "s"}, "spec": spec}


def test_choices_leave_the_lower_band_to_those_who_ask() -> None:
    chooser = allocator()
    addresses = {chooser.cluster_ip(Taken()) for _ in range(200)}
    assert not addresses & {f"10.96.0.{n}" for n in range(256)}
    assert all(30086 <= chooser.node_port(Taken()) <= 32767 for _ in range(200))


def test_a_range_is_used_up_to_its_last_value() -> None:
    chooser = allocator(service_cidr="10.0.0.0/27", node_port_first=30000, node_port_last=30009)
    taken = Taken()
    for _ in range(30):
        taken.add(Claim(CLUSTER_IP, chooser.cluster_ip(taken)))
    assert taken.values[CLUSTER_IP] == {f"10.0.0.{n}" for n in range(1, 31)}
    with pytest.raises(ExhaustedError):
        chooser.cluster_ip(taken)
    for _ in range(10):
        taken.add(Claim(NODE_PORT, str(chooser.node_port(taken))))
    with pytest.raises(ExhaustedError):
        chooser.node_port(taken)


def test_node_ranges_are_given_out_from_the_lowest_on() -> None:
    chooser, taken = allocator(pod_cidr="10.244.0.0/22"), Taken()
    for third in range(4):
        chosen = chooser.pod_cidr(taken)
        assert chosen == f"10.244.{third}.0/24"
        taken.add(Claim(POD_CIDR, chosen))
    with pytest.raises(ExhaustedError, match="every /24"):
        chooser.pod_cidr(taken)
    with pytest.raises(ExhaustedError, match="is smaller than"):
        allocator(pod_cidr="10.244.0.0/26").pod_cidr(Taken())


def test_claims_follow_type_and_addresses() -> None:
    assert claims_of(resources.CONFIG_MAPS, service(clusterIP="10.0.0.1")) == frozenset()
    assert claims_of(resources.SERVICES, None) == frozenset()
    assert claims_of(resources.SERVICES, service(type="ExternalName", clusterIP="10.0.0.1")) == frozenset()
    assert claims_of(resources.SERVICES, service(clusterIP="None", clusterIPs=["None"])) == frozenset()
    ports = [{"port": 1, "nodePort": 30001}, {"port": 1, "protocol": "UDP", "nodePort": 30001}, {"port": 2}]
    found = claims_of(resources.SERVICES, service(type="NodePort", clusterIPs=["10.0.0.1"], ports=ports))
    assert found == {Claim(CLUSTER_IP, "10.0.0.1"), Claim(NODE_PORT, "30001")}
    assert claims_of(resources.SERVICES, service(type="ClusterIP", ports=ports)) == frozenset()


def test_what_is_asked_for_is_not_chosen() -> None:
    document = service(type="NodePort", clusterIP="10.96.9.9", ports=[{"port": 1, "nodePort": 30001}, {"port": 2}])
    chosen = allocate(resources.SERVICES, document, allocator(), Taken())
    assert {c.kind for c in chosen} == {NODE_PORT}
    assert Claim(NODE_PORT, "30001") not in chosen
    assert claims_of(resources.SERVICES, document) - chosen == {
        Claim(CLUSTER_IP, "10.96.9.9"),
        Claim(NODE_PORT, "30001"),
    }


def test_a_local_load_balancer_gets_a_port_for_health_checks() -> None:
    document = service(type="LoadBalancer", externalTrafficPolicy="Local", ports=[{"port": 1}])
    allocate(resources.SERVICES, document, allocator(), Taken())
    spec = document["spec"]
    assert spec["healthCheckNodePort"] != spec["ports"][0]["nodePort"]
    without = service(type="LoadBalancer", allocateLoadBalancerNodePorts=False, ports=[{"port": 1}])
    allocate(resources.SERVICES, without, allocator(), Taken())
    assert "nodePort" not in without["spec"]["ports"][0]


def test_an_update_keeps_a_port_unless_it_is_given_to_another() -> None:
    old = service(type="NodePort", clusterIP="10.0.0.1", ports=[{"port": 1, "protocol": "TCP", "nodePort": 30001}])
    new = service(type="NodePort", ports=[{"port": 1}, {"port": 2}])
    carry_over(new, old)
    assert new["spec"]["ports"] == [{"port": 1, "nodePort": 30001}, {"port": 2}]
    assert new["spec"]["clusterIP"] == "10.0.0.1"
    moved = service(type="NodePort", ports=[{"port": 1}, {"port": 2, "nodePort": 30001}])
    carry_over(moved, old)
    assert moved["spec"]["ports"][0] == {"port": 1}
