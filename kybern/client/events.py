"""Records Events about objects: what `kubectl describe` shows.

Recording never blocks and never fails: events are sent by a task of their own, like ones are counted up in one object,
and when the API cannot take them the oldest are dropped.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.api.types.base import Object
from kybern.client.interface import Client
from kybern.clock import Clock, rfc3339

log = logging.getLogger(__name__)

NORMAL = "Normal"
WARNING = "Warning"

_QUEUED = 1000
_REMEMBERED = 4096


@dataclass
class _Seen:
    name: str
    namespace: str
    count: int
    first: datetime


class EventRecorder:
    """Queues events; `run` sends them."""

    def __init__(self, client: Client, component: str, clock: Clock, *, host: str = "") -> None:
        self._client = client
        self._component = component
        self._host = host
        self._clock = clock
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_QUEUED)
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def record(self, about: Object, reason: str, message: str, *, type: str = NORMAL, field_path: str = "") -> None:  # noqa: A002
        """Queue an event. `reason` is one CamelCase word, `message` a sentence, `type` Normal or Warning."""
        reference = {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
            "resourceVersion": about.metadata.resource_version,
            "fieldPath": field_path,
        }
        event = {
            "involvedObject": {k: v for k, v in reference.items() if v},
            "reason": reason,
            "message": message[:1024],
            "type": type,
            "at": self._clock.now(),
        }
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(event)

    async def run(self) -> None:
        """Send events until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._send(event)
            except StatusError as error:
                log.debug("event %s dropped: %s", event["reason"], error)
                if error.transient:
                    await asyncio.sleep(1.0)

    async def _send(self, event: dict[str, Any]) -> None:
        at: datetime = event.pop("at")
        identity = self._identity(event)
        seen = self._seen.get(identity)
        if seen is not None:
            try:
                seen.count += 1
                patch = {"count": seen.count, "lastTimestamp": rfc3339(at)}
                await self._client.patch(resources.EVENTS, seen.name, patch, seen.namespace)
                return
            except StatusError as error:
                if error.reason != Reason.NOT_FOUND:
                    raise
                del self._seen[identity]
        await self._create(event, identity, at)

    async def _create(self, event: dict[str, Any], identity: str, at: datetime) -> None:
        about = event["involvedObject"]
        # Events about cluster-scoped objects live in `default`, where kubectl looks for them.
        namespace = about.get("namespace") or "default"
        name = f"{about['name']}.{int(at.timestamp() * 1e6):x}{identity[:6]}"
        document = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "source": {"component": self._component, **({"host": self._host} if self._host else {})},
            "reportingComponent": self._component,
            "reportingInstance": self._host,
            "firstTimestamp": rfc3339(at),
            "lastTimestamp": rfc3339(at),
            "count": 1,
            **event,
        }
        await self._client.create(resources.EVENTS, document, namespace)
        self._seen[identity] = _Seen(name, namespace, 1, at)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    def _identity(self, event: dict[str, Any]) -> str:
        about = event["involvedObject"]
        parts = (about.get("uid", ""), about.get("fieldPath", ""), event["type"], event["reason"], event["message"])
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()
