"""Removes pods that nobody will remove: on nodes that are no more, unplaced ones that were deleted, ended ones by age.

Deletes Pods at once (grace period 0); writes the phase Failed of pods that were lost with their node. A pod that is
Terminating on a node which is only unreachable stays until the node confirms its end or the Node is deleted: it may
still run there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.api.types import Condition, Node, Pod
from kybern.client import kinds
from kybern.client.acting import LeadershipLost
from kybern.client.controller import Controller, ControllerContext
from kybern.key import Key
from master.controllers import batches, conditions, indices
from master.controllers.nodes import taints

# Ended pods beyond this many go, the oldest first.
TERMINATED_LIMIT = 12500
_SWEEP_EVERY = 20.0
# A key of its own in the queue, for what concerns all pods together; no pod has a name with this character.
_SWEEP = Key("", "*")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def surplus(finished: Sequence[Pod], limit: int) -> Sequence[Pod]:
    """The ended pods that are too many: the oldest."""
    over = len(finished) - limit
    if over <= 0:
        return ()
    return sorted(finished, key=lambda p: (p.metadata.creation_timestamp or _EPOCH, p.namespace, p.name))[:over]


class PodGarbageCollector(Controller):
    """One key is one Pod; one more is the sweep over ended pods."""

    name = "pod-garbage-collector"

    def __init__(self, context: ControllerContext, *, limit: int = TERMINATED_LIMIT) -> None:
        super().__init__(context)
        self._limit = limit
        # Since when a node was missing; a Node may appear later than the pods that were bound to it.
        self._missing: dict[str, float] = {}
        self._pods = self.watch(kinds.PODS, self._of_pod)
        self._nodes = self.watch(kinds.NODES, self._on_node, facts=lambda n: (n.spec.taints, n.ready))
        indices.by_node(self._pods)
        self._pods.index("finished", lambda p: ("yes",) if p.finished and not p.deleting else ())

    async def run(self) -> None:
        """As every controller, with a sweep now and then."""
        self.queue.add(_SWEEP)
        await super().run()

    def _of_pod(self, pod: Pod) -> Iterable[Key]:
        if not pod.spec.node_name:
            return (pod.key,) if pod.deleting else ()
        node = self._nodes.get(Key("", pod.spec.node_name))
        return (pod.key,) if node is None or (pod.deleting and _out_of_service(node)) else ()

    def _on_node(self, node: Node) -> Iterable[Key]:
        # Asked before and after each change; the state after a deletion is seen by the reconciliation itself.
        return [p.key for p in indices.on_node(self._pods, node.name)]

    async def reconcile(self, key: Key) -> float | None:
        """Remove one pod if nobody else will."""
        if key == _SWEEP:
            await self._sweep()
            return _SWEEP_EVERY
        pod = self._pods.get(key)
        if pod is None:
            return None
        if not pod.spec.node_name:
            if pod.deleting:
                await self._remove(pod)
            return None
        node = self._nodes.get(Key("", pod.spec.node_name))
        if node is None:
            return await self._orphaned(pod)
        self._missing.pop(node.name, None)
        if pod.deleting and _out_of_service(node):
            await self._remove(pod, "DeletionByPodGC", "PodGC: node has the out-of-service taint")
        return None

    async def _orphaned(self, pod: Pod) -> float | None:
        name = pod.spec.node_name
        since = self._missing.setdefault(name, self.clock.monotonic())
        left = since + self.context.cluster.node_grace_period - self.clock.monotonic()
        if left > 0:
            return left
        try:
            await self.client.get(resources.NODES, name)
        except StatusError as error:
            if error.reason != Reason.NOT_FOUND:
                raise
            await self._remove(pod, "DeletionByPodGC", "PodGC: node no longer exists")
            return None
        return self.context.cluster.node_grace_period

    async def _sweep(self) -> None:
        too_many = surplus(list(self._pods.indexed("finished", "yes")), self._limit)
        refused = await batches.together(self._remove(pod) for pod in too_many)
        if refused:
            raise refused[0]

    async def _remove(self, pod: Pod, reason: str = "", message: str = "") -> None:
        try:
            if reason and not pod.finished:
                await self._fail(pod, Condition("DisruptionTarget", "True", reason, message))
            await self.client.delete(resources.PODS, pod.name, pod.namespace, uid=pod.uid, grace_seconds=0)
        except StatusError as error:
            if isinstance(error, LeadershipLost) or error.reason != Reason.NOT_FOUND:
                raise

    async def _fail(self, pod: Pod, why: Condition) -> None:
        stated = conditions.with_condition(pod.status.conditions, why, self.clock.now())
        patch = {
            "metadata": {"uid": pod.uid, "resourceVersion": pod.metadata.resource_version},
            "status": {"phase": "Failed", "conditions": [conditions.document(c) for c in stated]},
        }
        await self.client.patch(resources.PODS, pod.name, patch, pod.namespace, subresource="status")


def _out_of_service(node: Node) -> bool:
    return not node.ready and any(t.key == taints.OUT_OF_SERVICE for t in node.spec.taints)
