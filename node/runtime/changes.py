"""Tells subscribers which pods something happened to. Bounded: what nobody has read yet is one entry per pod."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from node.runtime.interface import PodIdentity, RuntimeEvent, RuntimeFailure


class Changes:
    """Hands events to any number of subscribers, and ends them all when the runtime is lost."""

    def __init__(self) -> None:
        self._subscribers: set[_Subscriber] = set()

    def publish(self, pod: PodIdentity) -> None:
        """Something happened to that pod."""
        for subscriber in self._subscribers:
            subscriber.put(pod)

    def end(self, failure: RuntimeFailure) -> None:
        """Every present subscription ends with this, once it has handed out what came before."""
        for subscriber in self._subscribers:
            subscriber.end(failure)

    def subscribe(self) -> AsyncIterator[RuntimeEvent]:
        """Events from this moment on, even when they are read later."""
        subscriber = _Subscriber()
        self._subscribers.add(subscriber)
        return self._read(subscriber)

    async def _read(self, subscriber: _Subscriber) -> AsyncIterator[RuntimeEvent]:
        try:
            while True:
                yield RuntimeEvent(await subscriber.get())
        finally:
            self._subscribers.discard(subscriber)


class _Subscriber:
    def __init__(self) -> None:
        self._pods: dict[PodIdentity, None] = {}
        self._failure: RuntimeFailure | None = None
        self._changed = asyncio.Event()

    def put(self, pod: PodIdentity) -> None:
        self._pods[pod] = None
        self._changed.set()

    def end(self, failure: RuntimeFailure) -> None:
        self._failure = failure
        self._changed.set()

    async def get(self) -> PodIdentity:
        while not self._pods:
            if self._failure is not None:
                raise self._failure
            self._changed.clear()
            await self._changed.wait()
        pod = next(iter(self._pods))
        del self._pods[pod]
        return pod
