"""Keys as of revisions, and the log of changes in order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

import msgspec

# etcd's mark for 'no upper bound' where a range's end is expected.
NO_BOUND = b"\0"


class Record(msgspec.Struct, eq=False, gc=False):
    """A key after one change. Never altered once it is here, but that compaction cuts `previous`.

    Without `gc`: a record is never part of a cycle, and a collector that looks at half a million of them stops the
    process for longer than anything else does.

    `version` is 0 for a deletion (then `create` and `lease` are 0 and `value` is empty). `previous` is what the key was
    before: None when it was never there, or when compaction has forgotten it.
    """

    key: bytes
    value: bytes
    create: int
    mod: int
    version: int
    lease: int
    previous: Record | None

    @property
    def deleted(self) -> bool:
        """Whether the change was a deletion."""
        return self.version == 0

    @property
    def size(self) -> int:
        """Bytes of key and value."""
        return len(self.key) + len(self.value)

    @property
    def replaced(self) -> Record | None:
        """What a reader could see of the key before this change; None when it was absent or is forgotten."""
        previous = self.previous
        return None if previous is None or previous.version == 0 else previous


class ChangeLog:
    """All changes since the last compaction, in order; several may share a revision."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        # Adds the newest change. The list is the same one always, and this is called for every change.
        self.append: Callable[[Record], None] = self._records.append

    def __len__(self) -> int:
        return len(self._records)

    def extend(self, records: Sequence[Record]) -> None:
        """Add the newest changes, in their order."""
        self._records += records

    def between(self, first: int, last: int, limit: int) -> Sequence[Record]:
        """Changes of the revisions from `first` to `last`: about `limit` of them, but no revision in part."""
        begin = bisect_left(self._records, first, key=_revision)
        end = bisect_right(self._records, last, lo=begin, key=_revision)
        if end - begin > limit:
            end = bisect_right(self._records, self._records[begin + limit - 1].mod, lo=begin, key=_revision)
        return self._records[begin:end]

    def position(self, revision: int) -> int:
        """Where the changes of `revision` begin; holds until changes are taken out."""
        return bisect_left(self._records, revision, key=_revision)

    def portion(self, begin: int, end: int) -> Sequence[Record]:
        """The changes between two positions."""
        return self._records[begin:end]

    def drop_before(self, revision: int, limit: int) -> Sequence[Record]:
        """Take out the oldest changes before `revision`, at most `limit` of them, and return them."""
        end = bisect_left(self._records, revision, hi=min(limit, len(self._records)), key=_revision)
        dropped = self._records[:end]
        del self._records[:end]
        return dropped

    def drop_last(self, limit: int) -> bool:
        """Take out the newest changes, at most `limit` of them; whether there were any."""
        gone = self._records[-limit:]
        del self._records[-limit:]
        for record in gone:
            record.previous = None
        return bool(gone)

    def __del__(self) -> None:
        # A long chain that is let go at its head would be freed by recursion, deeper than the stack.
        self.drop_last(len(self._records))

    def all(self) -> Sequence[Record]:
        """A copy of the whole log."""
        return list(self._records)


def _revision(record: Record) -> int:
    return record.mod
