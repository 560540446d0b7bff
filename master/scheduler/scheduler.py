"""Binds pods to nodes. Reads Pods, Nodes and Namespaces; writes pods' bindings and their PodScheduled condition.

One pod is decided at a time against the arrays of the snapshot, where it is placed at once (assumed); bindings go out
many at a time behind that, so a decision never waits for the API.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.api.selectors import Selector
from kybern.api.types import Condition, Node, Pod
from kybern.client import kinds
from kybern.client.acting import LeadershipLost
from kybern.client.controller import ControllerContext
from kybern.client.events import WARNING, EventRecorder
from kybern.clock import rfc3339
from master.scheduler import pods
from master.scheduler.pods import PodInfo
from master.scheduler.profile import Profile, Refusal
from master.scheduler.queue import SchedulingQueue
from master.scheduler.snapshot import Snapshot

log = logging.getLogger(__name__)

NAME = "default-scheduler"
# Bindings that are under way at the same time.
BINDING = 128
# Decisions without a turn for the others on the loop.
TURN = 16


class Scheduler:
    """One per leader. `run` decides until cancelled."""

    def __init__(self, context: ControllerContext, profile: Profile | None = None) -> None:
        self._clock = context.clock
        self._client = context.acting(NAME)
        self._events = EventRecorder(self._client, NAME, context.clock)
        self._profile = profile or Profile(context.rng)
        self.snapshot = Snapshot()
        self.queue = SchedulingQueue(context.clock)
        # Pods that were decided and are not yet seen with their node, by uid.
        self._assumed: set[str] = set()
        self._gate = asyncio.Semaphore(BINDING)
        self._namespaces = context.informers.of(kinds.NAMESPACES)
        self._nodes = context.informers.of(kinds.NODES)
        self._pods = context.informers.of(kinds.PODS)
        self._endings: list[Callable[[], None]] = [
            self._nodes.on_change(self._on_node),
            self._pods.on_change(self._on_pod),
        ]

    def close(self) -> None:
        """Stop listening to changes."""
        for end in self._endings:
            end()
        self._endings.clear()

    async def run(self) -> None:
        """Decide and bind until cancelled."""
        for informer in (self._namespaces, self._nodes, self._pods):
            await informer.synced()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._events.run(), name=f"{NAME}-events")
            decided = 0
            while True:
                # No more decisions than can be carried out: others may have made better use of the room meanwhile.
                await self._gate.acquire()
                info = await self.queue.pop()
                tasks.create_task(self._carry_out(self.decide(info)), name=f"{NAME}-bind")
                decided += 1
                if decided % TURN == 0:
                    await asyncio.sleep(0)

    # --- deciding

    def decide(self, info: PodInfo) -> tuple[PodInfo, str | Refusal]:
        """Choose a node and place the pod there, or say why there is none."""
        choice = self._profile.decide(info, self.snapshot)
        if isinstance(choice, Refusal):
            self.queue.refuse(info.uid)
        else:
            self.snapshot.place(info, choice)
            self._assumed.add(info.uid)
        return info, choice

    async def _carry_out(self, decision: tuple[PodInfo, str | Refusal]) -> None:
        info, choice = decision
        try:
            if isinstance(choice, Refusal):
                await self._say_unschedulable(info, str(choice))
            else:
                await self._bind(info, choice)
        finally:
            self._gate.release()

    async def _bind(self, info: PodInfo, node: str) -> None:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": info.key.name, "namespace": info.namespace, "uid": info.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self._client.create(
                resources.PODS, binding, info.namespace, name=info.key.name, subresource="binding"
            )
        except LeadershipLost:
            self._forget(info.uid)
        except StatusError as error:
            log.info("%s is not bound to %s: %s", info.key, node, error)
            self._forget(info.uid)
            if error.reason == Reason.NOT_FOUND and self._pods.get(info.key) is None:
                self.queue.remove(info.uid)
            else:
                # If it is bound all the same, the cache will show it, and it leaves the queue.
                self.queue.retry(info.uid)
        else:
            self.queue.remove(info.uid)
            self._events.record(info.pod, "Scheduled", f"Successfully assigned {info.key} to {node}")

    def _forget(self, uid: str) -> None:
        """A decision was not carried out; the pod does not take room there, unless the cache shows it by now."""
        if uid in self._assumed:
            self._assumed.discard(uid)
            self.snapshot.remove(uid)
            self.queue.changed()

    async def _say_unschedulable(self, info: PodInfo, message: str) -> None:
        self._events.record(info.pod, "FailedScheduling", message, type=WARNING)
        pod = self._pods.get(info.key)
        if pod is None or pod.uid != info.uid or pod.spec.node_name:
            return
        old = pod.condition("PodScheduled")
        if old is not None and (old.status, old.reason, old.message) == ("False", "Unschedulable", message):
            return
        patch = {
            "metadata": {"uid": pod.uid, "resourceVersion": pod.metadata.resource_version},
            "status": {"conditions": self._conditions(pod, message)},
        }
        try:
            await self._client.patch(resources.PODS, pod.name, patch, pod.namespace, subresource="status")
        except StatusError as error:
            # The next attempt says it again.
            log.debug("%s: the reason could not be written: %s", pod.key, error)

    def _conditions(self, pod: Pod, message: str) -> list[dict[str, Any]]:
        old = pod.condition("PodScheduled")
        since = old.last_transition_time if old is not None and old.status == "False" else None
        new = Condition("PodScheduled", "False", "Unschedulable", message, last_transition_time=since)
        result = []
        for condition in (*(c for c in pod.status.conditions if c.type != new.type), new):
            moment = condition.last_transition_time or self._clock.now()
            written: dict[str, Any] = msgspec.to_builtins(condition)
            result.append({**written, "status": condition.status, "lastTransitionTime": rfc3339(moment)})
        return result

    # --- following the cluster

    def _on_node(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            if old is not None:
                self.snapshot.remove_node(old.name)
            return
        try:
            if self.snapshot.set_node(new):
                self.queue.changed()
        except ValueError as error:
            log.warning("%s takes no pods, its status cannot be read: %s", new.name, error)
            self.snapshot.remove_node(new.name)

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and (new is None or new.uid != old.uid):
            self._gone(old)
        if new is None:
            return
        if new.finished:
            self._gone(new)
        elif new.spec.node_name:
            self._placed(old, new)
        elif self._ours(new):
            self._unplaced(old, new)
        else:
            self.queue.remove(new.uid)

    def _gone(self, pod: Pod) -> None:
        self.queue.remove(pod.uid)
        self._assumed.discard(pod.uid)
        if self.snapshot.remove(pod.uid):
            self.queue.changed()

    def _placed(self, old: Pod | None, new: Pod) -> None:
        self.queue.remove(new.uid)
        self._assumed.discard(new.uid)
        known = self.snapshot.node_of(new.uid) == new.spec.node_name
        if known and old is not None and pods.facts(old) == pods.facts(new):
            return
        if (info := self._compile(new)) is not None:
            self.snapshot.place(info, new.spec.node_name)

    def _unplaced(self, old: Pod | None, new: Pod) -> None:
        if new.uid in self._assumed:
            return
        if old is not None and new.uid in self.queue and pods.facts(old) == pods.facts(new):
            return
        if (info := self._compile(new)) is not None:
            self.queue.add(info)

    def _ours(self, pod: Pod) -> bool:
        return pod.spec.scheduler_name == NAME and not pod.spec.scheduling_gates and not pod.deleting

    def _compile(self, pod: Pod) -> PodInfo | None:
        try:
            return pods.compile_pod(pod, self._namespaces_of)
        except ValueError as error:
            # Validation lets no such pod in; a pod that is there all the same must not stop the others.
            log.warning("%s cannot be scheduled: %s", pod.key, error)
            return None

    def _namespaces_of(self, selector: Selector) -> frozenset[str]:
        return frozenset(n.name for n in self._namespaces.all() if selector.matches(n.metadata.labels))
