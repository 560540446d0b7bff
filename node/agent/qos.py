"""Quality of service, and the numbers that the kernel gets for requests and limits."""

from __future__ import annotations

from kybern.api import quantity
from kybern.api.types import Container as ContainerSpec
from kybern.api.types import PodSpec
from node.runtime.interface import Limits

GUARANTEED = "Guaranteed"
BURSTABLE = "Burstable"
BEST_EFFORT = "BestEffort"

_PERIOD_US = 100_000
# The kernel accepts no shorter quota and no fewer shares.
_LEAST_QUOTA_US = 1_000
_LEAST_SHARES = 2
_MOST_SHARES = 262_144


def qos_class(spec: PodSpec) -> str:
    """The class that requests and limits of all containers make."""
    asked = False
    guaranteed = True
    for container in (*spec.init_containers, *spec.containers):
        for name in ("cpu", "memory"):
            limit = quantity.of(container.resources.limits.get(name))
            request = quantity.of(container.resources.requests.get(name, container.resources.limits.get(name)))
            asked = asked or limit > 0 or request > 0
            guaranteed = guaranteed and limit > 0 and request == limit
    if not asked:
        return BEST_EFFORT
    return GUARANTEED if guaranteed else BURSTABLE


def limits_of(spec: PodSpec, container: ContainerSpec, *, capacity: int) -> Limits:
    """What the kernel enforces for a container; `capacity` is the node's memory in bytes."""
    wanted = container.resources
    cpu_limit = quantity.milli(wanted.limits.get("cpu"))
    cpu_request = quantity.milli(wanted.requests.get("cpu", wanted.limits.get("cpu")))
    quota = max(_LEAST_QUOTA_US, cpu_limit * _PERIOD_US // 1000) if cpu_limit else 0
    return Limits(
        cpu_shares=min(_MOST_SHARES, max(_LEAST_SHARES, cpu_request * 1024 // 1000)),
        cpu_period_us=_PERIOD_US if quota else 0,
        cpu_quota_us=quota,
        memory_bytes=quantity.whole(wanted.limits.get("memory")),
        oom_score_adj=oom_score_adj(spec, container, capacity),
    )


def oom_score_adj(spec: PodSpec, container: ContainerSpec, capacity: int) -> int:
    """Which processes the kernel kills first when memory runs out: those that use more than they asked for."""
    kind = qos_class(spec)
    if kind == GUARANTEED:
        return -997
    if kind == BEST_EFFORT:
        return 1000
    request = quantity.whole(container.resources.requests.get("memory", container.resources.limits.get("memory")))
    share = 1000 - 1000 * request // capacity if capacity else 1000
    # Strictly between those of the two other classes.
    return min(999, max(3, share))
