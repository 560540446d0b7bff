"""Judges nodes by their Leases and status, and says so: conditions, taints, and the readiness of a lost node's pods.

Writes Nodes (status.conditions of a silent node; spec.taints of the keys that are its own) and, for a lost node, the
Ready condition of its pods. Evicting is the taints' consequence, see eviction.py.
"""

from __future__ import annotations

from typing import Any

from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.api.types import Condition, Lease, Node, Pod
from kybern.client import kinds
from kybern.client.acting import LeadershipLost
from kybern.client.controller import Controller, ControllerContext
from kybern.key import Key
from master.controllers import batches, conditions, indices
from master.controllers.nodes import taints
from master.controllers.nodes.health import Bucket, Vitals, eviction_rate

LEASE_NAMESPACE = "kube-node-lease"

# What a node that says nothing is said to be; NetworkUnavailable is not the agent's and stays.
_JUDGED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_SILENT = ("NodeStatusUnknown", "Kubelet stopped posting node status.")
_NEVER = ("NodeStatusNeverUpdated", "Kubelet never posted node status.")


class NodeLifecycleController(Controller):
    """One key is one Node. All keys share what was seen of all nodes."""

    name = "node-controller"

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._vitals = Vitals(context.cluster.node_grace_period, context.cluster.node_lease_interval)
        self._bucket = Bucket()
        self._disrupted = False
        # Nodes that were allowed to evict; they stay so until they are ready again.
        self._given_up: set[str] = set()
        self._nodes = self.watch(kinds.NODES)
        self._leases = self.read(kinds.LEASES)
        self._pods = self.read(kinds.PODS)
        indices.by_node(self._pods)
        self._endings.append(self._nodes.on_change(lambda _, new: self._note(new.name) if new is not None else None))
        self._endings.append(self._leases.on_change(lambda _, new: self._renewed(new) if new is not None else None))

    def _renewed(self, lease: Lease) -> None:
        # Thousands of renewals a second are the ordinary case: only those that change a judgement are looked into.
        if lease.namespace == LEASE_NAMESPACE and self._nodes.get(Key("", lease.name)) is not None:
            self._note(lease.name)

    def _note(self, name: str) -> None:
        node = self._nodes.get(Key("", name))
        if node is None:
            return
        now = self.clock.monotonic()
        was_lost = self._vitals.lost(name, now)
        if self._vitals.sign(name, self._sign(node), now) and (was_lost or self._disrupted):
            self.queue.add(node.key)

    async def reconcile(self, key: Key) -> float | None:
        """Judge one node; comes again when its silence would become too long."""
        node = self._nodes.get(key)
        if node is None:
            self._vitals.forget(key.name)
            self._given_up.discard(key.name)
            return None
        now = self.clock.monotonic()
        self._notice_disruption(now)
        lost = self._vitals.lost(node.name, now)
        if lost and await self._say_unknown(node):
            return 0.0  # the rest from the cache that has seen it
        if lost and not self._disrupted:
            await self._unready_pods(node)
        wait = await self._taint(node, lost=lost)
        left = self._vitals.grace - self._vitals.silence(node.name, now)
        return min(wait, max(left, 0.0) if not lost else self._vitals.interval)

    def _sign(self, node: Node) -> tuple[object, ...]:
        lease = self._leases.get(Key(LEASE_NAMESPACE, node.name))
        ready = conditions.find(node.status.conditions, "Ready")
        renewed = lease.spec.renew_time if lease is not None else None
        return node.uid, renewed, ready.last_heartbeat_time if ready is not None else None

    def _notice_disruption(self, now: float) -> None:
        """When everybody is silent at once nobody is evicted; when that ends, everybody starts afresh."""
        silent = self._vitals.all_silent(now)
        if silent == self._disrupted:
            return
        self._disrupted = silent
        self._given_up.clear()
        if not silent:
            self._vitals.restart(now)
        for node in self._nodes.all():
            self.queue.add(node.key)

    async def _say_unknown(self, node: Node) -> bool:
        """Write that nothing is known of a silent node; whether there was something to write."""
        now = self.clock.now()
        result = node.status.conditions
        for kind in _JUDGED:
            old = conditions.find(result, kind)
            if old is not None and old.status == "Unknown":
                continue
            reason, message = _SILENT if old is not None else _NEVER
            heartbeat = old.last_heartbeat_time if old is not None else None
            new = Condition(kind, "Unknown", reason, message, last_heartbeat_time=heartbeat)
            result = conditions.with_condition(result, new, now)
        if result == node.status.conditions:
            return False
        patch = {
            "metadata": {"uid": node.uid, "resourceVersion": node.metadata.resource_version},
            "status": {"conditions": [conditions.document(c) for c in result]},
        }
        await self.client.patch(resources.NODES, node.name, patch, subresource="status")
        self.events.record(node, "NodeNotReady", f"Node {node.name} status is now: NodeNotReady")
        return True

    async def _unready_pods(self, node: Node) -> None:
        """Say that a lost node's pods are not ready, so that nothing is routed to them any more."""
        ready = [p for p in indices.on_node(self._pods, node.name) if p.ready]
        refused = await batches.together(self._unready(pod) for pod in ready)
        if refused:
            raise refused[0]

    async def _unready(self, pod: Pod) -> None:
        old = pod.condition("Ready")
        new = Condition("Ready", "False", "NodeNotReady", "", old.observed_generation if old is not None else 0)
        stated = conditions.with_condition(pod.status.conditions, new, self.clock.now())
        patch = {
            "metadata": {"uid": pod.uid, "resourceVersion": pod.metadata.resource_version},
            "status": {"conditions": [conditions.document(c) for c in stated]},
        }
        try:
            await self.client.patch(resources.PODS, pod.name, patch, pod.namespace, subresource="status")
        except StatusError as error:
            if isinstance(error, LeadershipLost) or error.reason != Reason.NOT_FOUND:
                raise
        else:
            self.events.record(pod, "NodeNotReady", "Node is not ready", type="Warning")

    async def _taint(self, node: Node, *, lost: bool) -> float:
        """Bring the node's taints to its state; returns the seconds after which to look again at the latest."""
        wait = float(self.context.cluster.node_grace_period)
        evict = False
        trouble = taints.problem(node)
        if not trouble:
            self._given_up.discard(node.name)
        elif not self._disrupted:
            # Unreachable by an earlier judgement, and not silent for long enough by our own: leave it at that.
            settled = trouble == taints.NOT_READY or lost
            evict, wait = self._may_evict(node, wait) if settled else (_evicts(node), wait)
        new = taints.merged(node, taints.wanted(node, evict=evict), self.clock.now())
        if new is not None:
            meta = {"uid": node.uid, "resourceVersion": node.metadata.resource_version}
            patch: dict[str, Any] = {"spec": {"taints": [taints.document(t) for t in new] or None}, "metadata": meta}
            await self.client.patch(resources.NODES, node.name, patch)
        return wait

    def _may_evict(self, node: Node, otherwise: float) -> tuple[bool, float]:
        if _evicts(node):
            self._given_up.add(node.name)
        if node.name in self._given_up:
            return True, otherwise
        everyone = self._nodes.all()
        rate = eviction_rate(len(everyone), sum(bool(taints.problem(n)) for n in everyone))
        wait = self._bucket.take(rate, self.clock.monotonic())
        if wait > 0:
            return False, wait
        self._given_up.add(node.name)
        return True, otherwise


def _evicts(node: Node) -> bool:
    """Whether it has the taint already that its problem calls for."""
    return any(t.effect == taints.NO_EXECUTE and t.key == taints.problem(node) for t in node.spec.taints)
