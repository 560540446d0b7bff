"""Evicts pods from nodes whose taints they do not tolerate (effect NoExecute), when their time is up.

Deletes Pods; writes their DisruptionTarget condition before. Time counts from when this process saw the taint, on its
monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable

from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.api.types import Condition, Node, Pod, Taint
from kybern.client import kinds
from kybern.client.acting import LeadershipLost
from kybern.client.controller import Controller, ControllerContext
from kybern.key import Key
from master.controllers import conditions, indices
from master.controllers.nodes import taints


class TaintEvictionController(Controller):
    """One key is one Pod."""

    name = "taint-eviction-controller"

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        # When the node's present set of evicting taints was first seen, by node uid.
        self._since: dict[str, tuple[tuple[Taint, ...], float]] = {}
        self._nodes = self.watch(kinds.NODES, self._on_node, facts=lambda n: n.spec.taints)
        self._pods = self.watch(kinds.PODS, self._of_pod)
        indices.by_node(self._pods)

    def _on_node(self, node: Node) -> Iterable[Key]:
        return [p.key for p in indices.on_node(self._pods, node.name)]

    def _of_pod(self, pod: Pod) -> Iterable[Key]:
        node = self._nodes.get(Key("", pod.spec.node_name)) if pod.spec.node_name else None
        return (pod.key,) if node is not None and _evicting(node) else ()

    async def reconcile(self, key: Key) -> float | None:
        """Evict one pod if its time is up; otherwise come again when it is."""
        pod = self._pods.get(key)
        if pod is None or pod.deleting or pod.finished or not pod.spec.node_name:
            return None
        node = self._nodes.get(Key("", pod.spec.node_name))
        if node is None:
            return None  # pods of nodes that are no more are the pod collector's
        present = _evicting(node)
        if not present:
            self._since.pop(node.uid, None)
            return None
        patience = taints.patience(pod.spec.tolerations, present)
        if patience is None:
            return None
        left = self._first_seen(node, present) + patience - self.clock.monotonic()
        if left > 0:
            return left
        await self._evict(pod)
        return None

    def _first_seen(self, node: Node, present: tuple[Taint, ...]) -> float:
        before = self._since.get(node.uid)
        if before is not None and {(t.key, t.value) for t in before[0]} >= {(t.key, t.value) for t in present}:
            return before[1]
        self._since[node.uid] = (present, self.clock.monotonic())
        return self._since[node.uid][1]

    async def _evict(self, pod: Pod) -> None:
        self.events.record(pod, "TaintManagerEviction", f"Marking for deletion Pod {pod.key}")
        try:
            await self._say_why(pod)
            await self.client.delete(resources.PODS, pod.name, pod.namespace, uid=pod.uid)
        except StatusError as error:
            if isinstance(error, LeadershipLost) or error.reason != Reason.NOT_FOUND:
                raise

    async def _say_why(self, pod: Pod) -> None:
        if pod.condition("DisruptionTarget") is not None:
            return
        reason = Condition(
            "DisruptionTarget", "True", "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"
        )
        stated = conditions.with_condition(pod.status.conditions, reason, self.clock.now())
        patch = {
            "metadata": {"uid": pod.uid, "resourceVersion": pod.metadata.resource_version},
            "status": {"conditions": [conditions.document(c) for c in stated]},
        }
        await self.client.patch(resources.PODS, pod.name, patch, pod.namespace, subresource="status")


def _evicting(node: Node) -> tuple[Taint, ...]:
    return tuple(t for t in node.spec.taints if t.effect == taints.NO_EXECUTE)
