"""Which pods serve a Service, and how a slice tells it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kybern.api.types import EndpointPort, Pod, Service, decode
from master.controllers.endpoints import legacy
from master.controllers.endpoints.resolving import IPV4, IPV6, Group, facts, resolve
from master.controllers.endpoints.slices import document, labels_of
from master.controllers.endpoints.slicing import Content

HTTP = [{"name": "http", "port": 80, "targetPort": 8080}]


def service(ports: list[dict[str, Any]] = HTTP, **spec: Any) -> Service:
    meta = {"name": "web", "namespace": "default", "uid": "service"}
    given = {"clusterIP": "10.96.0.5", "selector": {"app": "web"}, "ports": ports, **spec}
    return decode(msgspec.json.encode({"metadata": meta, "spec": given}), Service)


def pod(name: str, *ips: str, ready: bool = True, deleting: bool = False, phase: str = "Running", **spec: Any) -> Pod:
    meta: dict[str, Any] = {"name": name, "namespace": "default", "uid": name, "labels": {"app": "web"}}
    if deleting:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    container = {"name": "c", "ports": spec.pop("ports", [])}
    status: dict[str, Any] = {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}]}
    status |= {"podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]} if ips else {}
    found = {"metadata": meta, "spec": {"nodeName": "n1", "containers": [container], **spec}, "status": status}
    return decode(msgspec.json.encode(found), Pod)


def one(of: Service, *pods: Pod) -> list[dict[str, Any]]:
    ((group, endpoints),) = resolve(of, pods, lambda _: None).items()
    found = document(of, Content(group, list(endpoints)))["endpoints"]
    assert isinstance(found, list)
    return found


def test_an_endpoint_says_where_its_pod_is() -> None:
    (found,) = one(service(), pod("a", "10.244.1.2", hostname="a", subdomain="web"))
    assert found == {
        "addresses": ["10.244.1.2"],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "hostname": "a",
        "nodeName": "n1",
        "targetRef": {"kind": "Pod", "namespace": "default", "name": "a", "uid": "a"},
    }
    (found,) = one(service(), pod("a", "10.244.1.2", hostname="a", subdomain="elsewhere"))
    assert "hostname" not in found


@pytest.mark.parametrize(
    ("ready", "deleting", "publish", "wanted"),
    [
        (True, False, False, (True, True, False)),
        (False, False, False, (False, False, False)),
        (True, True, False, (False, True, True)),
        (False, True, False, (False, False, True)),
        (False, False, True, (True, False, False)),
        (True, True, True, (True, True, True)),
    ],
)
def test_conditions(ready: bool, deleting: bool, publish: bool, wanted: tuple[bool, bool, bool]) -> None:
    of = service(publishNotReadyAddresses=publish)
    (found,) = one(of, pod("a", "10.244.1.2", ready=ready, deleting=deleting))
    assert tuple(found["conditions"][k] for k in ("ready", "serving", "terminating")) == wanted


def test_pods_that_ended_or_have_no_address_serve_nothing() -> None:
    pods = [pod("a"), pod("b", "10.244.1.2", phase="Succeeded"), pod("c", "10.244.1.3", phase="Failed")]
    assert resolve(service(), pods, lambda _: None) == {}


def test_named_ports_are_looked_up_in_each_pod() -> None:
    of = service([{"name": "web", "port": 80, "targetPort": "http", "protocol": "TCP"}])

    def named(number: int) -> list[dict[str, Any]]:
        return [{"name": "http", "containerPort": number}]

    pods = [
        pod("a", "10.244.1.2", ports=named(8080)),
        pod("b", "10.244.1.3", ports=named(9090)),
        pod("c", "10.244.1.4", ports=[{"name": "http", "containerPort": 7, "protocol": "UDP"}]),
    ]
    found = {g.ports: [e.addresses[0] for e in members] for g, members in resolve(of, pods, lambda _: None).items()}
    assert found == {
        (EndpointPort("web", "TCP", 8080),): ["10.244.1.2"],
        (EndpointPort("web", "TCP", 9090),): ["10.244.1.3"],
    }


def test_addresses_are_of_the_services_families() -> None:
    both = pod("a", "10.244.1.2", "fd00::2")
    assert {g.address_type for g in resolve(service(), [both], lambda _: None)} == {IPV4}
    assert {g.address_type for g in resolve(service(clusterIP="None"), [both], lambda _: None)} == {IPV4, IPV6}
    six = service(clusterIP="fd00::1", clusterIPs=["fd00::1"])
    assert {g.address_type for g in resolve(six, [both], lambda _: None)} == {IPV6}


def test_a_headless_service_without_ports_has_endpoints() -> None:
    found = resolve(service([], clusterIP="None"), [pod("a", "10.244.1.2")], lambda _: "zone-a")
    assert list(found) == [Group(IPV4, ())]
    assert found[Group(IPV4, ())][0].zone == "zone-a"
    assert labels_of(service([], clusterIP="None"))["service.kubernetes.io/headless"] == ""


def test_ports_are_written_in_full() -> None:
    of = service([{"port": 80, "appProtocol": "http"}])
    ((group, endpoints),) = resolve(of, [pod("a", "10.244.1.2")], lambda _: None).items()
    assert document(of, Content(group, list(endpoints)))["ports"] == [
        {"name": "", "protocol": "TCP", "port": 80, "appProtocol": "http"}
    ]


def test_only_what_endpoints_depend_on_is_a_change() -> None:
    assert facts(pod("a", "10.244.1.2")) == facts(pod("a", "10.244.1.2", tolerations=[{"operator": "Exists"}]))
    assert facts(pod("a", "10.244.1.2")) != facts(pod("a", "10.244.1.2", ready=False))
    assert facts(pod("a", "10.244.1.2")) != facts(pod("a", "10.244.1.3"))


def test_the_older_form_tells_ready_from_not_ready_and_is_bounded() -> None:
    pods = [
        pod("a", "10.244.1.2"),
        pod("b", "10.244.1.3", ready=False),
        pod("c", "10.244.1.4", deleting=True),
    ]
    (subset,), truncated = legacy.subsets(service(), pods)
    assert [a["ip"] for a in subset["addresses"]] == ["10.244.1.2"]
    assert [a["ip"] for a in subset["notReadyAddresses"]] == ["10.244.1.3"]
    assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert not truncated
    many = [pod(f"p{n}", f"10.244.{n // 200}.{n % 200 + 1}") for n in range(1005)]
    (subset,), truncated = legacy.subsets(service(), many)
    assert len(subset["addresses"]) == 1000
    assert truncated
