"""The keys with their history: the data structure below transactions.

`live` has the keys that exist now, `dead` those whose last change was a deletion that is still kept; records of a key
are chained from new to old. So reads of the present are plain reads of one sorted dictionary, and only reads of the
past walk chains.

What a compaction makes superfluous is taken out in portions, and not while a dump is being made: nothing that is read
from here shows whether that has been done yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Any

from sortedcontainers import SortedDict

from store.mvcc.records import NO_BOUND, ChangeLog, Record

# What a record costs beside its key and value: the object, its place in a dictionary or in the log. About.
_RECORD_BYTES = 200
# Records that are taken out at a time, so that no command waits for long: some ten milliseconds.
_TRIM = 10_000
# Keys that are deleted in one go rather than each by itself, which looks for its place in the order twice.
_TOGETHER = 100
_replace: Callable[[Any, bytes, Record], None] = dict.__setitem__


class KeySpace:
    """Keys and history. `revision` is the last one made, `compacted` the oldest that can be read (0: all can)."""

    def __init__(self) -> None:
        # etcd's first revision is 1, before anything was written.
        self.revision = 1
        self.compacted = 0
        self.live: SortedDict[bytes, Record] = SortedDict()
        self.dead: SortedDict[bytes, Record] = SortedDict()
        self.log = ChangeLog()
        # Bytes of keys and values, history included.
        self.bytes = 0
        # Up to which compaction superfluous records have been taken out, and who keeps that from going on.
        self._trimmed = 0
        self._pins = 0
        # Grows when everything is replaced: what was being read in portions is no longer there then.
        self.generation = 0
        # What an earlier state held, being freed in portions.
        self._retired: list[KeySpace] = []

    @property
    def footprint(self) -> int:
        """About how many bytes of memory all this takes."""
        return self.bytes + _RECORD_BYTES * (len(self.live) + len(self.log))

    @property
    def superfluous(self) -> int:
        """How many changes a compaction has made superfluous that are not taken out yet."""
        return self.log.position(self.compacted) if self._trimmed != self.compacted else 0

    # --- reading

    def find(self, start: bytes, end: bytes, *, limit: int = 0) -> list[Record]:
        """The live keys of a range (etcd's conventions for `end`) in order, at most `limit` of them (0: all)."""
        if not end:
            record = self.live.get(start)
            return [] if record is None else [record]
        keys = self.live.irange(start, None if end == NO_BOUND else end, (True, False))
        live = self.live
        # A limit may be larger than what `islice` takes.
        return [live[key] for key in (islice(keys, min(limit, len(live))) if limit else keys)]

    def count(self, start: bytes, end: bytes, *, dead: bool = False) -> int:
        """How many live keys a range has; with `dead` those that were deleted too."""
        if not end:
            return int(start in self.live) + int(dead and start in self.dead)
        found = _between(self.live, start, end)
        return found + _between(self.dead, start, end) if dead else found

    def find_at(self, start: bytes, end: bytes, revision: int) -> list[Record]:
        """The keys of a range in order, as of a revision that is kept."""
        if not end:
            heads: Iterator[Record | None] = iter((self.live.get(start) or self.dead.get(start),))
        else:
            heads = iter(self._heads(start, None if end == NO_BOUND else end))
        found = []
        for head in heads:
            record = head
            while record is not None and record.mod > revision:
                record = record.previous
            if record is not None and record.version:
                found.append(record)
        return found

    def changes(self, key: bytes, first: int, last: int, *, limit: int) -> list[Record] | None:
        """The changes of one key in the revisions from `first` to `last`, which are kept; None: more than `limit`.

        By the key's own chain, whatever else was changed since.
        """
        found: list[Record] = []
        record = self.live.get(key) or self.dead.get(key)
        while record is not None and record.mod >= first:
            if record.mod <= last:
                found.append(record)
            if len(found) > limit:
                return None
            record = record.previous
        found.reverse()
        return found

    # --- writing

    def put(self, key: bytes, value: bytes, lease: int, revision: int) -> Record:
        """Set a key at a revision that is not before the present one."""
        old = self.live.get(key)
        if old is None:
            record = Record(key, value, revision, revision, 1, lease, self.dead.pop(key, None))
            self.live[key] = record
        else:
            # The chain's records share one key object: a key's bytes are kept once.
            record = Record(old.key, value, old.create, revision, old.version + 1, lease, old)
            # Not as the sorted dictionary would: its order stays as it is.
            _replace(self.live, old.key, record)
        self.log.append(record)
        self.bytes += len(key) + len(value)
        return record

    def overwrite(self, old: Record, value: bytes) -> int:
        """Set a live key that has no lease, at the next revision, which is returned: `put` for the commonest write."""
        self.revision = revision = self.revision + 1
        key = old.key
        record = Record(key, value, old.create, revision, old.version + 1, 0, old)
        _replace(self.live, key, record)
        self.log.append(record)
        self.bytes += len(key) + len(value)
        return revision

    def delete(self, old: Record, revision: int) -> Record:
        """Delete a live key."""
        record = Record(old.key, b"", 0, revision, 0, 0, old)
        del self.live[old.key]
        self.dead[old.key] = record
        self.log.append(record)
        self.bytes += record.size
        return record

    def delete_range(self, olds: Sequence[Record], revision: int) -> None:
        """Delete all live keys from the first of `olds` to the last, which is what `find` gave of a range."""
        if len(olds) < _TOGETHER:
            for old in olds:
                self.delete(old, revision)
            return
        first = self.live.bisect_left(olds[0].key)
        del self.live.keys()[first : first + len(olds)]
        records = [Record(old.key, b"", 0, revision, 0, 0, old) for old in olds]
        self.dead.update(zip([record.key for record in records], records, strict=True))
        self.log.extend(records)
        self.bytes += sum([len(record.key) for record in records])

    def compact(self, revision: int) -> None:
        """Forget what was superseded before `revision`; reads and watches from `revision` on still work."""
        self.compacted = revision
        self.trim()

    def trim(self) -> None:
        """Take out a portion of what is superfluous; to be called again now and then."""
        if self._retired and not self._retired[-1]._free():
            self._retired.pop()
        if self._pins or self._trimmed == self.compacted:
            return
        dropped = self.log.drop_before(self.compacted, _TRIM)
        for record in dropped:
            self._forget_previous(record)
            if not record.version:
                self.bytes -= record.size
                if self.dead.get(record.key) is record:
                    del self.dead[record.key]
        if len(dropped) == _TRIM:
            return
        # Changes of the revision itself stay, for watches that begin with it, but what was before them goes.
        for record in self.log.between(self.compacted, self.compacted, limit=len(self.log)):
            self._forget_previous(record)
        self._trimmed = self.compacted

    # --- reading in portions, see `store.mvcc.walks`

    def pin(self) -> None:
        """Keep every record that is here now, also when it is compacted, until `unpin`."""
        self._pins += 1

    def unpin(self) -> None:
        """Give up one `pin`."""
        self._pins -= 1

    def heads_after(
        self, start: bytes | None, end: bytes | None, limit: int, *, inclusive: bool = False
    ) -> tuple[list[Record], bytes | None]:
        """The last records of about `limit` keys after `start` and before `end` (None: no bound), in the keys' order.

        Keys whose last change is a deletion are among them. Also returns where the next portion starts, None at the
        end. Pinned, portions that are taken while keys change fit together: a change adds records and takes none away.
        """
        sides = (start is None or inclusive, False)
        live, dead = self.live, self.dead
        found = list(islice(live.irange(start, end, sides), limit))
        bound = found[-1] if len(found) == limit else None
        if not dead:
            return [live[key] for key in found], bound
        others = list(islice(dead.irange(start, end, sides), limit))
        if len(others) == limit and (bound is None or others[-1] < bound):
            bound = others[-1]
        if others:
            found = sorted(found + others)
        heads = [live.get(key) or dead[key] for key in found if bound is None or key <= bound]
        return heads, bound

    def base_after(self, cursor: bytes | None, compacted: int, limit: int) -> tuple[list[Record], bytes | None]:
        """Records that a compaction at `compacted` left and that are older than its log; portions as `heads_after`."""
        heads, cursor = self.heads_after(cursor, None, limit)
        base = []
        for head in heads:
            record: Record | None = head
            while record is not None and record.mod > compacted:
                record = record.previous
            if record is not None and record.version and record.mod < compacted:
                base.append(record)
        return base, cursor

    # --- whole

    def load_base(self, records: Sequence[Record]) -> None:
        """Into an empty key space: records that are older than the log, in the order of keys."""
        live = self.live
        for record in records:
            live[record.key] = record
        self.bytes += sum([record.size for record in records])

    def load_changes(self, changes: Sequence[Record]) -> None:
        """After the base: the log, in its order."""
        live, dead = self.live, self.dead
        replace = dict.__setitem__
        for change in changes:
            key = change.key
            old = live.get(key)
            if old is not None:
                # As when it was written: a key's bytes are kept once.
                change.key = key = old.key
                change.previous = old
                if change.version:
                    # Its place in the order stays.
                    replace(live, key, change)  # type: ignore[arg-type] # it is one
                    continue
                del live[key]
            elif dead:
                change.previous = dead.pop(key, None)
            if change.version:
                live[key] = change
            else:
                dead[key] = change
        self.log.extend(changes)
        self.bytes += sum([change.size for change in changes])

    def adopt(self, other: KeySpace, revision: int, compacted: int) -> None:
        """Replace everything by what `other` was loaded with. What was here is freed in portions, by `trim`."""
        old = KeySpace()
        old.live, old.dead, old.log = self.live, self.dead, self.log
        self._retired.append(old)
        self.live, self.dead, self.log, self.bytes = other.live, other.dead, other.log, other.bytes
        self.revision, self.compacted = revision, compacted
        self._trimmed = compacted
        self.generation += 1

    # --- within

    def _free(self) -> bool:
        """Let go of a portion of everything; False when nothing was left."""
        if self.log.drop_last(_TRIM):
            return True
        # As plain dictionaries: their order is of no use any more.
        for records in (self.live, self.dead):
            if records:
                for _ in range(min(_TRIM, len(records))):
                    dict.popitem(records)
                return True
        return False

    def _forget_previous(self, record: Record) -> None:
        previous = record.previous
        if previous is not None:
            # A deletion's size was taken off when it left the log.
            if previous.version:
                self.bytes -= previous.size
            record.previous = None

    def _heads(self, start: bytes | None, end: bytes | None) -> Iterator[Record]:
        """The last record of every key in the range, dead ones included, in the order of keys."""
        live = ((k, self.live[k]) for k in self.live.irange(start, end, (True, False)))
        if not self.dead:
            return (record for _, record in live)
        dead = ((k, self.dead[k]) for k in self.dead.irange(start, end, (True, False)))
        return (record for _, record in merge(live, dead))


def _between(keys: SortedDict[bytes, Record], start: bytes, end: bytes) -> int:
    last = len(keys) if end == NO_BOUND else keys.bisect_left(end)
    return max(0, int(last) - int(keys.bisect_left(start)))
