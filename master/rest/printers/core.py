"""Namespaces, nodes, services and endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from kybern.api.types.base import Object, View
from kybern.api.types.cluster import Namespace, Node, NodeStatus
from kybern.api.types.network import Service, ServicePort
from master.rest.printers.base import (
    AGE,
    NAME,
    NONE,
    Cell,
    Column,
    age,
    joined,
    labels,
    printer,
    some,
    wide,
)

_ROLE = "node-role.kubernetes.io/"


def _namespace(it: Namespace, now: datetime) -> Sequence[Cell]:
    return it.name, it.status.phase, age(it.metadata.creation_timestamp, now)


NAMESPACES = printer(Namespace, (NAME, Column("Status"), AGE), _namespace)


class _NodeInfo(View):
    kubelet_version: str = ""
    os_image: str = ""
    kernel_version: str = ""
    container_runtime_version: str = ""


class _NodeStatus(NodeStatus):
    node_info: _NodeInfo = msgspec.field(default_factory=_NodeInfo)


class _Node(Node):
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)


def _node(it: _Node, now: datetime) -> Sequence[Cell]:
    info = it.status.node_info
    addresses = {a.type: a.address for a in reversed(it.status.addresses)}
    return (
        it.name,
        _node_state(it),
        joined(sorted(_roles(it))),
        age(it.metadata.creation_timestamp, now),
        info.kubelet_version,
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        info.os_image or "<unknown>",
        info.kernel_version or "<unknown>",
        info.container_runtime_version or "<unknown>",
    )


def _node_state(it: Node) -> str:
    ready = next((c for c in it.status.conditions if c.type == "Ready"), None)
    state = "Unknown" if ready is None else "Ready" if ready.true else "NotReady"
    return f"{state},SchedulingDisabled" if it.spec.unschedulable else state


def _roles(it: Node) -> set[str]:
    found = {key.removeprefix(_ROLE) for key in it.metadata.labels if key.startswith(_ROLE) and key != _ROLE}
    named = it.metadata.labels.get("kubernetes.io/role")
    return found | {named} if named else found


NODES = printer(
    _Node,
    (
        NAME, Column("Status"), Column("Roles"), AGE, Column("Version"), wide("Internal-IP"), wide("External-IP"),
        wide("OS-Image"), wide("Kernel-Version"), wide("Container-Runtime"),
    ),
    _node,
)  # fmt: skip


def _service(it: Service, now: datetime) -> Sequence[Cell]:
    spec = it.spec
    return (
        it.name,
        spec.type,
        (spec.cluster_ips[0] if spec.cluster_ips else spec.cluster_ip) or NONE,
        _external(it),
        joined(_port(p) for p in spec.ports),
        age(it.metadata.creation_timestamp, now),
        labels(spec.selector),
    )


def _external(it: Service) -> str:
    if it.spec.type == "ExternalName":
        return it.spec.external_name
    if it.spec.type == "LoadBalancer":
        given = [i.ip or i.hostname for i in it.status.load_balancer.ingress]
        return ",".join([*given, *it.spec.external_ips]) or "<pending>"
    return joined(it.spec.external_ips)


def _port(port: ServicePort) -> str:
    return f"{port.port}:{port.node_port}/{port.protocol}" if port.node_port else f"{port.port}/{port.protocol}"


SERVICES = printer(
    Service,
    (
        NAME, Column("Type"), Column("Cluster-IP"), Column("External-IP"), Column("Port(s)"), AGE, wide("Selector"),
    ),
    _service,
)  # fmt: skip


class _Address(View):
    ip: str = ""


class _Port(View):
    port: int = 0


class _Subset(View):
    addresses: tuple[_Address, ...] = ()
    ports: tuple[_Port, ...] = ()


class _Endpoints(Object):
    subsets: tuple[_Subset, ...] = ()


def _endpoints(it: _Endpoints, now: datetime) -> Sequence[Cell]:
    texts = []
    for subset in it.subsets:
        if subset.ports:
            texts += [_host_port(a.ip, p.port) for p in subset.ports for a in subset.addresses]
        else:
            texts += [a.ip for a in subset.addresses]
    return it.name, some(texts), age(it.metadata.creation_timestamp, now)


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


ENDPOINTS = printer(_Endpoints, (NAME, Column("Endpoints"), AGE), _endpoints)
