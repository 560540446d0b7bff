"""What a change of an object keeps although the client left it out: what the cluster has given it.

Clients that replace a whole object (`kubectl replace`, `apply` with a plain manifest) do not know its addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_WITH_NODE_PORTS = ("NodePort", "LoadBalancer")


def keep_given(group: str, kind: str, new: dict[str, Any], old: Mapping[str, Any]) -> None:
    """Carry over what the cluster gave an object, in place; before defaults are set."""
    keep = _KEEP.get((group, kind))
    if keep is not None:
        keep(new.setdefault("spec", {}), old.get("spec") or {})


def _service(spec: dict[str, Any], before: Mapping[str, Any]) -> None:
    kind, old_kind = spec.get("type") or "ClusterIP", before.get("type") or "ClusterIP"
    if kind != "ExternalName" and old_kind != "ExternalName":
        _keep_addresses(spec, before)
    elif kind == "ExternalName":
        _drop_if_same(
            spec, before, ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy")
        )
    if old_kind in _WITH_NODE_PORTS:
        if kind in _WITH_NODE_PORTS:
            _keep_node_ports(spec, before)
        else:
            _drop_node_ports(spec, before)
    if kind != "LoadBalancer":
        _drop_if_same(spec, before, ("allocateLoadBalancerNodePorts", "loadBalancerClass"))
    if kind not in _WITH_NODE_PORTS and not spec.get("externalIPs"):
        _drop_if_same(spec, before, ("externalTrafficPolicy",))
    if not _has_health_port(spec, kind):
        _drop_if_same(spec, before, ("healthCheckNodePort",))
    elif before.get("healthCheckNodePort") and not spec.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = before["healthCheckNodePort"]


def _has_health_port(spec: Mapping[str, Any], kind: str) -> bool:
    return kind == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _keep_addresses(spec: dict[str, Any], before: Mapping[str, Any]) -> None:
    if before.get("clusterIP") and not spec.get("clusterIP"):
        spec["clusterIP"] = before["clusterIP"]
    if before.get("clusterIPs") and not spec.get("clusterIPs") and spec.get("clusterIP") == before.get("clusterIP"):
        spec["clusterIPs"] = list(before["clusterIPs"])
    for field in ("ipFamilies", "ipFamilyPolicy"):
        if before.get(field) and not spec.get(field):
            value = before[field]
            spec[field] = list(value) if isinstance(value, list) else value


def _keep_node_ports(spec: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Ports keep their node port by name, as long as no other port takes it."""
    used = {port.get("nodePort") for port in spec.get("ports") or ()}
    known = {port.get("name", ""): port.get("nodePort") for port in before.get("ports") or ()}
    for port in spec.get("ports") or ():
        given = known.get(port.get("name", ""))
        if not port.get("nodePort") and given and given not in used:
            port["nodePort"] = given
            used.add(given)


def _drop_node_ports(spec: dict[str, Any], before: Mapping[str, Any]) -> None:
    """A Service that needs node ports no longer gives them back, unless the client asks for others (and is refused)."""
    known = {port.get("nodePort") for port in before.get("ports") or ()}
    for port in spec.get("ports") or ():
        if port.get("nodePort") in known:
            port.pop("nodePort", None)


def _drop_if_same(spec: dict[str, Any], before: Mapping[str, Any], fields: tuple[str, ...]) -> None:
    """Drop fields that do not fit the new type, when the client only has not cleared them."""
    for field in fields:
        if field in spec and spec[field] == before.get(field):
            del spec[field]


def _namespace(spec: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Finalizers of a namespace's content change through the `finalize` subresource alone."""
    if "finalizers" in before:
        spec["finalizers"] = list(before["finalizers"])
    else:
        spec.pop("finalizers", None)


_KEEP: Mapping[tuple[str, str], Callable[[dict[str, Any], Mapping[str, Any]], None]] = {
    ("", "Namespace"): _namespace,
    ("", "Service"): _service,
}
