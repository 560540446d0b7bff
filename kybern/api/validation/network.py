"""Rules for Services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kybern.api import names
from kybern.api.validation import selectors
from kybern.api.validation.containers import PROTOCOLS
from kybern.api.validation.field import (
    IMMUTABLE,
    Causes,
    duplicate,
    forbidden,
    in_range,
    invalid,
    not_supported,
    one_of,
    required,
)
from kybern.api.validation.probes import port_reference

_TYPES = frozenset({"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"})
_AFFINITIES = frozenset({"ClientIP", "None"})
_POLICIES = frozenset({"Cluster", "Local"})
_FAMILIES = frozenset({"IPv4", "IPv6"})
_FAMILY_POLICIES = frozenset({"SingleStack", "PreferDualStack", "RequireDualStack"})
# A day.
_MOST_AFFINITY_SECONDS = 86400


def service(document: Mapping[str, Any], out: Causes) -> None:
    """Complain about a Service."""
    spec = document.get("spec") or {}
    kind = spec.get("type") or "ClusterIP"
    headless = spec.get("clusterIP") == "None"
    if kind not in _TYPES:
        out.append(not_supported("spec.type", kind, _TYPES))
    ports = spec.get("ports") or ()
    if not ports and not headless and kind != "ExternalName":
        out.append(required("spec.ports"))
    _type_rules(spec, kind, headless, out)
    _ports(ports, kind, headless, out)
    selectors.validate_map(spec.get("selector") or {}, "spec.selector", out)
    _affinity(spec, out)
    _addresses(spec, kind, out)
    _policies(spec, kind, out)


def _type_rules(spec: Mapping[str, Any], kind: str, headless: bool, out: Causes) -> None:
    if kind == "ExternalName":
        if spec.get("clusterIP"):
            out.append(forbidden("spec.clusterIP", "may not be set when `type` is 'ExternalName'"))
        elif spec.get("clusterIPs"):
            out.append(forbidden("spec.clusterIPs", "may not be set when `type` is 'ExternalName'"))
        # A fully qualified name may end with a dot.
        name = (spec.get("externalName") or "").removesuffix(".")
        if not name:
            out.append(required("spec.externalName"))
        else:
            out += [invalid("spec.externalName", name, w) for w in names.subdomain(name)]
    elif headless and kind in ("NodePort", "LoadBalancer"):
        out.append(invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services"))


def _ports(ports: Sequence[Mapping[str, Any]], kind: str, headless: bool, out: Causes) -> None:
    seen_names: set[str] = set()
    seen_ports: set[tuple[Any, Any]] = set()
    seen_node_ports: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        at = f"spec.ports[{index}]"
        _port(port, at, len(ports) > 1, headless, out)
        name, protocol, number = port.get("name"), port.get("protocol"), port.get("port")
        if name and name in seen_names:
            out.append(duplicate(f"{at}.name", name))
        seen_names.add(name or "")
        if (protocol, number) in seen_ports:
            out.append(duplicate(at, {"protocol": protocol, "port": number}))
        seen_ports.add((protocol, number))
        node_port = port.get("nodePort")
        if not node_port:
            continue
        if kind not in ("NodePort", "LoadBalancer"):
            out.append(forbidden(f"{at}.nodePort", f"may not be used when `type` is '{kind}'"))
        elif (protocol, node_port) in seen_node_ports:
            out.append(duplicate(f"{at}.nodePort", node_port))
        seen_node_ports.add((protocol, node_port))


def _port(port: Mapping[str, Any], path: str, several: bool, headless: bool, out: Causes) -> None:
    name = port.get("name")
    if name:
        out += [invalid(f"{path}.name", name, w) for w in names.label(name)]
    elif several:
        out.append(required(f"{path}.name"))
    number = port.get("port") or 0
    in_range(f"{path}.port", number, 1, 65535, out)
    one_of(f"{path}.protocol", port.get("protocol"), PROTOCOLS, out)
    target = port.get("targetPort")
    if target is not None and number:
        port_reference(target, f"{path}.targetPort", out)
    application = port.get("appProtocol")
    if application:
        out += [invalid(f"{path}.appProtocol", application, w) for w in names.qualified(application)]
    node_port = port.get("nodePort")
    if node_port:
        in_range(f"{path}.nodePort", node_port, 1, 65535, out)


def _affinity(spec: Mapping[str, Any], out: Causes) -> None:
    affinity = spec.get("sessionAffinity")
    one_of("spec.sessionAffinity", affinity, _AFFINITIES, out)
    config = spec.get("sessionAffinityConfig")
    if affinity == "ClientIP":
        seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds")
        path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        if seconds is None:
            out.append(required(path))
        elif not 0 < seconds <= _MOST_AFFINITY_SECONDS:
            out.append(invalid(path, seconds, f"must be greater than 0 and less than {_MOST_AFFINITY_SECONDS}"))
    elif config is not None:
        out.append(forbidden("spec.sessionAffinityConfig", "must not be set when session affinity is None"))


def _addresses(spec: Mapping[str, Any], kind: str, out: Causes) -> None:
    addresses = spec.get("clusterIPs") or ()
    first = spec.get("clusterIP")
    if kind != "ExternalName" and addresses and first != addresses[0]:
        out.append(invalid("spec.clusterIPs", addresses, "first value must match `clusterIP`"))
    if len(addresses) > 2:
        out.append(invalid("spec.clusterIPs", addresses, "may only hold up to 2 values"))
    for index, address in enumerate(addresses):
        if address != "None":
            out += [invalid(f"spec.clusterIPs[{index}]", address, w) for w in names.ip_address(address)]
        elif len(addresses) > 1:
            out.append(invalid(f"spec.clusterIPs[{index}]", address, "'None' must be the first and only value"))
    for index, family in enumerate(spec.get("ipFamilies") or ()):
        one_of(f"spec.ipFamilies[{index}]", family, _FAMILIES, out)
    one_of("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), _FAMILY_POLICIES, out, needed=False)
    for index, address in enumerate(spec.get("externalIPs") or ()):
        out += [invalid(f"spec.externalIPs[{index}]", address, w) for w in names.ip_address(address)]
    ranges = spec.get("loadBalancerSourceRanges") or ()
    if ranges and kind != "LoadBalancer":
        detail = "may only be used when `type` is 'LoadBalancer'"
        out.append(forbidden("spec.loadBalancerSourceRanges", detail))
    for index, value in enumerate(ranges):
        out += [invalid(f"spec.loadBalancerSourceRanges[{index}]", value, w) for w in names.cidr(value.strip())]


def _policies(spec: Mapping[str, Any], kind: str, out: Causes) -> None:
    reachable = kind in ("NodePort", "LoadBalancer") or bool(spec.get("externalIPs"))
    external = spec.get("externalTrafficPolicy")
    if external and not reachable:
        out.append(
            invalid("spec.externalTrafficPolicy", external, "may only be set for externally-accessible services")
        )
    elif reachable:
        one_of("spec.externalTrafficPolicy", external, _POLICIES, out)
    one_of("spec.internalTrafficPolicy", spec.get("internalTrafficPolicy"), _POLICIES, out, needed=False)
    if kind != "LoadBalancer":
        for field in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if spec.get(field) is not None:
                out.append(forbidden(f"spec.{field}", "may only be used when `type` is 'LoadBalancer'"))


def service_update(new: Mapping[str, Any], old: Mapping[str, Any], out: Causes) -> None:
    """Complain about changed addresses: they stay with a Service as long as it has any."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    if "ExternalName" in (spec.get("type"), before.get("type")):
        return
    then: Sequence[str] = before.get("clusterIPs") or ()
    now: Sequence[str] = spec.get("clusterIPs") or ()
    if before.get("clusterIP") and spec.get("clusterIP") != before["clusterIP"]:
        out.append(invalid("spec.clusterIPs[0]", now, "may not change once set"))
    elif len(then) > 1 and len(now) > 1 and now[1] != then[1]:
        out.append(invalid("spec.clusterIPs[1]", now, "may not change once set"))
    families, known = spec.get("ipFamilies") or (), before.get("ipFamilies") or ()
    if families and known and families[0] != known[0]:
        out.append(invalid("spec.ipFamilies[0]", families, "may not change once set"))
    balanced = spec.get("type") == before.get("type") == "LoadBalancer"
    then_class, now_class = before.get("loadBalancerClass"), spec.get("loadBalancerClass")
    if balanced and then_class and now_class != then_class:
        out.append(invalid("spec.loadBalancerClass", now_class, IMMUTABLE))
