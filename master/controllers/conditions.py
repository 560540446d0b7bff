"""Conditions as they are written: lists are replaced whole, and times say when something really changed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from kybern.api.types import Condition
from kybern.clock import rfc3339

Document = dict[str, Any]


def document(condition: Condition) -> Document:
    """The JSON form of a condition."""
    result: Document = msgspec.to_builtins(condition)
    result["status"] = condition.status
    times = {
        "lastTransitionTime": condition.last_transition_time,
        "lastUpdateTime": condition.last_update_time,
        "lastProbeTime": condition.last_probe_time,
        "lastHeartbeatTime": condition.last_heartbeat_time,
    }
    return result | {name: rfc3339(moment) for name, moment in times.items() if moment is not None}


def find(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """The condition of a type."""
    return next((c for c in conditions if c.type == kind), None)


def with_condition(conditions: Iterable[Condition], new: Condition, now: datetime) -> tuple[Condition, ...]:
    """The conditions with `new` in the place of the one of its type; its transition time is right."""
    old = list(conditions)
    for at, current in enumerate(old):
        if current.type == new.type:
            since = current.last_transition_time if current.status == new.status else now
            old[at] = _since(new, since or now)
            return tuple(old)
    return (*old, _since(new, now))


def without(conditions: Iterable[Condition], kind: str) -> tuple[Condition, ...]:
    """The conditions but for those of a type."""
    return tuple(c for c in conditions if c.type != kind)


def _since(condition: Condition, moment: datetime) -> Condition:
    return Condition(
        type=condition.type,
        status=condition.status,
        reason=condition.reason,
        message=condition.message,
        observed_generation=condition.observed_generation,
        last_transition_time=moment,
        last_update_time=condition.last_update_time,
        last_probe_time=condition.last_probe_time,
        last_heartbeat_time=condition.last_heartbeat_time,
    )
