"""What a Deployment says of itself: counts, and the conditions that `kubectl rollout status` waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kybern.api.types import Condition, Deployment, DeploymentStatus
from master.controllers import conditions
from master.controllers.deployments.revisions import Rollout
from master.controllers.deployments.scaling import bounds

AVAILABLE = "Available"
PROGRESSING = "Progressing"
FAILURE = "ReplicaFailure"

COMPLETE = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"
PAUSED = "DeploymentPaused"
RESUMED = "DeploymentResumed"
FOUND = "FoundNewReplicaSet"
CREATED = "NewReplicaSetCreated"
UPDATED = "ReplicaSetUpdated"

# The largest deadline stands for none.
_NO_DEADLINE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Counts:
    """Pods by what they are."""

    replicas: int
    updated: int
    ready: int
    available: int
    unavailable: int


def counts(current: Rollout) -> Counts:
    """Pods of all ReplicaSets, from their status."""
    available = sum(s.status.available_replicas for s in current.all)
    return Counts(
        replicas=sum(s.status.replicas for s in current.all),
        updated=current.new.status.replicas if current.new is not None else 0,
        ready=sum(s.status.ready_replicas for s in current.all),
        available=available,
        unavailable=max(sum(s.spec.replicas for s in current.all) - available, 0),
    )


def complete(deployment: Deployment, now: Counts) -> bool:
    """Whether every wanted pod is of the present template and available, and no other is there."""
    return deployment.spec.replicas == now.updated == now.replicas == now.available


def has_deadline(deployment: Deployment) -> bool:
    """Whether a rollout that does not progress is ever given up."""
    return deployment.spec.progress_deadline_seconds != _NO_DEADLINE


def seconds_to_deadline(deployment: Deployment, now: datetime) -> float | None:
    """Seconds until a rollout under way counts as stuck (from its condition as stored); None when none is."""
    condition = conditions.find(deployment.status.conditions, PROGRESSING)
    if condition is None or not has_deadline(deployment) or condition.last_update_time is None:
        return None
    if deployment.spec.paused or condition.reason in (COMPLETE, TIMED_OUT):
        return None
    due = condition.last_update_time + timedelta(seconds=deployment.spec.progress_deadline_seconds)
    return (due - now).total_seconds()


def assess(current: Rollout, now: datetime) -> tuple[Condition, ...]:
    """The conditions as they are to be now."""
    deployment = current.deployment
    have = counts(current)
    result = _assess_availability(deployment, have, now)
    result = _assess_failure(current, result, now)
    if not has_deadline(deployment):
        return conditions.without(result, PROGRESSING)
    progress = _progress(current, have, now)
    return result if progress is None else conditions.with_condition(result, progress, now)


def _assess_availability(deployment: Deployment, have: Counts, now: datetime) -> tuple[Condition, ...]:
    enough = have.available >= deployment.spec.replicas - bounds(deployment).unavailable
    condition = Condition(
        type=AVAILABLE,
        status="True" if enough else "False",
        reason="MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        message=f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        last_update_time=now,
    )
    before = conditions.find(deployment.status.conditions, AVAILABLE)
    if before is not None and before.status == condition.status:
        return deployment.status.conditions
    return conditions.with_condition(deployment.status.conditions, condition, now)


def _assess_failure(current: Rollout, have: Sequence[Condition], now: datetime) -> tuple[Condition, ...]:
    """A ReplicaSet that cannot make its pods is the Deployment's failure; the present template's comes first."""
    sets = ([current.new] if current.new is not None else []) + list(current.old)
    failure = next((c for s in sets if (c := conditions.find(s.status.conditions, FAILURE)) is not None), None)
    if failure is None:
        return conditions.without(have, FAILURE)
    before = conditions.find(have, FAILURE)
    if before is not None and (before.status, before.message) == (failure.status, failure.message):
        return tuple(have)
    copy = Condition(FAILURE, failure.status, failure.reason, failure.message, last_update_time=now)
    return conditions.with_condition(have, copy, now)


def _progress(current: Rollout, have: Counts, now: datetime) -> Condition | None:
    """The new Progressing condition; None when the stored one is still right."""
    deployment = current.deployment
    before = conditions.find(deployment.status.conditions, PROGRESSING)
    reason = before.reason if before is not None else ""

    def say(status: str, why: str, message: str) -> Condition:
        return Condition(PROGRESSING, status, why, message, last_update_time=now)

    if deployment.spec.paused:
        return None if reason in (PAUSED, TIMED_OUT) else say("Unknown", PAUSED, "Deployment is paused")
    if reason == PAUSED:
        return say("Unknown", RESUMED, "Deployment is resumed")
    if current.new is None:
        return None
    name = current.new.name
    if reason == COMPLETE and have.replicas == have.updated:
        # Pods that come and go after the rollout are no rollout.
        return None
    if complete(deployment, have):
        return say("True", COMPLETE, f'ReplicaSet "{name}" has successfully progressed.')
    if before is None:
        return say("True", FOUND, f'Found new replica set "{name}"')
    if _moves(deployment.status, have):
        return say("True", UPDATED, f'ReplicaSet "{name}" is progressing.')
    left = seconds_to_deadline(deployment, now)
    if left is not None and left < 0:
        return say("False", TIMED_OUT, f'ReplicaSet "{name}" has timed out progressing.')
    return None


def _moves(before: DeploymentStatus, have: Counts) -> bool:
    return (
        have.updated > before.updated_replicas
        or have.replicas - have.updated < before.replicas - before.updated_replicas
        or have.ready > before.ready_replicas
        or have.available > before.available_replicas
    )


def created(current: Rollout, name: str, now: datetime) -> tuple[Condition, ...]:
    """The conditions once the present template's ReplicaSet was made."""
    condition = Condition(PROGRESSING, "True", CREATED, f'Created new replica set "{name}"', last_update_time=now)
    return conditions.with_condition(current.deployment.status.conditions, condition, now)


def document(deployment: Deployment, have: Counts, stated: Sequence[Condition]) -> dict[str, Any]:
    """The status as a merge patch; fields that are zero are absent, hence None."""
    return {
        "observedGeneration": deployment.metadata.generation or None,
        "replicas": have.replicas or None,
        "updatedReplicas": have.updated or None,
        "readyReplicas": have.ready or None,
        "availableReplicas": have.available or None,
        "unavailableReplicas": have.unavailable or None,
        "conditions": [conditions.document(c) for c in stated] or None,
    }


def differs(deployment: Deployment, new: dict[str, Any]) -> bool:
    """Whether a status would say something else than the stored one."""
    old = deployment.status
    have = Counts(
        old.replicas, old.updated_replicas, old.ready_replicas, old.available_replicas, old.unavailable_replicas
    )
    stored = document(deployment, have, old.conditions)
    stored["observedGeneration"] = old.observed_generation or None
    return stored != new
