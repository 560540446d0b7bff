"""The workers of all pods of the node: those that the API binds to it, and those that are left over."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from kybern.api.types import ObjectMeta, Pod
from kybern.backoff import Backoff
from kybern.client.informer import Informer
from kybern.key import Key
from node.agent.context import NodeContext
from node.agent.views import replaced
from node.agent.worker import PodWorker
from node.runtime.interface import PodIdentity
from node.volumes.interface import VolumeError

log = logging.getLogger(__name__)

# How often is looked for what belongs to no pod.
SWEEP_INTERVAL = 30.0


@dataclass
class _Member:
    worker: PodWorker
    key: Key
    gone: bool
    task: asyncio.Task[None] | None = None


class Workers:
    """Starts and ends workers as the informer and the runtime say."""

    def __init__(self, node: NodeContext, pods: Informer[Pod]) -> None:
        self._node = node
        self._pods = pods
        self._members: dict[str, _Member] = {}
        self._group: asyncio.TaskGroup | None = None
        self._sweep_now = asyncio.Event()

    def __len__(self) -> int:
        return len(self._members)

    async def run(self) -> None:
        """Work until cancelled; what runs goes on running."""
        self._node.observer.on_change(self._runtime_changed)
        async with asyncio.TaskGroup() as group:
            self._group = group
            # Before the pods' workers: what a namesake left must end before its successor starts.
            await self._pods.synced()
            await self._node.observer.fresh()
            self._adopt_orphans()
            self._pods.on_change(self._pod_changed)
            await self._sweep_for_ever()

    # --- changes

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and (new is None or new.uid != old.uid):
            self._object_gone(old.uid)
        if new is not None:
            member = self._members.get(new.uid)
            if member is None:
                self._add(new, gone=False)
            else:
                member.worker.update(new)

    def _object_gone(self, uid: str) -> None:
        member = self._members.get(uid)
        if member is None:
            return
        member.gone = True
        member.worker.object_gone()
        if member.worker.ended.is_set():
            self._remove(uid)

    def _runtime_changed(self, uid: str) -> None:
        member = self._members.get(uid)
        if member is not None and not member.worker.ended.is_set():
            member.worker.wake()
        else:
            self._sweep_now.set()

    def _add(self, pod: Pod, *, gone: bool) -> None:
        assert self._group is not None  # noqa: S101 - only called while running
        member = _Member(PodWorker(self._node, pod, gone=gone), pod.key, gone)
        self._members[pod.uid] = member
        member.task = self._group.create_task(self._work(pod.uid, member), name=f"pod-{pod.key}")

    def _remove(self, uid: str) -> None:
        self._members.pop(uid, None)
        self._node.statuses.forget(uid)

    async def _work(self, uid: str, member: _Member) -> None:
        backoff = Backoff(base=1.0, cap=60.0)
        for other in [m for u, m in self._members.items() if m.key == member.key and u != uid]:
            # A namesake that is on its way out: two pods of one name never run at the same time.
            if other.gone:
                await other.worker.ended.wait()
        while True:
            try:
                await member.worker.run()
                break
            except Exception:
                wait = backoff.next()
                log.exception("the worker of pod %s failed; starting it again in %.1f s", member.key, wait)
                await asyncio.sleep(wait)
                pod = member.worker.pod
                member.worker = PodWorker(self._node, pod, gone=member.gone)
        if member.gone:
            self._remove(uid)

    # --- what is left over

    async def _sweep_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(SWEEP_INTERVAL):
                    await self._sweep_now.wait()
            except TimeoutError:
                pass
            self._sweep_now.clear()
            self._adopt_orphans()
            await self._remove_left_directories()

    def _adopt_orphans(self) -> None:
        """Give a worker to everything in the runtime that has none; only called once the API's pods are known."""
        known = {pod.uid: pod for pod in self._pods.all()}
        for uid, seen in self._node.observer.pods().items():
            member = self._members.get(uid)
            if member is None and uid not in known:
                identity = seen.sandboxes[0].pod if seen.sandboxes else seen.containers[0].pod
                log.info("pod %s (%s) does not exist any more; what is left of it is removed", identity.name, uid)
                self._add(_stand_in(identity), gone=True)
            elif member is not None and member.worker.ended.is_set():
                # Something was made late by a call that had been given up.
                self._add(member.worker.pod, gone=member.gone)

    async def _remove_left_directories(self) -> None:
        try:
            left = await self._node.volumes.known() - self._members.keys() - {pod.uid for pod in self._pods.all()}
            for uid in left - self._node.observer.pods().keys():
                if uid not in self._members:
                    await self._node.volumes.tear_down(uid)
        except (OSError, VolumeError) as error:
            log.warning("what pods left on the disk cannot be removed: %s", error)


def _stand_in(identity: PodIdentity) -> Pod:
    """A pod of which nothing but its labels in the runtime is known."""
    meta = ObjectMeta(name=identity.name, namespace=identity.namespace, uid=identity.uid)
    return replaced(Pod(), api_version="v1", kind="Pod", metadata=meta)
