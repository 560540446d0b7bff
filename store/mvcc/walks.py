"""What looks at very many keys, in portions: the loop has other work in between, and yet all is of one moment.

Each of these is a generator that does a little between two `yield`s and returns what it came to. As it begins, it pins
the key space: compactions move the boundary meanwhile but take nothing out, and what is written has later revisions.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator, Sequence
from heapq import merge
from typing import NamedTuple, TypeVar

from kybern.pb.etcd import kv_pb2
from store.mvcc.errors import StoreError
from store.mvcc.keyspace import KeySpace
from store.mvcc.outcomes import RangeOutcome
from store.mvcc.ranges import check_revision, is_bounded, is_ordered, is_within, sort_key
from store.mvcc.records import NO_BOUND, Record

T = TypeVar("T")
# Something that is done bit by bit.
Walk = Generator[None, None, T]

# Keys that are looked at between two yields: well below a millisecond.
_PORTION = 256
# Records that are sorted at a time.
_SORTED = 2048


class StateReplaced(Exception):  # noqa: N818 - names what happened
    """A leader's snapshot took the place of the state while it was looked at: begin again."""


def finish(walk: Walk[T]) -> T:
    """Do all of it at once."""
    while True:
        try:
            next(walk)
        except StopIteration as stop:
            value: T = stop.value
            return value


class Checksum(NamedTuple):
    """A CRC of all that was kept up to `revision`; equal on members with equal history and compaction."""

    crc: int
    revision: int
    compacted: int


def checksum(keys: KeySpace, revision: int = 0) -> Walk[Checksum | StoreError]:
    """The checksum up to a revision, or up to the present one (0), unless it cannot be read.

    Raises:
        StateReplaced: see there.
    """
    error = check_revision(keys, revision)
    if error is not None:
        return error
    revision, compacted = revision or keys.revision, keys.compacted
    crc = 0
    for heads in _heads(keys, None, None):
        for head in heads:
            record: Record | None = head
            while record is not None:
                if record.mod <= revision and (record.version or record.mod >= compacted):
                    numbers = f"{record.create},{record.mod},{record.version},{record.lease},{len(record.key)};"
                    crc = zlib.crc32(record.value, zlib.crc32(record.key, zlib.crc32(numbers.encode(), crc)))
                # What is older than the compaction's view of the key is gone, taken out or not.
                record = record.previous if record.mod > compacted else None
        yield
    return Checksum(crc, revision, compacted)


def read_range(keys: KeySpace, request: kv_pb2.RangeRequest) -> Walk[RangeOutcome | StoreError]:
    """As `store.mvcc.ranges.read_range` of the present moment.

    Raises:
        StateReplaced: see there.
    """
    error = check_revision(keys, request.revision)
    if error is not None:
        return error
    present = keys.revision
    at = request.revision if request.revision > 0 else present
    bounded, ordered = is_bounded(request), is_ordered(request)
    limit = max(0, request.limit)
    # One more than asked for tells whether there are more.
    enough = limit + 1 if limit and not ordered else 0
    found: list[Record] = []
    count = 0
    end = None if request.range_end == NO_BOUND else request.range_end
    for heads in _heads(keys, request.key, end):
        for head in heads:
            record: Record | None = head
            while record is not None and record.mod > at:
                record = record.previous
            if record is not None and record.version:
                count += 1
                if not (request.count_only or (bounded and not is_within(record, request))) and (
                    not enough or len(found) < enough
                ):
                    found.append(record)
        yield
    if request.count_only:
        return RangeOutcome(present, (), False, count, False)
    if ordered:
        found = yield from _sorted(found, request, limit + 1 if limit else 0)
    more = bool(limit) and len(found) > limit
    return RangeOutcome(present, found[:limit] if more else found, more, count, request.keys_only)


def _sorted(records: Sequence[Record], request: kv_pb2.RangeRequest, limit: int) -> Walk[list[Record]]:
    """The records in the order that is asked for, the first `limit` of them (0: all); equal ones as they were."""
    key, descending = sort_key(request), request.sort_order == kv_pb2.RangeRequest.DESCEND
    runs = []
    for at in range(0, len(records), _SORTED):
        runs.append(sorted(records[at : at + _SORTED], key=key, reverse=descending))
        yield
    found: list[Record] = []
    for record in merge(*runs, key=key, reverse=descending):
        found.append(record)
        if len(found) == limit:
            break
        if len(found) % _PORTION == 0:
            yield
    return found


def _heads(keys: KeySpace, start: bytes | None, end: bytes | None) -> Iterator[Sequence[Record]]:
    """The last records of all keys in a range, `start` included, in portions, of the state that is there now."""
    generation = keys.generation
    keys.pin()
    try:
        cursor, inclusive = start, True
        while True:
            if keys.generation != generation:
                raise StateReplaced
            heads, cursor = keys.heads_after(cursor, end, _PORTION, inclusive=inclusive)
            inclusive = False
            yield heads
            if cursor is None:
                return
    finally:
        keys.unpin()
