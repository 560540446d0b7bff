"""The keys with their history: the data structure below transactions.

`live` has the keys that exist now, `dead` those whose last change was a deletion that is still kept; records of a key
are chained from new to old. So reads of the present are plain reads of one sorted dictionary, and only reads of the
past walk chains.

What a compaction makes superfluous is taken out in portions, and not while a dump is being made: nothing that is read
from here shows whether that has been done yet.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice

from sortedcontainers import SortedDict

from store.mvcc.records import NO_BOUND, ChangeLog, Record

# What a record costs beside its key and value: the object, its place in a dictionary or in the log. About.
_RECORD_BYTES = 200
# Records that are taken out at a time, so that no command waits for long: some ten milliseconds.
_TRIM = 10_000


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
        # What an earlier state held, being freed in portions.
        self._retired: list[KeySpace] = []

    @property
    def footprint(self) -> int:
        """About how many bytes of memory all this takes."""
        return self.bytes + _RECORD_BYTES * (len(self.live) + len(self.log))

    # --- reading

    def find(self, start: bytes, end: bytes, *, limit: int = 0) -> list[Record]:
        """The live keys of a range (etcd's conventions for `end`) in order, at most `limit` of them (0: all)."""
        if not end:
            record = self.live.get(start)
            return [] if record is None else [record]
        keys = self.live.irange(start, None if end == NO_BOUND else end, (True, False))
        live = self.live
        return [live[key] for key in (islice(keys, limit) if limit else keys)]

    def count(self, start: bytes, end: bytes) -> int:
        """How many live keys a range has."""
        if not end:
            return int(start in self.live)
        last = len(self.live) if end == NO_BOUND else self.live.bisect_left(end)
        return max(0, last - self.live.bisect_left(start))

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

    # --- writing

    def put(self, key: bytes, value: bytes, lease: int, revision: int) -> Record:
        """Set a key at a revision that is not before the present one."""
        old = self.live.get(key)
        if old is None:
            record = Record(key, value, revision, revision, 1, lease, self.dead.pop(key, None))
        else:
            # The chain's records share one key object: a key's bytes are kept once.
            record = Record(old.key, value, old.create, revision, old.version + 1, lease, old)
        self.live[record.key] = record
        self._add(record)
        return record

    def delete(self, old: Record, revision: int) -> Record:
        """Delete a live key."""
        record = Record(old.key, b"", 0, revision, 0, 0, old)
        del self.live[old.key]
        self.dead[old.key] = record
        self._add(record)
        return record

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

    # --- dumps

    def pin(self) -> None:
        """Keep every record that is here now, also when it is compacted, until `unpin`."""
        self._pins += 1

    def unpin(self) -> None:
        """Give up one `pin`."""
        self._pins -= 1

    def base_after(self, cursor: bytes | None, compacted: int, limit: int) -> tuple[list[Record], bytes | None]:
        """Records that a compaction at `compacted` left and that are older than its log, in the order of keys.

        About `limit` keys after `cursor` are looked at (None: from the first on); also returns the next cursor, None
        at the end. Pinned, portions that are taken while keys change fit together: a change adds records and takes
        none away.
        """
        found: list[bytes] = []
        bound: bytes | None = None
        for keys in (self.live, self.dead):
            portion = list(islice(keys.irange(cursor, None, (cursor is None, True)), limit))
            if len(portion) == limit and (bound is None or portion[-1] < bound):
                bound = portion[-1]
            found += portion
        found.sort()
        base = []
        for key in found:
            if bound is not None and key > bound:
                break
            record = self.live.get(key) or self.dead.get(key)
            while record is not None and record.mod > compacted:
                record = record.previous
            if record is not None and record.version and record.mod < compacted:
                base.append(record)
        return base, bound

    # --- whole

    def checksum(self, revision: int) -> int:
        """A CRC of all that is kept up to `revision`; equal on members with equal history and compaction."""
        crc = 0
        for head in self._heads(None, None):
            record: Record | None = head
            while record is not None:
                if record.mod <= revision and (record.version or record.mod >= self.compacted):
                    numbers = f"{record.create},{record.mod},{record.version},{record.lease},{len(record.key)};"
                    crc = zlib.crc32(record.value, zlib.crc32(record.key, zlib.crc32(numbers.encode(), crc)))
                # What is older than the compaction's view of the key is gone, taken out or not.
                record = record.previous if record.mod > self.compacted else None
        return crc

    def load_base(self, records: Sequence[Record]) -> None:
        """Into an empty key space: records that are older than the log, in the order of keys."""
        for record in records:
            self.live[record.key] = record
            self.bytes += record.size

    def load_changes(self, changes: Sequence[Record]) -> None:
        """After the base: the log, in its order."""
        live, dead = self.live, self.dead
        for change in changes:
            key = change.key
            old = live.get(key)
            if old is None:
                old = dead.pop(key, None)
            if change.version:
                live[key] = change
            else:
                if old is not None and old.version:
                    del live[key]
                dead[key] = change
            change.previous = old
            self._add(change)

    def adopt(self, other: KeySpace, revision: int, compacted: int) -> None:
        """Replace everything by what `other` was loaded with. What was here is freed in portions, by `trim`."""
        old = KeySpace()
        old.live, old.dead, old.log = self.live, self.dead, self.log
        self._retired.append(old)
        self.live, self.dead, self.log, self.bytes = other.live, other.dead, other.log, other.bytes
        self.revision, self.compacted = revision, compacted
        self._trimmed = compacted

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

    def _add(self, record: Record) -> None:
        self.log.append(record)
        self.bytes += record.size

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
