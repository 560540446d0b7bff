"""What a Service means on a node."""

from __future__ import annotations

from typing import Any

import pytest

from node.proxy.model import PortRoute, resolve
from tests.unit.proxy.objects import as_service, as_slice, endpoint, service_document, slice_document


def routes(document: dict[str, Any], *slices: dict[str, Any]) -> tuple[PortRoute, ...]:
    return resolve(as_service(document), [as_slice(s) for s in slices], "n1")


def targets(found: tuple[Any, ...]) -> list[str]:
    return [str(t) for t in found]


def test_ports_are_matched_by_name_and_protocol() -> None:
    document = service_document(
        ports=[
            {"port": 53, "name": "dns", "protocol": "UDP"},
            {"port": 53, "name": "dns-tcp", "protocol": "TCP"},
            {"port": 9153, "name": "metrics"},
        ]
    )
    found = routes(
        document,
        slice_document(
            [endpoint("10.244.1.5")],
            ports=[{"port": 5353, "name": "dns", "protocol": "UDP"}, {"port": 5354, "name": "dns-tcp"}],
        ),
    )
    assert [(r.protocol, r.port, targets(r.endpoints)) for r in found] == [
        ("udp", 53, ["10.244.1.5:5353"]),
        ("tcp", 53, ["10.244.1.5:5354"]),
        ("tcp", 9153, []),
    ]


def test_endpoints_of_several_slices_are_one_set_and_those_of_the_node_are_known() -> None:
    [route] = routes(
        service_document(),
        slice_document([endpoint("10.244.1.5"), endpoint("10.244.2.5", "n2")], name="a"),
        slice_document([endpoint("10.244.1.5"), endpoint("10.244.1.4")], name="b"),
    )
    assert targets(route.endpoints) == ["10.244.1.4:8080", "10.244.1.5:8080", "10.244.2.5:8080"]
    assert targets(route.local) == ["10.244.1.4:8080", "10.244.1.5:8080"]


@pytest.mark.parametrize(
    ("states", "want"),
    [
        ([{"ready": True}, {"ready": False}], [0]),
        # Absent means ready.
        ([{"serving": True}, {"ready": False}], [0]),
        # Somebody who ends but still serves is better than nobody, and worse than anybody else.
        ([{"ready": False, "serving": True, "terminating": True}, {"ready": False}], [0]),
        ([{"ready": False, "serving": True, "terminating": True}, {"ready": True}], [1]),
        ([{"ready": False, "serving": False, "terminating": True}], []),
        ([{"ready": False, "serving": True}], []),
    ],
)
def test_who_serves(states: list[dict[str, bool]], want: list[int]) -> None:
    endpoints = [endpoint(f"10.244.1.{5 + n}", "n1", **state) for n, state in enumerate(states)]
    [route] = routes(service_document(), slice_document(endpoints))
    assert targets(route.endpoints) == [f"10.244.1.{5 + n}:8080" for n in want]


@pytest.mark.parametrize(
    "document",
    [
        service_document(ip="None"),
        service_document(ip=""),
        service_document(type="ExternalName", externalName="example.org"),
        service_document(annotations={"kybern.io/node-local": "true"}),
        service_document(labels={"service.kubernetes.io/service-proxy-name": "other"}),
    ],
    ids=["headless", "no address yet", "external name", "answered by the node", "another proxy's"],
)
def test_services_that_are_not_routed(document: dict[str, Any]) -> None:
    assert routes(document, slice_document([endpoint("10.244.1.5")])) == ()


def test_addresses_from_outside() -> None:
    document = service_document(
        type="LoadBalancer",
        ports=[{"port": 80, "name": "http", "nodePort": 30080}],
        externalIPs=["198.51.100.1", "2001:db8::1", "nonsense"],
        ingress=[{"ip": "198.51.100.2"}, {"ip": "198.51.100.3", "ipMode": "Proxy"}, {"hostname": "lb.example.org"}],
        loadBalancerSourceRanges=["203.0.113.7/24", "fd00::/8"],
        externalTrafficPolicy="Local",
    )
    [route] = routes(document)
    assert [str(a) for a in route.external_ips] == ["198.51.100.1"]
    assert [str(a) for a in route.ingress_ips] == ["198.51.100.2"]
    assert [str(n) for n in route.sources or ()] == ["203.0.113.0/24"]
    assert (route.node_port, route.external_local, route.internal_local) == (30080, True, False)


def test_a_type_without_node_ports_has_none_whatever_is_left_in_the_spec() -> None:
    [route] = routes(service_document(ports=[{"port": 80, "name": "http", "nodePort": 30080}], type="ClusterIP"))
    assert route.node_port == 0
    assert not route.has_external


def test_ranges_without_any_of_our_family_are_a_closed_door() -> None:
    document = service_document(type="LoadBalancer", loadBalancerSourceRanges=["fd00::/8"])
    assert routes(document)[0].sources == ()
    assert routes(service_document())[0].sources is None


def test_affinity_has_the_seconds_of_the_service_or_three_hours() -> None:
    config = {"clientIP": {"timeoutSeconds": 60}}
    assert routes(service_document())[0].affinity == 0
    assert routes(service_document(sessionAffinity="ClientIP"))[0].affinity == 10800
    assert routes(service_document(sessionAffinity="ClientIP", sessionAffinityConfig=config))[0].affinity == 60
