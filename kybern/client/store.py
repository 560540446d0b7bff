"""What the control plane needs of its key-value store: a narrow view of etcd v3.

Implementations: `kybern.client.etcd` (kybern-store or a real etcd, over gRPC) and `kybern.client.memory_store` (in
memory, for tests and simulations). Keys and values are bytes; revisions are the store's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as of one revision. `version` counts its changes since it was created; 0 marks a deletion."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class Target(Enum):
    """What a comparison looks at."""

    VERSION = "version"
    CREATE_REVISION = "create_revision"
    MOD_REVISION = "mod_revision"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class Compare:
    """Holds when the key's `target` equals `expected`; a key that is absent has version and revisions 0."""

    key: bytes
    target: Target
    expected: int | bytes


@dataclass(frozen=True, slots=True)
class Put:
    """Set a key; the key is deleted when `lease` (0: none) ends."""

    key: bytes
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a key; nothing happens when it is absent."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Get:
    """Read a key as of the transaction."""

    key: bytes


Operation = Put | Delete | Get


@dataclass(frozen=True, slots=True)
class TxnResult:
    """What a transaction did. `revision` is the store's after it: that of the writes, when any were made.

    `reads` has an entry for every Get of the branch that was taken, in order; None for an absent key.
    """

    succeeded: bool
    revision: int
    reads: Sequence[KeyValue | None]


@dataclass(frozen=True, slots=True)
class RangeResult:
    """Keys in order, as of `revision`. `more` tells that `limit` cut the answer; `count` is how many there are."""

    items: Sequence[KeyValue]
    revision: int
    more: bool = False
    count: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a key. `value.version` is 0 for a deletion; `previous` is what the key was before."""

    value: KeyValue
    previous: KeyValue | None

    @property
    def deleted(self) -> bool:
        """Whether the key was deleted."""
        return self.value.version == 0


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Changes in the store's order; all changes up to `revision` have been seen with it. Empty: progress alone."""

    changes: Sequence[Change]
    revision: int


class Compacted(Exception):  # noqa: N818 - etcd's word
    """The revision that was asked for is no longer kept."""

    def __init__(self, compact_revision: int) -> None:
        super().__init__(f"required revision has been compacted up to {compact_revision}")
        self.compact_revision = compact_revision


class StoreUnavailable(Exception):  # noqa: N818
    """The store cannot answer now (no leader, no connection, out of space). A write may or may not have happened."""


class StoreRefused(Exception):  # noqa: N818
    """The store answered that it will not do this: a lease that has ended, a request that breaks a rule or a limit."""


class StoreClient(Protocol):
    """All methods raise `StoreUnavailable` when the store cannot answer, and `StoreRefused` when it will not."""

    async def revision(self) -> int:
        """The store's revision, linearizable; callers that wait at the same time share one question."""
        ...

    async def range(self, start: bytes, end: bytes | None = None, *, limit: int = 0, revision: int = 0) -> RangeResult:
        """The keys from `start` up to but without `end` (None: that key alone), linearizable when `revision` is 0.

        Raises:
            Compacted: when `revision` is no longer kept.
        """
        ...

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> TxnResult:
        """Do `then` when every comparison holds, else `otherwise`, as one revision."""
        ...

    def watch(self, start: bytes, end: bytes, *, since: int) -> AsyncIterator[WatchBatch]:
        """The changes of the keys in [start, end) after revision `since`, with progress at least every ten seconds.

        Raises:
            Compacted: when `since` is no longer kept.
        """
        ...

    async def request_progress(self) -> None:
        """Make every open watch of this client report its progress soon."""
        ...

    async def lease_grant(self, ttl: int) -> int:
        """A new lease of `ttl` seconds; returns its id."""
        ...

    async def lease_keep_alive(self, lease: int) -> bool:
        """Renew a lease; False when it has ended."""
        ...

    async def lease_revoke(self, lease: int) -> None:
        """End a lease and delete its keys; nothing happens when it has ended already."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all keys that begin with `prefix`; one NUL byte (etcd: no bound) when there is none."""
    for at in range(len(prefix) - 1, -1, -1):
        if prefix[at] < 0xFF:
            return prefix[:at] + bytes((prefix[at] + 1,))
    return b"\0"
