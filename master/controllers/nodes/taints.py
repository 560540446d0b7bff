"""Which taints a node's state calls for, and what pods tolerate. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from kybern.api.tolerations import tolerates
from kybern.api.types import Node, Taint, Toleration
from kybern.clock import rfc3339
from master.controllers import conditions

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"

NO_SCHEDULE = "NoSchedule"
NO_EXECUTE = "NoExecute"

# Conditions beside Ready: the taint while they are True.
_PRESSURES = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
_OURS = {
    NO_SCHEDULE: frozenset((NOT_READY, UNREACHABLE, UNSCHEDULABLE, *_PRESSURES.values())),
    NO_EXECUTE: frozenset((NOT_READY, UNREACHABLE)),
}


def problem(node: Node) -> str:
    """The taint key for a node that is not ready: by its own word, or because it says nothing. Empty when it is."""
    ready = conditions.find(node.status.conditions, "Ready")
    if ready is None or ready.status == "False":
        return NOT_READY
    return UNREACHABLE if ready.status == "Unknown" else ""


def wanted(node: Node, *, evict: bool) -> frozenset[tuple[str, str]]:
    """Keys and effects of the taints that its state calls for; those that evict only when `evict`."""
    keys = {(taint, NO_SCHEDULE) for kind, taint in _PRESSURES.items() if _holds(node, kind)}
    if node.spec.unschedulable:
        keys.add((UNSCHEDULABLE, NO_SCHEDULE))
    if trouble := problem(node):
        keys.add((trouble, NO_SCHEDULE))
        if evict:
            keys.add((trouble, NO_EXECUTE))
    return frozenset(keys)


def _holds(node: Node, kind: str) -> bool:
    condition = conditions.find(node.status.conditions, kind)
    return condition is not None and condition.true


def merged(node: Node, keys: Iterable[tuple[str, str]], now: datetime) -> tuple[Taint, ...] | None:
    """The node's taints with ours as `keys` say and all others untouched; None when nothing changes."""
    target = set(keys)
    kept = tuple(t for t in node.spec.taints if not _is_ours(t) or (t.key, t.effect) in target)
    have = {(t.key, t.effect) for t in kept}
    added = tuple(Taint(key, "", effect, now) for key, effect in sorted(target - have))
    return None if not added and len(kept) == len(node.spec.taints) else (*kept, *added)


def _is_ours(taint: Taint) -> bool:
    return taint.key in _OURS.get(taint.effect, frozenset())


def document(taint: Taint) -> dict[str, Any]:
    """The JSON form of a taint."""
    result = {"key": taint.key, "effect": taint.effect}
    if taint.value:
        result["value"] = taint.value
    if taint.time_added is not None:
        result["timeAdded"] = rfc3339(taint.time_added)
    return result


def patience(tolerations: Sequence[Toleration], taints: Sequence[Taint]) -> float | None:
    """Seconds that a pod may stay under taints that evict: 0 when one is not tolerated, None when it may stay."""
    limits: list[int] = []
    for taint in taints:
        fitting = [t for t in tolerations if tolerates(t, taint)]
        if not fitting:
            return 0.0
        limits += [t.toleration_seconds for t in fitting if t.toleration_seconds is not None]
    return float(max(min(limits), 0)) if limits else None
