"""Services and EndpointSlices as documents and as views, for the tests of routing and DNS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import msgspec

from kybern.api.types import EndpointSlice, Service, decode
from node.network.settings import NetworkSettings

SETTINGS = NetworkSettings(
    node="n1",
    address=IPv4Address("192.168.7.11"),
    pods=IPv4Network("10.244.0.0/16"),
    services=IPv4Network("10.96.0.0/16"),
    dns=IPv4Address("10.96.0.10"),
    domain="cluster.local",
)


def service_document(
    name: str = "web",
    ip: str = "10.96.0.20",
    *,
    ports: Sequence[Mapping[str, Any]] = ({"port": 80, "name": "http"},),
    namespace: str = "default",
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    ingress: Sequence[Mapping[str, str]] = (),
    **spec: Any,
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "annotations": dict(annotations or {}),
            "labels": dict(labels or {}),
        },
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [dict(p) for p in ports], **spec},
        "status": {"loadBalancer": {"ingress": [dict(i) for i in ingress]}},
    }


def endpoint(address: str, node: str = "n1", **conditions: bool) -> dict[str, Any]:
    return {"addresses": [address], "nodeName": node, "conditions": conditions or {"ready": True}}


def slice_document(
    endpoints: Sequence[Mapping[str, Any]],
    *,
    service: str = "web",
    namespace: str = "default",
    name: str = "",
    ports: Sequence[Mapping[str, Any]] = ({"port": 8080, "name": "http"},),
) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace,
            "name": name or f"{service}-1",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": [dict(e) for e in endpoints],
        "ports": [{"protocol": "TCP", **p} for p in ports],
    }


def as_service(document: Mapping[str, Any]) -> Service:
    return decode(msgspec.json.encode(document), Service)


def as_slice(document: Mapping[str, Any]) -> EndpointSlice:
    return decode(msgspec.json.encode(document), EndpointSlice)
