"""What controllers want to know of a pod."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from kybern.api.types import Pod

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def live(pod: Pod) -> bool:
    """Whether it counts: neither ended nor on its way out, wherever its node may be."""
    return not pod.finished and not pod.deleting


def ready_since(pod: Pod) -> datetime | None:
    """Since when it has been ready; None while it is not."""
    condition = pod.condition("Ready")
    return condition.last_transition_time if condition is not None and condition.true else None


def available_in(pod: Pod, min_ready_seconds: int, now: datetime) -> float | None:
    """Seconds until the pod will have been ready for long enough, at most 0 when it has; None while it is not ready."""
    if not pod.ready:
        return None
    if not min_ready_seconds:
        return 0.0
    since = ready_since(pod)
    if since is None:
        return None
    return (since + timedelta(seconds=min_ready_seconds) - now).total_seconds()


def available(pod: Pod, min_ready_seconds: int, now: datetime) -> bool:
    """Whether the pod has been ready for long enough."""
    wait = available_in(pod, min_ready_seconds, now)
    return wait is not None and wait <= 0


def next_available(pods: Iterable[Pod], min_ready_seconds: int, now: datetime) -> float | None:
    """Seconds until the next of the ready pods becomes available; None when that will not happen by itself."""
    waits = [w for pod in pods if (w := available_in(pod, min_ready_seconds, now)) is not None and w > 0]
    return min(waits) if waits else None


def deletion_cost(pod: Pod) -> int:
    """What its users say it costs to lose it; 0 when they say nothing, or nothing understandable."""
    try:
        return int(pod.metadata.annotations.get(DELETION_COST, "0"))
    except ValueError:
        return 0


def restarts(pod: Pod) -> int:
    """How often its containers were restarted, the most often restarted one counting."""
    return max((s.restart_count for s in pod.status.container_statuses), default=0)
