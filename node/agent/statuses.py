"""Writes the pods' status and, when a pod has ended, deletes its object.

Only the newest status of a pod is ever sent; what could not be sent is tried again. Every write names the pod's uid, so
that a namesake is never meant.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.api.types import Pod
from kybern.api.types.base import decode
from kybern.client.interface import Client, WriteOptions
from kybern.client.queue import WorkQueue
from node.agent.status import OWN

log = logging.getLogger(__name__)

_WORKERS = 4
_OPTIONS = WriteOptions(field_manager="kybern-node")


@dataclass
class _Entry:
    pod: Pod
    status: dict[str, Any] | None
    written: dict[str, Any] | None = None
    # The revision that the write made; whoever changed the status later contradicts us.
    written_at: int = 0
    delete: bool = False


class StatusWriter:
    """`set` and `finish` return at once; `run` sends."""

    def __init__(self, client: Client, on_gone: Callable[[str], None] | None = None) -> None:
        self._client = client
        self._entries: dict[str, _Entry] = {}
        self._queue: WorkQueue[str] = WorkQueue(base=0.2, cap=10.0)
        self._on_gone = on_gone

    def set(self, pod: Pod, status: dict[str, Any]) -> None:
        """The pod's status is this now. `pod` is the object as the API has it."""
        entry = self._entries.setdefault(pod.uid, _Entry(pod, status))
        entry.pod, entry.status = pod, status
        if _must_write(entry):
            self._queue.add(pod.uid)

    def finish(self, pod: Pod) -> None:
        """Nothing of the pod is left on the node: send the last status, then delete the object."""
        entry = self._entries.setdefault(pod.uid, _Entry(pod, None))
        entry.pod, entry.delete = pod, True
        self._queue.add(pod.uid)

    def forget(self, uid: str) -> None:
        """The object is gone."""
        self._entries.pop(uid, None)
        self._queue.forget(uid)

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(_WORKERS):
                    tasks.create_task(self._work(), name=f"pod-status-{number}")
        finally:
            self._queue.close()

    async def _work(self) -> None:
        while True:
            uid = await self._queue.get()
            try:
                await self._send(uid)
            except StatusError as error:
                if error.reason == Reason.NOT_FOUND:
                    self._gone(uid)
                else:
                    wait = self._queue.retry(uid)
                    log.info("status of pod %s: %s; trying again in %.1f s", uid, error, wait)
            except Exception:
                wait = self._queue.retry(uid)
                log.exception("status of pod %s could not be written; trying again in %.1f s", uid, wait)
            else:
                self._queue.forget(uid)
            finally:
                self._queue.done(uid)

    async def _send(self, uid: str) -> None:
        entry = self._entries.get(uid)
        if entry is None:
            return
        if entry.status is not None and _must_write(entry):
            await self._patch(entry, entry.status)
        if entry.delete:
            await self._delete(entry)

    async def _patch(self, entry: _Entry, status: dict[str, Any]) -> None:
        pod = entry.pod
        metadata = {"uid": pod.uid}
        foreign = [c for c in pod.status.conditions if c.type not in OWN]
        if foreign or pod.spec.readiness_gates:
            # The list holds conditions of others: it must not be written over a newer one.
            metadata["resourceVersion"] = pod.metadata.resource_version
        body = {**_cleared(entry.written), **status}
        patch = {"metadata": metadata, "status": body}
        answer = await self._client.patch(
            resources.PODS, pod.name, patch, pod.namespace, subresource="status", options=_OPTIONS
        )
        entry.written = status
        fresh = decode(answer, Pod)
        entry.written_at = fresh.revision
        if fresh.uid == pod.uid and fresh.revision > entry.pod.revision:
            entry.pod = fresh

    async def _delete(self, entry: _Entry) -> None:
        pod = entry.pod
        try:
            await self._client.delete(
                resources.PODS, pod.name, pod.namespace, uid=pod.uid, grace_seconds=0, options=_OPTIONS
            )
        except StatusError as error:
            # A namesake has taken the place: the pod itself is gone.
            if error.reason != Reason.CONFLICT:
                raise
        self._gone(pod.uid)

    def _gone(self, uid: str) -> None:
        self._entries.pop(uid, None)
        if self._on_gone is not None:
            self._on_gone(uid)


def _must_write(entry: _Entry) -> bool:
    if entry.status is None:
        return False
    if entry.status != entry.written:
        return True
    if entry.pod.revision <= entry.written_at:
        return False
    # While this node was cut off, others may have said in its place that the pod is not ready.
    ours = {c["type"]: c["status"] for c in entry.status["conditions"]}
    theirs = {c.type: c.status for c in entry.pod.status.conditions}
    return any(theirs.get(kind) != value for kind, value in ours.items())


def _cleared(written: dict[str, Any] | None) -> dict[str, None]:
    """A merge patch removes a field only when told so."""
    optional = ("reason", "message", "podIP", "podIPs")
    return dict.fromkeys(optional) if written is None else {name: None for name in optional if name in written}
