"""The store in memory: revisions, transactions, watches with history, leases on the loop's clock. For tests."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence

from sortedcontainers import SortedDict

from kybern.client.store import (
    Change,
    Compacted,
    Compare,
    Delete,
    Get,
    KeyValue,
    Operation,
    Put,
    RangeResult,
    StoreRefused,
    StoreUnavailable,
    Target,
    TxnResult,
    WatchBatch,
)


class MemoryStore:
    """Implements `StoreClient`. Several clients may share one object, like masters share a store."""

    def __init__(self) -> None:
        self._revision = 1
        self._compacted = 0
        self._keys: SortedDict[bytes, KeyValue] = SortedDict()
        self._history: list[Change] = []
        self._wakers: set[asyncio.Event] = set()
        self._lease_ids = itertools.count(1)
        self._leases: dict[int, tuple[int, asyncio.TimerHandle, set[bytes]]] = {}
        self._down = False

    # --- for tests

    def set_down(self, down: bool) -> None:
        """Answer nothing (StoreUnavailable), as a store without a quorum does; open watches end."""
        self._down = down
        self._wake()

    def compact(self) -> None:
        """Forget the history up to now."""
        self._compacted = self._revision
        self._history = [c for c in self._history if c.value.mod_revision >= self._compacted]

    # --- StoreClient

    async def revision(self) -> int:
        """As `StoreClient.revision`."""
        await self._enter()
        return self._revision

    async def range(self, start: bytes, end: bytes | None = None, *, limit: int = 0, revision: int = 0) -> RangeResult:
        """As `StoreClient.range`."""
        await self._enter()
        if revision and revision <= self._compacted - 1:
            raise Compacted(self._compacted)
        view = self._keys if revision in (0, self._revision) else self._at(revision)
        keys = [start] if end is None else list(view.irange(start, None if end == b"\0" else end, (True, False)))
        items = [view[k] for k in keys if k in view]
        cut = items[:limit] if limit else items
        return RangeResult(cut, self._revision, more=len(cut) < len(items), count=len(items))

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> TxnResult:
        """As `StoreClient.txn`."""
        await self._enter()
        succeeded = all(self._holds(c) for c in compares)
        for operation in then if succeeded else otherwise:
            if isinstance(operation, Put) and operation.lease and operation.lease not in self._leases:
                raise StoreRefused("requested lease not found")
        revision = self._revision + 1
        changes: list[Change] = []
        reads: list[KeyValue | None] = []
        for operation in then if succeeded else otherwise:
            match operation:
                case Get(key):
                    reads.append(self._keys.get(key))
                case Put(key, value, lease):
                    changes.append(self._put(key, value, lease, revision))
                case Delete(key):
                    changes += self._delete(key, revision)
        self._commit(changes, revision)
        return TxnResult(succeeded, self._revision, reads)

    async def watch(self, start: bytes, end: bytes, *, since: int) -> AsyncIterator[WatchBatch]:
        """As `StoreClient.watch`."""
        await self._enter()
        if since < self._compacted - 1:
            raise Compacted(self._compacted)
        waker = asyncio.Event()
        self._wakers.add(waker)
        try:
            sent = since
            while True:
                if self._down:
                    raise StoreUnavailable("the store is down")
                if sent < self._compacted - 1:
                    raise Compacted(self._compacted)
                changes = [
                    c
                    for c in self._history
                    if c.value.mod_revision > sent and c.value.key >= start and (end == b"\0" or c.value.key < end)
                ]
                sent = self._revision
                yield WatchBatch(changes, sent)
                await waker.wait()
                waker.clear()
        finally:
            self._wakers.discard(waker)

    async def request_progress(self) -> None:
        """As `StoreClient.request_progress`."""
        await self._enter()
        self._wake()

    async def lease_grant(self, ttl: int) -> int:
        """As `StoreClient.lease_grant`."""
        await self._enter()
        lease = next(self._lease_ids)
        self._leases[lease] = (ttl, self._timer(lease, ttl), set())
        return lease

    async def lease_keep_alive(self, lease: int) -> bool:
        """As `StoreClient.lease_keep_alive`."""
        await self._enter()
        if lease not in self._leases:
            return False
        ttl, timer, keys = self._leases[lease]
        timer.cancel()
        self._leases[lease] = (ttl, self._timer(lease, ttl), keys)
        return True

    async def lease_revoke(self, lease: int) -> None:
        """As `StoreClient.lease_revoke`."""
        await self._enter()
        self._expire(lease)

    async def close(self) -> None:
        """Cancel the leases' timers."""
        for _, timer, _ in self._leases.values():
            timer.cancel()

    # --- within

    async def _enter(self) -> None:
        await asyncio.sleep(0)
        if self._down:
            raise StoreUnavailable("the store is down")

    def _holds(self, compare: Compare) -> bool:
        found = self._keys.get(compare.key)
        match compare.target:
            case Target.VALUE:
                return found is not None and found.value == compare.expected
            case Target.VERSION:
                return (found.version if found else 0) == compare.expected
            case Target.CREATE_REVISION:
                return (found.create_revision if found else 0) == compare.expected
            case Target.MOD_REVISION:
                return (found.mod_revision if found else 0) == compare.expected

    def _put(self, key: bytes, value: bytes, lease: int, revision: int) -> Change:
        old = self._keys.get(key)
        self._detach(old)
        new = KeyValue(
            key, value, old.create_revision if old else revision, revision, (old.version if old else 0) + 1, lease
        )
        self._keys[key] = new
        if lease:
            self._leases[lease][2].add(key)
        return Change(new, old)

    def _delete(self, key: bytes, revision: int) -> list[Change]:
        old = self._keys.pop(key, None)
        self._detach(old)
        return [Change(KeyValue(key, b"", 0, revision, 0), old)] if old else []

    def _detach(self, old: KeyValue | None) -> None:
        if old is not None and old.lease in self._leases:
            self._leases[old.lease][2].discard(old.key)

    def _commit(self, changes: list[Change], revision: int) -> None:
        if changes:
            self._revision = revision
            self._history += changes
            self._wake()

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()

    def _at(self, revision: int) -> SortedDict[bytes, KeyValue]:
        view = SortedDict(self._keys)
        for change in reversed(self._history):
            if change.value.mod_revision <= revision:
                break
            if change.previous is None:
                view.pop(change.value.key, None)
            else:
                view[change.value.key] = change.previous
        return view

    def _timer(self, lease: int, ttl: int) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(ttl, self._expire, lease)

    def _expire(self, lease: int) -> None:
        if lease not in self._leases:
            return
        _, timer, keys = self._leases.pop(lease)
        timer.cancel()
        revision = self._revision + 1
        self._commit([c for key in sorted(keys) for c in self._delete(key, revision)], revision)
