"""Rules for statuses; light, since components of the cluster write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kybern.api import names
from kybern.api.validation.field import Causes, duplicate, forbidden, invalid, non_negative, one_of

_PHASES = frozenset({"Pending", "Running", "Succeeded", "Failed", "Unknown"})
_COUNTS = (
    "replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas", "fullyLabeledReplicas",
    "terminatingReplicas", "collisionCount", "observedGeneration",
)  # fmt: skip


def pod(new: Mapping[str, Any], old: Mapping[str, Any], out: Causes) -> None:
    """Complain about a Pod's status."""
    status, before = new.get("status") or {}, old.get("status") or {}
    one_of("status.phase", status.get("phase"), _PHASES, out, needed=False)
    non_negative("status.observedGeneration", status.get("observedGeneration"), out)
    for field in ("podIPs", "hostIPs"):
        seen: set[str] = set()
        for index, entry in enumerate(status.get(field) or ()):
            ip = entry.get("ip") or ""
            out += [invalid(f"status.{field}[{index}].ip", ip, w) for w in names.ip_address(ip)]
            if ip in seen:
                out.append(duplicate(f"status.{field}[{index}]", ip))
            seen.add(ip)
    if before.get("qosClass") and status.get("qosClass") != before["qosClass"]:
        out.append(invalid("status.qosClass", status.get("qosClass"), "field is immutable"))
    if (old.get("spec") or {}).get("restartPolicy") == "Never":
        _no_resurrection(status, before, out)


def _no_resurrection(status: Mapping[str, Any], before: Mapping[str, Any], out: Causes) -> None:
    """Containers that are never restarted stay terminated."""
    ended = {
        c.get("name")
        for c in before.get("containerStatuses") or ()
        if (c.get("state") or {}).get("terminated") is not None
    }
    for index, container in enumerate(status.get("containerStatuses") or ()):
        if container.get("name") in ended and (container.get("state") or {}).get("terminated") is None:
            detail = "may not be transitioned to non-terminated state"
            out.append(forbidden(f"status.containerStatuses[{index}].state", detail))


def workload(new: Mapping[str, Any], old: Mapping[str, Any], out: Causes) -> None:
    """Complain about the status of a Deployment or ReplicaSet."""
    del old
    status = new.get("status") or {}
    for field in _COUNTS:
        non_negative(f"status.{field}", status.get(field), out)
    replicas = max(status.get("replicas") or 0, 0)
    for field in ("updatedReplicas", "readyReplicas", "availableReplicas", "fullyLabeledReplicas"):
        if (status.get(field) or 0) > replicas:
            out.append(invalid(f"status.{field}", status[field], "cannot be greater than status.replicas"))
    if (status.get("availableReplicas") or 0) > (status.get("readyReplicas") or 0):
        detail = "cannot be greater than readyReplicas"
        out.append(invalid("status.availableReplicas", status["availableReplicas"], detail))


def node(new: Mapping[str, Any], old: Mapping[str, Any], out: Causes) -> None:
    """Complain about a Node's status."""
    del old
    seen: set[tuple[Any, Any]] = set()
    for index, address in enumerate((new.get("status") or {}).get("addresses") or ()):
        key = (address.get("type"), address.get("address"))
        if key in seen:
            out.append(duplicate(f"status.addresses[{index}]", dict(address)))
        seen.add(key)


Rule = Callable[[Mapping[str, Any], Mapping[str, Any], Causes], None]

RULES: Mapping[tuple[str, str], Rule] = {
    ("", "Node"): node,
    ("", "Pod"): pod,
    ("apps", "Deployment"): workload,
    ("apps", "ReplicaSet"): workload,
}
