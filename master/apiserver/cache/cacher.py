"""Feeds the resource caches from one watch on the store, and knows how fresh they are."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Iterable

from kybern.api import errors
from kybern.api.errors import Cause, StatusError
from kybern.api.resources import Registry, Resource
from kybern.backoff import Backoff
from kybern.client.store import Change, Compacted, StoreUnavailable, prefix_end
from master.apiserver import keys
from master.apiserver.cache.resource import ResourceCache
from master.apiserver.entry import Entry, from_store
from master.apiserver.storage import Storage

log = logging.getLogger(__name__)

# How often watchers hear how far the cache is, in seconds.
BOOKMARK_INTERVAL = 5.0
# Longest wait for a revision that a read asks for, and how often the store is asked for its progress meanwhile.
FRESH_TIMEOUT = 5.0
PROGRESS_INTERVAL = 0.1
# Keys per question when the cache is filled.
_PAGE = 2000


class Cacher:
    """Run it in a task; reads wait until it has been filled once."""

    def __init__(self, storage: Storage, registry: Registry) -> None:
        self._storage = storage
        self._registry = registry
        self._caches: dict[bytes, ResourceCache] = {}
        self._synced = asyncio.Event()
        self.revision = 0
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._nudge = asyncio.Event()
        for resource in registry:
            self.add(resource)

    def add(self, resource: Resource) -> None:
        """Keep a resource's objects too; those that are stored already come with the next fill."""
        cache = ResourceCache(resource)
        self._caches.setdefault(cache.prefix, cache)

    def of(self, resource: Resource) -> ResourceCache:
        """The cache of a resource.

        Raises:
            StatusError: 503 when the cache has not been filled yet.
        """
        if not self._synced.is_set():
            raise errors.unavailable("the watch cache is being filled")
        return self._caches[keys.resource_prefix(resource)]

    @property
    def ready(self) -> bool:
        """Whether the cache has been filled."""
        return self._synced.is_set()

    async def synced(self) -> None:
        """Wait until the cache has been filled."""
        await self._synced.wait()

    # --- freshness

    async def fresh(self) -> None:
        """Wait until the cache holds everything that was stored before this call.

        Raises:
            StatusError: 503 when the store does not answer, or its watch does not follow.
        """
        revision = await self._storage.revision()
        if not await self._wait_for(revision):
            raise errors.unavailable(f"the watch cache is at revision {self.revision}, behind the store's {revision}")

    async def reached(self, revision: int) -> None:
        """Wait until the cache has seen every change up to a revision.

        Raises:
            StatusError: 504 when that takes too long; the client may have made the revision up.
        """
        if not await self._wait_for(revision):
            raise _too_large(revision, self.revision)

    async def _wait_for(self, revision: int) -> bool:
        if self.revision >= revision:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (revision, next(self._numbers), future))
        self._nudge.set()
        try:
            async with asyncio.timeout(FRESH_TIMEOUT):
                await future
        except TimeoutError:
            return False
        return True

    def _advance(self, revision: int) -> None:
        self.revision = max(self.revision, revision)
        while self._waiters and self._waiters[0][0] <= self.revision:
            future = heapq.heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)

    # --- running

    async def run(self) -> None:
        """Fill and follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="watch-cache")
            tasks.create_task(self._bookmarks(), name="watch-bookmarks")
            tasks.create_task(self._ask_for_progress(), name="watch-progress")

    async def _follow(self) -> None:
        backoff = Backoff(base=0.1, cap=2.0)
        filled = False
        while True:
            try:
                if not filled:
                    await self._fill()
                    filled = True
                await self._watch(backoff)
            except Compacted as error:
                log.warning("the watch cache has missed changes (%s), filling it anew", error)
                filled = False
            except (StoreUnavailable, StatusError) as error:
                wait = backoff.next()
                log.warning("the watch cache has lost the store (%s), trying again in %.1f s", error, wait)
                await asyncio.sleep(wait)

    async def _fill(self) -> None:
        found: dict[bytes, list[Entry]] = {prefix: [] for prefix in self._caches}
        start, revision = keys.REGISTRY, 0
        while True:
            page = await self._storage.store.range(start, prefix_end(keys.REGISTRY), limit=_PAGE, revision=revision)
            revision = revision or page.revision
            for pair in page.items:
                cache = self._cache_of(pair.key)
                entry = _entry(cache, pair.key, Change(pair, None)) if cache else None
                if cache is not None and entry is not None:
                    found[cache.prefix].append(entry)
            if not page.more:
                break
            start = page.items[-1].key + b"\0"
        for prefix, entries in found.items():
            self._caches[prefix].reset(entries, revision)
        # A store that was restored from a copy may be behind what we knew.
        self.revision = 0
        self._advance(revision)
        self._synced.set()
        log.info("watch cache filled with %d objects at revision %d", sum(map(len, found.values())), revision)

    async def _watch(self, backoff: Backoff) -> None:
        since = self.revision
        async for batch in self._storage.store.watch(keys.REGISTRY, prefix_end(keys.REGISTRY), since=since):
            backoff.reset()
            self._apply(batch.changes)
            self._advance(batch.revision)

    def _apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if (cache := self._cache_of(change.value.key)) is None:
                continue
            entry = None if change.deleted else _entry(cache, change.value.key, change)
            cache.apply(change.value.key, entry, change.value.mod_revision)

    def _cache_of(self, key: bytes) -> ResourceCache | None:
        parts = key.split(b"/", 4)
        if len(parts) < 4:
            return None
        cache = self._caches.get(b"/registry/%b/" % parts[2])
        return cache or self._caches.get(b"/registry/%b/%b/" % (parts[2], parts[3]))

    async def _bookmarks(self) -> None:
        while True:
            await asyncio.sleep(BOOKMARK_INTERVAL)
            for cache in self._caches.values():
                for watcher in cache.watchers():
                    watcher.bookmark(self.revision)

    async def _ask_for_progress(self) -> None:
        """While reads wait for a revision: changes outside of the registry move it too, and no event tells of them."""
        while True:
            await self._nudge.wait()
            self._waiters = [w for w in self._waiters if not w[2].done()]
            heapq.heapify(self._waiters)
            if not self._waiters:
                self._nudge.clear()
                continue
            try:
                await self._storage.store.request_progress()
            except StoreUnavailable as error:
                log.debug("no progress from the store: %s", error)
            await asyncio.sleep(PROGRESS_INTERVAL)

    def stop(self) -> None:
        """End every watch: this server is going away."""
        for cache in self._caches.values():
            for watcher in cache.watchers():
                watcher.end(errors.unavailable("this API server is shutting down"))


def _entry(cache: ResourceCache, key: bytes, change: Change) -> Entry | None:
    names = keys.split_object_key(key, cache.prefix, namespaced=cache.resource.namespaced)
    try:
        return from_store(change.value, *names) if names is not None else None
    except ValueError:
        log.warning("the value of %r was not written by an API server, ignoring it", key)
        return None


def _too_large(wanted: int, known: int) -> StatusError:
    error = errors.timeout(f"Too large resource version: {wanted}, current: {known}")
    error.causes = (Cause("", "Too large resource version", "ResourceVersionTooLarge"),)
    error.retry_after = 1
    return error
