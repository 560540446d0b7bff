"""Versions of a Deployment's template: which ReplicaSet holds which, and how they are named and numbered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from kybern.api import resources
from kybern.api.types import Deployment, ReplicaSet

REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAX = "deployment.kubernetes.io/max-replicas"
HASH = "pod-template-hash"

# Annotations of a Deployment that its ReplicaSets do not inherit.
_OWN = frozenset(
    ("kubectl.kubernetes.io/last-applied-configuration", REVISION, HISTORY, DESIRED, MAX,
     "deprecated.deployment.rollback.to")
)  # fmt: skip
# Letters and digits that form no words and are hard to mistake.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_HASH_LENGTH = 10
# A ReplicaSet's history of revisions is cut at the front beyond this.
_HISTORY_LENGTH = 2000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Rollout:
    """A Deployment with its ReplicaSets: the one of the present template, and the others, oldest first."""

    deployment: Deployment
    new: ReplicaSet | None
    old: tuple[ReplicaSet, ...]

    @property
    def all(self) -> tuple[ReplicaSet, ...]:
        """Every ReplicaSet."""
        return self.old if self.new is None else (*self.old, self.new)

    @property
    def active(self) -> tuple[ReplicaSet, ...]:
        """The ReplicaSets that are to have pods."""
        return tuple(s for s in self.all if s.spec.replicas > 0)


def age_order(replica_set: ReplicaSet) -> tuple[datetime, str]:
    """Sorts by creation."""
    return replica_set.metadata.creation_timestamp or _EPOCH, replica_set.name


def rollout(deployment: Deployment, sets: Iterable[ReplicaSet]) -> Rollout:
    """Finds the ReplicaSet of the present template; when several have it, the oldest is taken."""
    ordered = sorted(sets, key=age_order)
    new = next((s for s in ordered if same_template(s.spec.template, deployment.spec.template)), None)
    return Rollout(deployment, new, tuple(s for s in ordered if s is not new))


def same_template(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two templates make the same pods; the label that tells ReplicaSets apart does not count."""
    return _without_hash(one) == _without_hash(other)


def _without_hash(template: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = template.get("metadata") or {}
    labels = {k: v for k, v in (meta.get("labels") or {}).items() if k != HASH}
    return {**template, "metadata": {**meta, "labels": labels}}


def template_hash(template: Mapping[str, Any], collisions: int) -> str:
    """A short text that depends on the template and the number of collisions alone."""
    digest = hashlib.sha256(msgspec.json.encode(_without_hash(template), order="deterministic"))
    digest.update(collisions.to_bytes(8, "big"))
    number = int.from_bytes(digest.digest(), "big")
    letters = []
    for _ in range(_HASH_LENGTH):
        number, rest = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[rest])
    return "".join(letters)


def revision(of: ReplicaSet | Deployment) -> int:
    """The number of the revision; 0 when there is none."""
    try:
        return int(of.metadata.annotations.get(REVISION, "0"))
    except ValueError:
        return 0


def next_revision(old: Iterable[ReplicaSet]) -> int:
    """What the present template's ReplicaSet must have at least, so that it is the newest."""
    return max((revision(s) for s in old), default=0) + 1


def inherited(deployment: Deployment) -> dict[str, str]:
    """The annotations that ReplicaSets take over."""
    return {k: v for k, v in deployment.metadata.annotations.items() if k not in _OWN}


def size_annotations(replicas: int, surge: int) -> dict[str, str]:
    """What a ReplicaSet was scaled for; proportional scaling and scaling events are told by them."""
    return {DESIRED: str(replicas), MAX: str(replicas + surge)}


def annotations_of_new(current: Rollout) -> dict[str, str]:
    """Annotations that the present template's ReplicaSet has to get; empty when it has them."""
    new = current.new
    if new is None:
        return {}
    have = new.metadata.annotations
    wanted = inherited(current.deployment)
    number, before = next_revision(current.old), revision(new)
    if before < number:
        wanted[REVISION] = str(number)
        if before > 0:
            history = [*filter(None, have.get(HISTORY, "").split(",")), str(before)]
            while len(",".join(history)) > _HISTORY_LENGTH:
                history.pop(0)
            wanted[HISTORY] = ",".join(history)
    return {k: v for k, v in wanted.items() if have.get(k) != v}


def new_set(current: Rollout, replicas: int, surge: int) -> dict[str, Any]:
    """The document of the ReplicaSet for the present template."""
    deployment = current.deployment
    mark = template_hash(deployment.spec.template, deployment.status.collision_count)
    template = deployment.spec.template
    meta = template.get("metadata") or {}
    labels = {**(meta.get("labels") or {}), HASH: mark}
    selector = deployment.spec.selector or {}
    annotations = {
        **inherited(deployment),
        REVISION: str(next_revision(current.old)),
        **size_annotations(deployment.spec.replicas, surge),
    }
    spec: dict[str, Any] = {
        "replicas": replicas,
        "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH: mark}},
        "template": {**template, "metadata": {**meta, "labels": labels}},
    }
    if deployment.spec.min_ready_seconds:
        spec["minReadySeconds"] = deployment.spec.min_ready_seconds
    return {
        "apiVersion": resources.REPLICA_SETS.api_version,
        "kind": resources.REPLICA_SETS.kind,
        "metadata": {
            "name": f"{deployment.name}-{mark}",
            "namespace": deployment.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [deployment.owner_reference()],
        },
        "spec": spec,
    }


def to_forget(current: Rollout) -> Sequence[ReplicaSet]:
    """Old ReplicaSets beyond the history's limit, the lowest revisions first; those that still have pods stay."""
    kept = [s for s in current.old if not s.deleting]
    surplus = len(kept) - current.deployment.spec.revision_history_limit
    if surplus <= 0:
        return ()
    return [s for s in sorted(kept, key=revision)[:surplus] if _idle(s)]


def _idle(replica_set: ReplicaSet) -> bool:
    return (
        replica_set.spec.replicas == 0
        and replica_set.status.replicas == 0
        and replica_set.status.observed_generation >= replica_set.metadata.generation
    )
