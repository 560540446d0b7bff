"""How many pods each ReplicaSet of a Deployment is to have next. Pure: one step at a time, towards the new template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

from kybern.api.types import Deployment, ReplicaSet
from kybern.api.types.apps import RollingUpdate
from master.controllers.deployments.revisions import DESIRED, MAX, Rollout, age_order, size_annotations

Sizes = tuple[tuple[ReplicaSet, int], ...]

RECREATE = "Recreate"
_DEFAULT_SHARE = "25%"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many pods above the wanted count there may be, and how many below it may be available."""

    surge: int
    unavailable: int


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now: make the present template's ReplicaSet with that many pods, or give ReplicaSets other sizes."""

    create: int | None = None
    scale: Sizes = ()


def bounds(deployment: Deployment) -> Bounds:
    """The bounds in pods. Both zero would mean that nothing can ever move, so one may be unavailable then."""
    if deployment.spec.strategy.type == RECREATE:
        return Bounds(0, 0)
    rolling = deployment.spec.strategy.rolling_update or RollingUpdate()
    wanted = deployment.spec.replicas
    surge = _count(rolling.max_surge, wanted, up=True)
    unavailable = _count(rolling.max_unavailable, wanted, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return Bounds(surge, min(unavailable, wanted))


def _count(value: int | str | None, of: int, *, up: bool) -> int:
    value = _DEFAULT_SHARE if value is None else value
    if isinstance(value, int):
        return max(value, 0)
    try:
        share = int(value.removesuffix("%")) * of / 100
    except ValueError:
        return 0
    return max(ceil(share) if up else floor(share), 0)


def plan(current: Rollout, *, old_pods: bool) -> Step:
    """The next step. `old_pods`: whether pods of old ReplicaSets exist that have not ended (for Recreate)."""
    deployment = current.deployment
    if deployment.spec.paused or resized(current):
        return Step(scale=spread(current))
    if deployment.spec.strategy.type == RECREATE:
        return _recreate(current, old_pods=old_pods)
    if current.new is None:
        return Step(create=_room_for_new(current, 0))
    wanted = new_size(current, current.new)
    if wanted != current.new.spec.replicas:
        return Step(scale=((current.new, wanted),))
    return Step(scale=shrink_old(current))


def _recreate(current: Rollout, *, old_pods: bool) -> Step:
    down = tuple((s, 0) for s in current.old if s.spec.replicas > 0)
    if down or old_pods:
        return Step(scale=down)
    wanted = current.deployment.spec.replicas
    if current.new is None:
        return Step(create=wanted)
    return Step(scale=((current.new, wanted),) if current.new.spec.replicas != wanted else ())


def new_size(current: Rollout, new: ReplicaSet) -> int:
    """The size of the present template's ReplicaSet: as many as fit under the surge, at most the wanted count."""
    if new.spec.replicas >= current.deployment.spec.replicas:
        return current.deployment.spec.replicas
    return _room_for_new(current, new.spec.replicas)


def _room_for_new(current: Rollout, have: int) -> int:
    wanted = current.deployment.spec.replicas
    room = wanted + bounds(current.deployment).surge - sum(s.spec.replicas for s in current.all)
    return have + max(min(room, wanted - have), 0)


def shrink_old(current: Rollout) -> Sizes:
    """Smaller sizes for old ReplicaSets: first what is not available anyway, then what availability can spare."""
    least = current.deployment.spec.replicas - bounds(current.deployment).unavailable
    new_missing = 0 if current.new is None else current.new.spec.replicas - available(current.new)
    spare = sum(s.spec.replicas for s in current.all) - least - new_missing
    sizes = {s.name: s.spec.replicas for s in current.old}
    if spare <= 0 or not any(sizes.values()):
        return ()
    for old in current.old:
        dead = min(sizes[old.name] - available(old), spare)
        sizes[old.name] -= dead
        spare -= dead
    # Nothing is dead any more now, or nothing is left to spare: what is left is what serves beyond the least.
    for old in current.old:
        given_up = max(min(sizes[old.name], spare), 0)
        sizes[old.name] -= given_up
        spare -= given_up
    return tuple((s, sizes[s.name]) for s in current.old if sizes[s.name] != s.spec.replicas)


def available(replica_set: ReplicaSet) -> int:
    """Available pods that will stay: a status from before the set was made smaller tells too many."""
    return min(replica_set.status.available_replicas, replica_set.spec.replicas)


def resized(current: Rollout) -> bool:
    """Whether the Deployment's count changed since its ReplicaSets were scaled."""
    wanted = str(current.deployment.spec.replicas)
    return any(s.metadata.annotations.get(DESIRED, wanted) != wanted for s in current.active)


def spread(current: Rollout) -> Sizes:
    """Sizes after a change of the Deployment's count; in the middle of a rollout every set gets its share of it.

    Sets that keep their size are in it too when they have to learn what they were scaled for.
    """
    wanted = current.deployment.spec.replicas
    active = current.active
    if len(active) <= 1:
        only = active[0] if active else current.new or (current.old[-1] if current.old else None)
        return _noted(current, ((only, wanted),) if only is not None else ())
    new = current.new
    if new is not None and _saturated(new, wanted):
        return tuple((s, 0) for s in current.old if s.spec.replicas > 0)
    if current.deployment.spec.strategy.type == RECREATE:
        return _noted(current, tuple((s, s.spec.replicas) for s in active))
    return _noted(current, _proportional(current, active))


def _saturated(new: ReplicaSet, wanted: int) -> bool:
    noted = new.metadata.annotations.get(DESIRED)
    return new.spec.replicas == wanted and noted == str(wanted) and new.status.available_replicas == wanted


def _proportional(current: Rollout, active: Sequence[ReplicaSet]) -> Sizes:
    wanted = current.deployment.spec.replicas
    allowed = wanted + bounds(current.deployment).surge if wanted > 0 else 0
    change = allowed - sum(s.spec.replicas for s in active)
    if change == 0:
        return tuple((s, s.spec.replicas) for s in active)
    # The largest comes first and takes what rounding left over, as far as it can; of equal ones the newer grows and
    # the older shrinks.
    by_age = sorted(active, key=age_order, reverse=change > 0)
    ordered = sorted(by_age, key=lambda s: -s.spec.replicas)
    sizes, given = [], 0
    for member in ordered:
        left = change - given
        share = _share(current, member, allowed)
        # Never against the direction of the whole, and never more than is left of it.
        share = max(min(share, left), 0) if change > 0 else min(max(share, left), 0)
        sizes.append(member.spec.replicas + share)
        given += share
    for at, size in enumerate(sizes):
        sizes[at] = max(size + change - given, 0)
        given += sizes[at] - size
    return tuple(zip(ordered, sizes, strict=True))


def _share(current: Rollout, member: ReplicaSet, allowed: int) -> int:
    """By how much a set changes when the whole becomes `allowed`."""
    if current.deployment.spec.replicas == 0:
        return -member.spec.replicas
    try:
        before = int(member.metadata.annotations.get(MAX, ""))
    except ValueError:
        before = current.deployment.status.replicas
    if before <= 0:
        return 0
    # Half up, on integers.
    return (2 * member.spec.replicas * allowed + before) // (2 * before) - member.spec.replicas


def _noted(current: Rollout, sizes: Sizes) -> Sizes:
    notes = size_annotations(current.deployment.spec.replicas, bounds(current.deployment).surge).items()
    return tuple(
        (s, size) for s, size in sizes if size != s.spec.replicas or not notes <= s.metadata.annotations.items()
    )
