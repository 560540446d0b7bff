"""Keeps `replicas` live pods per ReplicaSet. Writes Pods (creates, deletes, owners) and ReplicaSets' status.

Pods that are on their way out do not count, so what a lost node held is replaced without its word.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kybern.api import resources, selectors
from kybern.api.errors import Reason, StatusError
from kybern.api.types import Condition, Pod, ReplicaSet
from kybern.client import kinds
from kybern.client.acting import LeadershipLost
from kybern.client.controller import Controller, ControllerContext
from kybern.client.events import WARNING
from kybern.key import Key
from master.controllers import batches, conditions, indices, ownership, pods

# Creations or deletions in one reconciliation; the next one goes on.
BURST = 500

_FAILURE = "ReplicaFailure"
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


@dataclass(frozen=True, slots=True)
class Plan:
    """How many pods to create, and which to delete; one of the two is empty."""

    create: int = 0
    delete: tuple[Pod, ...] = ()


def plan(wanted: int, owned: Collection[Pod], neighbours: Mapping[str, int], now: datetime) -> Plan:
    """The step to the wanted count. `neighbours` counts, by node, the live pods of the same workload."""
    living = [p for p in owned if pods.live(p)]
    surplus = len(living) - wanted
    if surplus <= 0:
        return Plan(create=min(-surplus, BURST))
    living.sort(key=lambda pod: _worth(pod, neighbours, now))
    return Plan(delete=tuple(living[: min(surplus, BURST)]))


def _worth(pod: Pod, neighbours: Mapping[str, int], now: datetime) -> tuple[object, ...]:
    """Sorts what serves least to the front, as Kubernetes does."""
    since = pods.ready_since(pod)
    created = pod.metadata.creation_timestamp
    return (
        bool(pod.spec.node_name),
        _PHASES.get(pod.status.phase, 0),
        pod.ready,
        pods.deletion_cost(pod),
        -neighbours.get(pod.spec.node_name, 0) if pod.spec.node_name else 0,
        (now - since).total_seconds() if since is not None else 0.0,
        -pods.restarts(pod),
        (now - created).total_seconds() if created is not None else 0.0,
        pod.name,
    )


def new_pod(owner: ReplicaSet) -> dict[str, Any]:
    """The document of a pod from the template."""
    template = owner.spec.template
    meta = template.get("metadata") or {}
    kept = {k: meta[k] for k in ("labels", "annotations", "finalizers") if meta.get(k)}
    return {
        "apiVersion": resources.PODS.api_version,
        "kind": resources.PODS.kind,
        "metadata": {
            "generateName": f"{owner.name}-",
            "namespace": owner.namespace,
            **kept,
            "ownerReferences": [owner.owner_reference()],
        },
        "spec": template.get("spec") or {},
    }


def status(owner: ReplicaSet, owned: Collection[Pod], failure: Condition | None, now: datetime) -> dict[str, Any]:
    """The status that fits what there is; fields that are zero are absent, hence None in a patch."""
    living = [p for p in owned if pods.live(p)]
    ready = [p for p in living if p.ready]
    labels = ((owner.spec.template.get("metadata") or {}).get("labels") or {}).items()
    kept = conditions.without(owner.status.conditions, _FAILURE)
    if failure is not None:
        kept = conditions.with_condition(owner.status.conditions, failure, now)
    return {
        "replicas": len(living),
        "fullyLabeledReplicas": sum(labels <= p.metadata.labels.items() for p in living) or None,
        "readyReplicas": len(ready) or None,
        "availableReplicas": sum(pods.available(p, owner.spec.min_ready_seconds, now) for p in ready) or None,
        "observedGeneration": owner.metadata.generation or None,
        "conditions": [conditions.document(c) for c in kept] or None,
    }


def differs(owner: ReplicaSet, new: Mapping[str, Any]) -> bool:
    """Whether a status would say something else than the stored one."""
    old = owner.status
    return (
        (new["replicas"], new["fullyLabeledReplicas"] or 0, new["readyReplicas"] or 0)
        != (old.replicas, old.fully_labeled_replicas, old.ready_replicas)
        or (new["availableReplicas"] or 0, new["observedGeneration"] or 0)
        != (old.available_replicas, old.observed_generation)
        or (new["conditions"] or []) != [conditions.document(c) for c in old.conditions]
    )


class ReplicaSetController(Controller):
    """One key is one ReplicaSet."""

    name = "replicaset-controller"

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._sets = self.watch(kinds.REPLICA_SETS)
        indices.by_namespace(self._sets)
        self._pods = self.watch(kinds.PODS, self._concerned)
        indices.by_controller(self._sets)
        indices.by_controller(self._pods)

    def _concerned(self, pod: Pod) -> Iterable[Key]:
        controller = pod.controller
        if controller is not None:
            return (Key(pod.namespace, controller.name),) if controller.kind == resources.REPLICA_SETS.kind else ()
        if pod.deleting:
            return ()
        return [s.key for s in indices.in_namespace(self._sets, pod.namespace) if _selects(s, pod)]

    async def reconcile(self, key: Key) -> float | None:
        """Adopt and release pods, then create or delete up to the count, then say what there is."""
        owner = self._sets.get(key)
        if owner is None:
            return None
        selector = selectors.from_label_selector(owner.spec.selector)
        if selector is None or selector.empty:
            return None
        owned, changed = await ownership.claim(self.client, resources.REPLICA_SETS, owner, selector, self._pods)
        now = self.clock.now()
        refused: list[StatusError] = []
        creating = True
        if not changed and not owner.deleting:
            step = plan(owner.spec.replicas, owned, self._neighbours(owner), now)
            creating = step.create > 0
            refused = await self._create(owner, step.create) or await self._delete(owner, step.delete)
        failure = _failure(refused, creating) if refused else None
        await self._say(owner, status(owner, owned, failure, now))
        if refused:
            raise refused[0]
        return pods.next_available([p for p in owned if pods.live(p)], owner.spec.min_ready_seconds, now)

    async def _create(self, owner: ReplicaSet, count: int) -> list[StatusError]:
        document = new_pod(owner)

        async def create() -> None:
            try:
                created = self._pods.kind.read(await self.client.create(resources.PODS, document, owner.namespace))
            except StatusError as error:
                if not isinstance(error, LeadershipLost) and not _namespace_ends(error):
                    self.events.record(owner, "FailedCreate", f"Error creating: {error}", type=WARNING)
                raise
            self.events.record(owner, "SuccessfulCreate", f"Created pod: {created.name}")

        refused = await batches.slow_start(count, create)
        if any(e.transient for e in refused):
            # The pod may exist although its answer was lost: count again from a cache that is newer than this moment.
            listed = await self.client.list(resources.PODS, owner.namespace, fields=f"metadata.name={owner.name}")
            self.client.written[resources.PODS] = max(self.client.written.get(resources.PODS, 0), listed.revision)
        return [e for e in refused if not _namespace_ends(e)]

    async def _delete(self, owner: ReplicaSet, surplus: Sequence[Pod]) -> list[StatusError]:
        async def delete(pod: Pod) -> None:
            try:
                await self.client.delete(resources.PODS, pod.name, pod.namespace, uid=pod.uid)
            except StatusError as error:
                if error.reason in (Reason.NOT_FOUND, Reason.CONFLICT) and not isinstance(error, LeadershipLost):
                    return  # gone already, or another pod of that name by now
                self.events.record(owner, "FailedDelete", f"Error deleting: {error}", type=WARNING)
                raise
            self.events.record(owner, "SuccessfulDelete", f"Deleted pod: {pod.name}")

        return await batches.together(delete(pod) for pod in surplus)

    async def _say(self, owner: ReplicaSet, new: Mapping[str, Any]) -> None:
        if differs(owner, new):
            patch = {"metadata": {"uid": owner.uid}, "status": new}
            try:
                await self.client.patch(
                    resources.REPLICA_SETS, owner.name, patch, owner.namespace, subresource="status"
                )
            except StatusError as error:
                if error.reason != Reason.NOT_FOUND:
                    raise

    def _neighbours(self, owner: ReplicaSet) -> Mapping[str, int]:
        """Live pods by node, of this set and of its siblings under the same Deployment."""
        above = owner.controller
        family = indices.controlled(self._sets, above.uid) if above is not None else (owner,)
        counts: dict[str, int] = {}
        for member in family:
            for pod in indices.controlled(self._pods, member.uid):
                if pod.spec.node_name and pods.live(pod):
                    counts[pod.spec.node_name] = counts.get(pod.spec.node_name, 0) + 1
        return counts


def _selects(owner: ReplicaSet, pod: Pod) -> bool:
    selector = selectors.from_label_selector(owner.spec.selector)
    return selector is not None and not selector.empty and selector.matches(pod.metadata.labels)


def _failure(refused: Sequence[StatusError], creating: bool) -> Condition:
    reason = "FailedCreate" if creating else "FailedDelete"
    return Condition(type=_FAILURE, status="True", reason=reason, message=str(refused[0]))


def _namespace_ends(error: StatusError) -> bool:
    """Whether a creation was refused because the namespace is being deleted: nothing to report, nothing to repeat."""
    return error.code == 403 and any(c.reason == "NamespaceTerminating" for c in error.causes)
