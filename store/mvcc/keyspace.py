"""The keys with their history: the data structure below transactions.

`live` has the keys that exist now, `dead` those whose last change was a deletion that is still kept; records of a key
are chained from new to old. So reads of the present are plain reads of one sorted dictionary, and only reads of the
past walk chains.
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
        for record in self.log.drop_before(revision):
            self._forget_previous(record)
            if not record.version:
                self.bytes -= record.size
                if self.dead.get(record.key) is record:
                    del self.dead[record.key]
        # Changes of the revision itself stay, for watches that begin with it, but what was before them goes.
        for record in self.log.between(revision, revision, limit=len(self.log)):
            self._forget_previous(record)

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
                record = record.previous
        return crc

    def base(self) -> Sequence[Record]:
        """The records that are older than the log: with the log's changes on top they make the whole."""
        first = self.compacted
        oldest = []
        for head in self._heads(None, None):
            record = head
            while record.previous is not None:
                record = record.previous
            if record.version and record.mod < first:
                oldest.append(record)
        return oldest

    def load(self, revision: int, compacted: int, base: Sequence[Record], changes: Sequence[Record]) -> None:
        """Replace everything by what `base` and the log of a key space were."""
        self.__init__()  # type: ignore[misc] # the one place that knows every field
        for record in base:
            self.live[record.key] = record
            self.bytes += record.size
        for change in changes:
            old = self.live.pop(change.key, None) or self.dead.pop(change.key, None)
            change.previous = old
            (self.live if change.version else self.dead)[change.key] = change
            self._add(change)
        self.revision, self.compacted = revision, compacted

    # --- within

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
