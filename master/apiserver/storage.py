"""Reads and writes objects in the store: every write is one compare-and-swap transaction.

A transaction holds everything that must be true or become true together: the object's previous revision, its
namespace, the leader's fence, and the claims on shared values that it makes and releases.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from kybern.api import errors
from kybern.api.resources import Resource
from kybern.client.interface import Fence
from kybern.client.store import (
    Compacted,
    Compare,
    Delete,
    Get,
    KeyValue,
    Operation,
    Put,
    RangeResult,
    StoreClient,
    StoreRefused,
    StoreUnavailable,
    Target,
)
from master.apiserver import keys
from master.apiserver.entry import Entry, from_store
from master.apiserver.keys import Claim


@dataclass(slots=True)
class Change:
    """What one transaction does to one object; `value` None deletes it, `expected` 0 means that it must be absent."""

    key: bytes
    expected: int
    value: bytes | None
    claims: frozenset[Claim] = frozenset()
    releases: frozenset[Claim] = frozenset()
    fence: Fence | None = None
    # Other keys that must still have these revisions.
    guards: Sequence[tuple[bytes, int]] = ()
    # Fences to set, so that writes of earlier holders fail, and to remove.
    fences: Sequence[bytes] = ()
    unfences: Sequence[bytes] = ()
    # The store's lease that the object lives as long as; 0 for ever.
    lease: int = 0


@dataclass(slots=True)
class Outcome:
    """Whether a transaction happened (`revision`), or what stood in its way."""

    done: bool
    revision: int
    current: KeyValue | None = None
    taken: frozenset[Claim] = frozenset()
    fenced: bool = False
    # Some guard's key has changed or is gone.
    guarded: bool = False
    guards: Sequence[KeyValue | None] = field(default_factory=tuple)


class LeaseEndedError(Exception):
    """A write with a lease was refused; as likely as not because the lease has ended."""


@asynccontextmanager
async def store_errors() -> AsyncIterator[None]:
    """Turns the store's absence into 503, and its refusals into 500."""
    try:
        yield
    except StoreUnavailable as error:
        raise errors.unavailable(f"the store does not answer now: {error}") from error
    except StoreRefused as error:
        raise errors.internal(f"the store refuses the request: {error}") from error


class Storage:
    """Objects in the store. Every method raises StatusError 503 when the store cannot answer."""

    def __init__(self, store: StoreClient) -> None:
        self.store = store

    async def revision(self) -> int:
        """The store's revision as of now; callers that wait at the same time share one question."""
        async with store_errors():
            return await self.store.revision()

    async def read(self, resource: Resource, namespace: str, name: str) -> Entry | None:
        """An object as of now."""
        async with store_errors():
            found = await self.store.range(keys.object_key(resource, namespace, name))
        return from_store(found.items[0], namespace, name) if found.items else None

    async def range(self, start: bytes, end: bytes, *, limit: int = 0, revision: int = 0) -> RangeResult:
        """Keys in order; StatusError 410 when the revision is no longer kept."""
        try:
            async with store_errors():
                return await self.store.range(start, end, limit=limit, revision=revision)
        except Compacted as error:
            raise errors.expired(
                f"The provided resource version is too old: {revision} ({error.compact_revision})"
            ) from error

    async def commit(self, change: Change) -> Outcome:
        """Make a change, or find out why it cannot be made.

        Raises:
            LeaseEndedError: when the store refuses a change with a lease; another lease may help.
        """
        compares = [Compare(change.key, Target.MOD_REVISION, change.expected)]
        compares += [Compare(c.key, Target.VERSION, 0) for c in change.claims]
        compares += [Compare(key, Target.MOD_REVISION, revision) for key, revision in change.guards]
        if change.fence is not None:
            compares.append(Compare(keys.fence_key(change.fence), Target.MOD_REVISION, change.fence.revision))
        async with store_errors():
            try:
                result = await self.store.txn(compares, _operations(change), _questions(change))
            except StoreRefused as error:
                if change.lease:
                    raise LeaseEndedError from error
                raise
        if result.succeeded:
            return Outcome(True, result.revision)
        return _refusal(change, result.revision, result.reads)


def _operations(change: Change) -> list[Operation]:
    operations: list[Operation] = []
    if change.value is None:
        operations.append(Delete(change.key))
    else:
        operations.append(Put(change.key, change.value, change.lease))
    operations += [Put(c.key, change.key) for c in change.claims]
    operations += [Delete(c.key) for c in change.releases]
    operations += [Put(key, change.key) for key in change.fences]
    operations += [Delete(key) for key in change.unfences]
    return operations


def _questions(change: Change) -> list[Operation]:
    asked = [change.key, *(key for key, _ in change.guards), *(c.key for c in change.claims)]
    if change.fence is not None:
        asked.append(keys.fence_key(change.fence))
    return [Get(key) for key in asked]


def _refusal(change: Change, revision: int, reads: Sequence[KeyValue | None]) -> Outcome:
    current, guards = reads[0], reads[1 : 1 + len(change.guards)]
    at = 1 + len(change.guards)
    taken = frozenset(c for c, r in zip(change.claims, reads[at : at + len(change.claims)], strict=True) if r)
    fenced = False
    if change.fence is not None:
        last = reads[-1]
        fenced = (last.mod_revision if last else 0) != change.fence.revision
    moved = any((r.mod_revision if r else 0) != g[1] for r, g in zip(guards, change.guards, strict=True))
    return Outcome(False, revision, current, taken, fenced, moved, guards)
