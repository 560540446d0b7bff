"""A cache of the objects of one resource, kept up to date by a list and a watch.

Level-triggered: a handler learns that an object is different now, not what happened in between. After an error the
informer watches again from where it was; when that revision is no longer kept it lists again and reports the
differences.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any, Generic, TypeVar

import msgspec

from kybern.api.errors import Reason, StatusError
from kybern.api.types.base import Object
from kybern.backoff import Backoff
from kybern.client.interface import Client, EventType, WatchEvent
from kybern.client.kinds import Kind
from kybern.key import Key

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Object)

# Called with the object before and after; one of them is None when it appeared or went.
Handler = Callable[[T | None, T | None], None]


class Informer(Generic[T]):
    """Run it in a task (`run`), wait for `synced`, then read it at will: reads are local and cost nothing."""

    def __init__(
        self,
        client: Client,
        kind: Kind[T],
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        backoff: Backoff | None = None,
    ) -> None:
        self.kind = kind
        self.revision = 0
        self._client = client
        self._selection = {"namespace": namespace, "labels": labels, "fields": fields}
        self._backoff = backoff or Backoff(base=0.2, cap=5.0)
        self._objects: dict[Key, T] = {}
        self._handlers: list[Handler[T]] = []
        self._indexers: dict[str, Callable[[T], Iterable[str]]] = {}
        self._indices: dict[str, dict[str, dict[Key, T]]] = {}
        self._synced = asyncio.Event()
        self._progress = asyncio.Condition()

    # --- reading

    def get(self, key: Key) -> T | None:
        """The object of that key."""
        return self._objects.get(key)

    def all(self) -> Collection[T]:
        """Every object, in no particular order. A live view: do not await while iterating over it."""
        return self._objects.values()

    def indexed(self, index: str, value: str) -> Collection[T]:
        """The objects that the indexer `index` gave `value` for. A live view, as above."""
        return self._indices[index].get(value, {}).values()

    def __len__(self) -> int:
        return len(self._objects)

    async def synced(self) -> None:
        """Wait until the first list has been read and handed to the handlers."""
        await self._synced.wait()

    @property
    def has_synced(self) -> bool:
        """Whether the first list has been read."""
        return self._synced.is_set()

    async def reached(self, revision: int) -> None:
        """Wait until the cache has seen every change up to `revision`."""
        if self.revision >= revision:
            return
        async with self._progress:
            await self._progress.wait_for(lambda: self.revision >= revision)

    # --- setting up

    def on_change(self, handler: Handler[T]) -> Callable[[], None]:
        """Call `handler(old, new)` for every change, in order, on the loop; also for objects that are known already.

        Returns what ends it.
        """
        self._handlers = [*self._handlers, handler]
        for current in list(self._objects.values()):
            handler(None, current)

        def end() -> None:
            # A new list: a handler may end itself while the handlers are being called.
            self._handlers = [h for h in self._handlers if h is not handler]

        return end

    def index(self, name: str, values: Callable[[T], Iterable[str]]) -> None:
        """Keep an index of the objects by the strings that `values` gives for each. Does nothing when it is kept."""
        if name in self._indexers:
            return
        self._indexers[name] = values
        self._indices[name] = {}
        for key, current in self._objects.items():
            self._index_add(name, key, current)

    # --- keeping up

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                if not self.has_synced:
                    await self._list()
                await self._watch()
            except StatusError as error:
                await self._recover(error)
            except msgspec.ValidationError as error:
                # An object that breaks its own schema is a fault of the server; do not spin on it.
                log.warning("cannot read %s: %s", self.kind, error)
                await asyncio.sleep(self._backoff.next())

    async def _recover(self, error: StatusError) -> None:
        if error.reason in (Reason.EXPIRED, Reason.GONE):
            log.info("%s: the watch's revision %d is gone, listing again", self.kind, self.revision)
            with contextlib.suppress(StatusError):
                await self._list()
                return
        wait = self._backoff.next()
        log.info("%s: %s; trying again in %.1f s", self.kind, error, wait)
        await asyncio.sleep(wait)

    async def _list(self) -> None:
        result = await self._client.list(self.kind.resource, **self._selection)
        fresh = {o.key: o for o in map(self.kind.read, result.items)}
        for key in [k for k in self._objects if k not in fresh]:
            self._replace(key, None)
        for key, new in fresh.items():
            old = self._objects.get(key)
            if old is None or old.metadata.resource_version != new.metadata.resource_version:
                self._replace(key, new)
        self._synced.set()
        await self._advance(result.revision)

    async def _watch(self) -> None:
        selection: dict[str, Any] = self._selection
        async for events in self._client.watch(self.kind.resource, **selection, since=self.revision):
            self._backoff.reset()
            for event in events:
                self._apply(event)
            if events:
                await self._advance(events[-1].revision)

    def _apply(self, event: WatchEvent) -> None:
        if event.type is EventType.BOOKMARK:
            return
        current = self.kind.read(event.object)
        self._replace(current.key, None if event.type is EventType.DELETED else current)

    def _replace(self, key: Key, new: T | None) -> None:
        old = self._objects.pop(key, None) if new is None else self._objects.get(key)
        if old is None and new is None:
            return
        if old is not None:
            for name in self._indexers:
                self._index_remove(name, key, old)
        if new is not None:
            self._objects[key] = new
            for name in self._indexers:
                self._index_add(name, key, new)
        for handler in self._handlers:
            handler(old, new)

    async def _advance(self, revision: int) -> None:
        if revision > self.revision:
            self.revision = revision
            async with self._progress:
                self._progress.notify_all()

    def _index_add(self, name: str, key: Key, current: T) -> None:
        for value in self._indexers[name](current):
            self._indices[name].setdefault(value, {})[key] = current

    def _index_remove(self, name: str, key: Key, old: T) -> None:
        index = self._indices[name]
        for value in self._indexers[name](old):
            if (entries := index.get(value)) is not None:
                entries.pop(key, None)
                if not entries:
                    del index[value]


class Informers:
    """Shares one informer per kind among all that read it, and runs them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._informers: dict[Any, Informer[Any]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    def of(self, kind: Kind[T]) -> Informer[T]:
        """The shared informer of a kind; asking for it makes it run, as soon as or because `run` does."""
        if kind not in self._informers:
            self._informers[kind] = Informer(self._client, kind)
            self._start(self._informers[kind])
        return self._informers[kind]

    async def run(self) -> None:
        """Run every informer that was or will be asked for, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                for informer in self._informers.values():
                    self._start(informer)
                # Wait for ever: a task group without a task would end, and could take no later ones.
                await asyncio.get_running_loop().create_future()
            finally:
                self._tasks = None

    def _start(self, informer: Informer[Any]) -> None:
        if self._tasks is not None:
            self._tasks.create_task(informer.run(), name=f"informer-{informer.kind}")

    async def synced(self) -> None:
        """Wait until every informer has read its first list."""
        for informer in list(self._informers.values()):
            await informer.synced()
