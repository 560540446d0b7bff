"""Keeps a ReplicaSet per version of a Deployment's template and shifts pods to the newest.

Writes ReplicaSets (creates, sizes, annotations, owners, deletes old ones), the Deployment's status and its revision.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kybern.api import resources, selectors
from kybern.api.errors import Reason, StatusError
from kybern.api.types import Deployment, Pod, ReplicaSet, decode
from kybern.client import kinds
from kybern.client.acting import LeadershipLost
from kybern.client.controller import Controller, ControllerContext
from kybern.client.events import WARNING
from kybern.client.interface import Propagation
from kybern.key import Key
from master.controllers import indices, ownership
from master.controllers.deployments import revisions, scaling, status
from master.controllers.deployments.revisions import Rollout

# Rounds up what is left until a deadline: stored times are whole seconds.
_SLACK = 1.0


class DeploymentController(Controller):
    """One key is one Deployment; every reconciliation is one step of its rollout."""

    name = "deployment-controller"

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._deployments = self.watch(kinds.DEPLOYMENTS)
        indices.by_namespace(self._deployments)
        self._sets = self.watch(kinds.REPLICA_SETS, self._of_set)
        self._pods = self.watch(kinds.PODS, self._of_pod)
        indices.by_controller(self._sets)
        indices.by_controller(self._pods)

    def _of_set(self, changed: ReplicaSet) -> Iterable[Key]:
        above = changed.controller
        if above is not None:
            return (Key(changed.namespace, above.name),) if above.kind == resources.DEPLOYMENTS.kind else ()
        return [d.key for d in indices.in_namespace(self._deployments, changed.namespace) if _selects(d, changed)]

    def _of_pod(self, pod: Pod) -> Iterable[Key]:
        """Recreate alone waits for pods; everything else is in the ReplicaSets' status."""
        above = pod.controller
        if above is None or (owner := self._sets.get(Key(pod.namespace, above.name))) is None:
            return ()
        return [
            key
            for key in self._of_set(owner)
            if (d := self._deployments.get(key)) is not None and d.spec.strategy.type == scaling.RECREATE
        ]

    async def reconcile(self, key: Key) -> float | None:
        """Do the next step of the rollout and say where it is."""
        deployment = self._deployments.get(key)
        if deployment is None or deployment.deleting:
            return None  # the garbage collector owns the ReplicaSets from here on
        selector = selectors.from_label_selector(deployment.spec.selector)
        if selector is None or selector.empty:
            self.events.record(
                deployment,
                "SelectingAll",
                "This deployment is selecting all pods. A non-empty selector is required.",
                type=WARNING,
            )
            return None
        owned, changed = await ownership.claim(self.client, resources.DEPLOYMENTS, deployment, selector, self._sets)
        if changed:
            return None  # comes again once the cache has seen it
        current = revisions.rollout(deployment, owned)
        if await self._number(current):
            return None
        await self._step(current)
        return self._next_look(deployment)

    async def _step(self, current: Rollout) -> None:
        step = scaling.plan(current, old_pods=self._old_pods(current))
        if step.create is not None:
            await self._create(current, step.create)
            return
        for replica_set, size in step.scale:
            await self._resize(current, replica_set, size)
        await self._say(current)
        if not current.deployment.spec.paused and status.complete(current.deployment, status.counts(current)):
            await self._forget(current)

    def _next_look(self, deployment: Deployment) -> float | None:
        left = status.seconds_to_deadline(deployment, self.clock.now())
        return None if left is None else max(left, 0.0) + _SLACK

    def _old_pods(self, current: Rollout) -> bool:
        return any(not pod.finished for old in current.old for pod in indices.controlled(self._pods, old.uid))

    async def _number(self, current: Rollout) -> bool:
        """Give the present template's ReplicaSet the highest revision, and tell the Deployment; whether it wrote."""
        deployment, new = current.deployment, current.new
        if new is None:
            return False
        patch: dict[str, Any] = {}
        if annotations := revisions.annotations_of_new(current):
            patch["metadata"] = {"annotations": annotations}
        if new.spec.min_ready_seconds != deployment.spec.min_ready_seconds:
            patch["spec"] = {"minReadySeconds": deployment.spec.min_ready_seconds or None}
        if patch:
            await self._patch_set(new, patch)
            return True
        number = new.metadata.annotations.get(revisions.REVISION, "")
        if deployment.metadata.annotations.get(revisions.REVISION) == number:
            return False
        meta = {
            "uid": deployment.uid,
            "resourceVersion": deployment.metadata.resource_version,
            "annotations": {revisions.REVISION: number},
        }
        await self.client.patch(resources.DEPLOYMENTS, deployment.name, {"metadata": meta}, deployment.namespace)
        return True

    async def _create(self, current: Rollout, size: int) -> None:
        deployment = current.deployment
        document = revisions.new_set(current, size, scaling.bounds(deployment).surge)
        name = document["metadata"]["name"]
        try:
            await self.client.create(resources.REPLICA_SETS, document, deployment.namespace)
        except StatusError as error:
            if error.reason == Reason.ALREADY_EXISTS:
                await self._collided(deployment, name)
                return
            if not isinstance(error, LeadershipLost):
                message = f'Failed to create new replica set "{name}": {error}'
                self.events.record(deployment, "ReplicaSetCreateError", message, type=WARNING)
            raise
        if size > 0:
            message = f"Scaled up replica set {name} from 0 to {size}"
            self.events.record(deployment, "ScalingReplicaSet", message)
        if status.has_deadline(deployment):
            stated = status.created(current, name, self.clock.now())
            await self._write_status(deployment, status.document(deployment, status.counts(current), stated))

    async def _collided(self, deployment: Deployment, name: str) -> None:
        """The name is taken. Ours by an earlier try whose answer was lost: the cache will show it; else take another.

        Raises:
            StatusError: the API cannot be asked who has the name.
        """
        there = decode(await self.client.get(resources.REPLICA_SETS, name, deployment.namespace), ReplicaSet)
        above = there.controller
        same = revisions.same_template(there.spec.template, deployment.spec.template)
        if above is not None and above.uid == deployment.uid and same:
            return
        await self._write_status(deployment, {"collisionCount": deployment.status.collision_count + 1})

    async def _resize(self, current: Rollout, replica_set: ReplicaSet, size: int) -> None:
        deployment = current.deployment
        notes = revisions.size_annotations(deployment.spec.replicas, scaling.bounds(deployment).surge)
        await self._patch_set(replica_set, {"metadata": {"annotations": notes}, "spec": {"replicas": size}})
        before = replica_set.spec.replicas
        if size != before:
            direction = "up" if size > before else "down"
            message = f"Scaled {direction} replica set {replica_set.name} from {before} to {size}"
            self.events.record(deployment, "ScalingReplicaSet", message)

    async def _patch_set(self, replica_set: ReplicaSet, patch: dict[str, Any]) -> None:
        meta = {"uid": replica_set.uid, "resourceVersion": replica_set.metadata.resource_version}
        patch = {**patch, "metadata": {**patch.get("metadata", {}), **meta}}
        await self.client.patch(resources.REPLICA_SETS, replica_set.name, patch, replica_set.namespace)

    async def _say(self, current: Rollout) -> None:
        deployment = current.deployment
        stated = status.assess(current, self.clock.now())
        new = status.document(deployment, status.counts(current), stated)
        if status.differs(deployment, new):
            await self._write_status(deployment, new)

    async def _write_status(self, deployment: Deployment, new: dict[str, Any]) -> None:
        patch = {"metadata": {"uid": deployment.uid}, "status": new}
        await self.client.patch(
            resources.DEPLOYMENTS, deployment.name, patch, deployment.namespace, subresource="status"
        )

    async def _forget(self, current: Rollout) -> None:
        for old in revisions.to_forget(current):
            await self.client.delete(
                resources.REPLICA_SETS, old.name, old.namespace, uid=old.uid, propagation=Propagation.BACKGROUND
            )


def _selects(deployment: Deployment, replica_set: ReplicaSet) -> bool:
    selector = selectors.from_label_selector(deployment.spec.selector)
    return selector is not None and not selector.empty and selector.matches(replica_set.metadata.labels)
