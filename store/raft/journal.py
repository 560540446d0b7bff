"""The Raft log: an index in memory, recent payloads in a bounded cache, everything in segments on disk.

The loop appends, truncates and reads; one thread at a time writes batches (`take` on the loop, `write` in the thread,
`done` on the loop). An entry is durable, and may be acknowledged, once `durable_index` has reached it.

Entry `base_index` (1 in a new log) is never stored: it stands for everything before the log, as a snapshot will.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kybern.daemon import StartupError
from store.raft import failpoints, segments
from store.raft.datadir import ADVICE, sync_directory
from store.raft.entries import CONFIGURATION, LEVEL
from store.raft.segments import CorruptJournal, FileHeader

log = logging.getLogger(__name__)

# PySyncObj puts an entry 1 of term 0 into every empty log; ours is implied.
FIRST_BASE_INDEX = 1
FIRST_BASE_TERM = 0

_NAME = re.compile(r"^(\d{10})\.log$")
_CRC = struct.Struct("<I")
_OFFSET_BITS = 40
_MAX_BATCH_BYTES = 16 << 20
# So many zeros are written ahead at a time, and for batches of no more than so many bytes: a large one grows the file.
_ROOM_BYTES = 1 << 20
_SMALL_BATCH_BYTES = 64 << 10
# No room, or no more of it for this user.
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class _Segment:
    """A segment: the entry before its first one when it was begun, its lowest entry, and bytes of records."""

    previous_index: int
    previous_term: int
    lowest: int
    record_bytes: int = 0


@dataclass(slots=True)
class Batch:
    """What one write and fdatasync makes durable."""

    segment: int
    # The header to begin the segment with, when this batch is its first.
    header: FileHeader | None
    offset: int
    sequence: int
    entries: Sequence[tuple[int, int, bytes]]
    last_index: int


class Journal:
    """The log of one member. Not thread-safe but for `write`."""

    def __init__(self, directory: Path, *, segment_bytes: int = 64 << 20, cache_bytes: int = 16 << 20) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._cache_limit = cache_bytes
        self.base_index = FIRST_BASE_INDEX
        self.base_term = FIRST_BASE_TERM
        self.durable_index = FIRST_BASE_INDEX
        # By index - base_index - 1. Place: number of the segment and offset of the payload; 0: not yet given one.
        self._terms = array("Q")
        self._places = array("Q")
        self._lengths = array("I")
        self._cache: dict[int, bytes] = {}
        self._cache_bytes = 0
        # Entries up to here have been taken into a batch.
        self._taken = FIRST_BASE_INDEX
        self._writing: Batch | None = None
        self._files: dict[int, int] = {}
        # All segments that have a file, or will have one with the next write, oldest first.
        self._segments: dict[int, _Segment] = {}
        # Segments whose files are to be removed, in this order: one that stayed between others would be a gap.
        self._doomed: list[int] = []
        self._segment = 0
        self._segment_end = 0
        # Up to where the last segment's file is of zeros already.
        self._room = 0
        self._sequence = 1
        self.log_bytes = 0
        # Entries about the group's members that `open` found, by index.
        self.configurations: dict[int, bytes] = {}
        # And those by which the group rose to a level.
        self.rises: dict[int, bytes] = {}

    # --- reading

    @property
    def last_index(self) -> int:
        """Index of the last entry, durable or not."""
        return self.base_index + len(self._terms)

    @property
    def last_term(self) -> int:
        """Term of the last entry."""
        return self._terms[-1] if self._terms else self.base_term

    def term_at(self, index: int) -> int:
        """Term of the entry at `index`, which must be in base_index..last_index."""
        return self.base_term if index == self.base_index else self._terms[self._slot(index)]

    def read(self, index: int) -> bytes:
        """Payload of the entry at `index`, which must be in base_index + 1..last_index.

        Raises:
            CorruptJournal: when the disk gives back something else than was written.
        """
        cached = self._cache.get(index)
        return cached if cached is not None else self._read_file(index)

    def entries(self, first: int, max_bytes: int) -> list[tuple[int, int, bytes]]:
        """Entries (index, term, payload) from `first` on, of up to `max_bytes` together but at least one."""
        found: list[tuple[int, int, bytes]] = []
        size = 0
        for index in range(first, self.last_index + 1):
            size += self._lengths[self._slot(index)]
            if found and size > max_bytes:
                break
            found.append((index, self.term_at(index), self.read(index)))
        return found

    @property
    def pending_bytes(self) -> int:
        """Bytes of payloads that no disk has yet."""
        return sum(self._lengths[max(0, self.durable_index - self.base_index) :])

    # --- changing (on the loop)

    def append(self, index: int, term: int, payload: bytes) -> None:
        """Add the entry after the last one."""
        if index != self.last_index + 1 or term < self.last_term:
            raise ValueError(f"entry {index} of term {term} does not follow {self.last_index} of {self.last_term}")
        self._terms.append(term)
        self._places.append(0)
        self._lengths.append(len(payload))
        self._cache[index] = payload
        self._cache_bytes += len(payload)
        self._evict()

    def truncate_from(self, index: int) -> None:
        """Forget the entries from `index` on. On disk they stay until the entry that replaces them is written."""
        slot = self._slot(index)
        for gone in range(index, self.last_index + 1):
            payload = self._cache.pop(gone, None)
            if payload is not None:
                self._cache_bytes -= len(payload)
        del self._terms[slot:], self._places[slot:], self._lengths[slot:]
        self._taken = min(self._taken, index - 1)
        self.durable_index = min(self.durable_index, index - 1)
        if self._writing is not None:
            self._writing.last_index = min(self._writing.last_index, index - 1)

    def take(self) -> Batch | None:
        """What is to be written next; None when nothing is, or while a batch is being written."""
        if self._writing is not None or self._taken == self.last_index:
            return None
        first = self._taken + 1
        entries = self.entries(first, _MAX_BATCH_BYTES)
        header = None
        if not self._segment or self._segment_end >= self._segment_bytes:
            header = FileHeader(self._segment + 1, self._sequence, first - 1, self.term_at(first - 1))
            self._segment, self._segment_end = header.number, segments.FILE_HEADER_BYTES
            self._segments[header.number] = _Segment(header.previous_index, header.previous_term, first)
        self._segments[self._segment].lowest = min(self._segments[self._segment].lowest, first)
        batch = Batch(self._segment, header, self._segment_end, self._sequence, entries, entries[-1][0])
        at = batch.offset + segments.BATCH_HEADER_BYTES
        for index, _, payload in entries:
            self._places[self._slot(index)] = batch.segment << _OFFSET_BITS | at + segments.RECORD_HEADER_BYTES
            at += segments.RECORD_HEADER_BYTES + len(payload)
        self._segment_end = at + segments.BATCH_END_BYTES
        self._sequence += 1
        self._taken = batch.last_index
        self._writing = batch
        return batch

    def done(self, batch: Batch) -> None:
        """The batch is on disk: what of it is still part of the log is durable now."""
        self.durable_index = max(self.durable_index, batch.last_index)
        size = sum(len(payload) + segments.RECORD_HEADER_BYTES for _, _, payload in batch.entries)
        self.log_bytes += size
        self._segments[batch.segment].record_bytes += size
        self._writing = None
        self._evict()

    # --- what is no longer needed (decided on the loop, removed in a thread)

    def size_after(self, index: int) -> int:
        """Bytes of payloads after the entry `index`."""
        return sum(self._lengths[max(0, index - self.base_index) :])

    def trim(self, index: int) -> None:
        """Forget whole segments that hold nothing after `index`, which must be covered by a snapshot.

        `remove` is to be called afterwards.
        """
        base: _Segment | None = None
        batch = self._writing
        gone: list[int] = []
        numbers = list(self._segments)
        lowest = self.last_index + 1
        # From the newest on: the first that may be the oldest one of what is kept.
        for position in range(len(numbers) - 1, 0, -1):
            segment = self._segments[numbers[position]]
            lowest = min(lowest, segment.lowest)
            at = segment.previous_index
            if batch is not None and batch.header is not None and batch.segment == numbers[position]:
                # It has no file yet, or one that no disk has: a crash would leave no log at all.
                continue
            if not self.base_index <= at <= min(index, self.durable_index, lowest - 1):
                continue
            # What the segment was begun after must still be part of the log.
            if self.term_at(at) == segment.previous_term:
                base, gone = segment, numbers[:position]
                break
        if base is None:
            return
        count = base.previous_index - self.base_index
        del self._terms[:count], self._places[:count], self._lengths[:count]
        self.base_index, self.base_term = base.previous_index, base.previous_term
        self._doomed += gone
        self._forget(gone)

    def reset(self, index: int, term: int) -> None:
        """Forget everything, and begin anew after an entry that a snapshot ends with.

        No write may be running, and none may begin before `remove` has returned.
        """
        if self._writing is not None:
            raise ValueError("a batch is being written")
        del self._terms[:], self._places[:], self._lengths[:]
        self.configurations.clear()
        self.rises.clear()
        self.base_index, self.base_term = index, term
        self.durable_index = self._taken = index
        self._segment_end = self._segment_bytes
        # The newest first: what a crash leaves of them is a log that was there once.
        gone = list(reversed(self._segments))
        self._doomed = [*gone, *reversed(self._doomed)]
        self._forget(gone)

    def remove(self) -> None:
        """Remove the files of what was forgotten, each for good before the next one; in a thread.

        Raises:
            OSError: when the disk does not take that; what is left is removed the next time, and first.
        """
        while self._doomed:
            number = self._doomed[0]
            (self._directory / _file_name(number)).unlink(missing_ok=True)
            failpoints.hit("trim.unlinked")
            sync_directory(self._directory)
            descriptor = self._files.pop(number, None)
            if descriptor is not None:
                os.close(descriptor)
            del self._doomed[0]

    def _forget(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.log_bytes -= self._segments.pop(number).record_bytes
        for index in [index for index in self._cache if not self.base_index < index <= self.last_index]:
            self._cache_bytes -= len(self._cache.pop(index))

    # --- files

    def write(self, batch: Batch) -> None:
        """Write a batch and wait for the disk; in a thread. May be called again for the same batch after an error.

        Raises:
            OSError: when the disk does not take it.
        """
        if batch.header is not None:
            self._begin_segment(batch.header)
        failpoints.hit("append.begin")
        data = segments.encode_batch(batch.sequence, [segments.encode_record(i, t, p) for i, t, p in batch.entries])
        descriptor = self._files[batch.segment]
        self._make_room(descriptor, batch.offset, len(data))
        if not failpoints.armed():
            # Written and durable in one call: after each, the thread waits for the interpreter, often longer than for
            # the disk.
            _pwrite_all(descriptor, memoryview(data), batch.offset, os.RWF_DSYNC)
            return
        half = len(data) // 2
        _pwrite_all(descriptor, memoryview(data)[:half], batch.offset)
        failpoints.hit("append.partial")
        _pwrite_all(descriptor, memoryview(data)[half:], batch.offset + half)
        failpoints.hit("append.written")
        os.fdatasync(descriptor)
        failpoints.hit("append.synced")

    def open(self) -> None:
        """Read and check all segments, cut off an unfinished write at the very end, and be ready for more.

        Raises:
            StartupError: naming file and offset of what is corrupt, or what cannot be read.
        """
        try:
            self._open()
        except CorruptJournal as error:
            raise StartupError(f"{error}; {ADVICE}") from error
        except OSError as error:
            raise StartupError(f"cannot read the journal in {self._directory}: {error}") from error

    def close(self) -> None:
        """Close the files. Nothing is written: what was acknowledged is on disk already."""
        for descriptor in self._files.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._files.clear()

    def _open(self) -> None:
        paths = sorted(path for path in self._directory.iterdir() if _NAME.match(path.name))
        for position, path in enumerate(paths):
            self._open_segment(path, first=position == 0, last=position == len(paths) - 1)
        self._taken = self.durable_index = self.last_index

    def _open_segment(self, path: Path, *, first: bool, last: bool) -> None:
        data = path.read_bytes()
        header = segments.decode_file_header(path, data)
        if header is None:
            if not last:
                raise CorruptJournal(path, 0, "the header of a segment is cut off, and later segments follow")
            log.warning("removing %s: its making was interrupted before it held anything", path)
            path.unlink()
            sync_directory(self._directory)
            return
        self._check_header(path, header, first=first)
        found = segments.scan(path, data, header)
        self._segments[header.number] = _Segment(
            header.previous_index,
            header.previous_term,
            min((record.index for record in found.records), default=header.previous_index + 1),
        )
        self._replay(path, found, data)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._files[header.number] = descriptor
        if found.torn_bytes:
            if not last:
                raise CorruptJournal(path, found.good_bytes, "a batch is cut off, and later segments follow")
            log.warning(
                "cutting %d bytes off %s at offset %d: a write that a crash interrupted, never acknowledged",
                found.torn_bytes,
                path,
                found.good_bytes,
            )
            os.ftruncate(descriptor, found.good_bytes)
        if last:
            # What a killed process wrote may be in the page cache alone, and counts as durable from here on.
            os.fsync(descriptor)
            sync_directory(self._directory)
        self._segment, self._segment_end = header.number, found.good_bytes
        self._room = found.good_bytes if found.torn_bytes else len(data)
        self._sequence = found.next_sequence
        if header.format != segments.FORMAT:
            # What comes next is of this version, and in a segment of its own.
            self._segment_end = max(self._segment_end, self._segment_bytes)

    def _check_header(self, path: Path, header: FileHeader, *, first: bool) -> None:
        if path.name != _file_name(header.number):
            raise CorruptJournal(path, 0, f"it calls itself segment {header.number}")
        if first:
            self.base_index, self.base_term = header.previous_index, header.previous_term
            return
        if header.number != self._segment + 1 or header.first_sequence != self._sequence:
            raise CorruptJournal(
                path, 0, f"segment {self._segment + 1} with batch {self._sequence} is missing before it"
            )
        known = self.base_index <= header.previous_index <= self.last_index
        if not known or self.term_at(header.previous_index) != header.previous_term:
            raise CorruptJournal(path, 0, "it does not continue the segment before it")

    def _replay(self, path: Path, found: segments.Scanned, data: bytes) -> None:
        for record in found.records:
            if not self.base_index < record.index <= self.last_index + 1:
                raise CorruptJournal(path, record.offset, f"entry {record.index} follows entry {self.last_index}")
            if record.index <= self.last_index:
                slot = self._slot(record.index)
                del self._terms[slot:], self._places[slot:], self._lengths[slot:]
                for kept in (self.configurations, self.rises):
                    for index in [index for index in kept if index >= record.index]:
                        del kept[index]
            if record.length and data[record.offset] in (CONFIGURATION, LEVEL):
                kept = self.configurations if data[record.offset] == CONFIGURATION else self.rises
                kept[record.index] = data[record.offset : record.offset + record.length]
            if record.term < self.last_term:
                raise CorruptJournal(path, record.offset, f"term {record.term} follows term {self.last_term}")
            self._terms.append(record.term)
            self._places.append(found.header.number << _OFFSET_BITS | record.offset)
            self._lengths.append(record.length)
            self.log_bytes += record.length + segments.RECORD_HEADER_BYTES
            self._segments[found.header.number].record_bytes += record.length + segments.RECORD_HEADER_BYTES

    def _begin_segment(self, header: FileHeader) -> None:
        path = self._directory / _file_name(header.number)
        descriptor = self._files.get(header.number)
        if descriptor is None:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            self._files[header.number] = descriptor
        failpoints.hit("segment.created")
        _pwrite_all(descriptor, memoryview(segments.encode_file_header(header)), 0)
        failpoints.hit("segment.written")
        self._room = 0
        os.fsync(descriptor)
        sync_directory(self._directory)
        failpoints.hit("segment.synced")

    def _make_room(self, descriptor: int, offset: int, size: int) -> None:
        """Have zeros where so many bytes are to be written.

        Where a file system keeps a journal, a sync of what makes a file longer, or fills a block for the first time, is
        two writes that wait for each other. (On ext4: 2.0 flushes of the disk for each batch, and 1.0 with zeros.)
        """
        if offset + size <= self._room or size > _SMALL_BATCH_BYTES or offset >= self._segment_bytes:
            return
        room = min(offset + _ROOM_BYTES, max(offset + size, self._segment_bytes))
        try:
            _pwrite_all(descriptor, memoryview(bytes(room - offset)), offset)
            failpoints.hit("segment.zeroed")
            os.fdatasync(descriptor)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            # For the batch itself there may be enough.
            log.debug("no room ahead for the journal: %s", error)
        self._room = room

    def _read_file(self, index: int) -> bytes:
        slot = self._slot(index)
        place, length = self._places[slot], self._lengths[slot]
        number, offset = place >> _OFFSET_BITS, place & (1 << _OFFSET_BITS) - 1
        start = offset - segments.RECORD_HEADER_BYTES
        data = os.pread(self._files[number], segments.RECORD_HEADER_BYTES + length, start)
        payload = data[segments.RECORD_HEADER_BYTES :]
        if len(payload) != length or _CRC.unpack_from(data, 4)[0] != segments.record_crc(
            index, self._terms[slot], payload
        ):
            raise CorruptJournal(self._directory / _file_name(number), start, f"entry {index} fails its checksum")
        return payload

    def _evict(self) -> None:
        while self._cache_bytes > self._cache_limit:
            oldest = next(iter(self._cache))
            if oldest > self.durable_index:
                return
            self._cache_bytes -= len(self._cache.pop(oldest))

    def _slot(self, index: int) -> int:
        slot = index - self.base_index - 1
        if not 0 <= slot < len(self._terms):
            raise IndexError(f"entry {index} is not in the log ({self.base_index + 1}..{self.last_index})")
        return slot


def _pwrite_all(descriptor: int, view: memoryview, at: int, flags: int = 0) -> None:
    while view:
        written = os.pwritev(descriptor, [view], at, flags)
        view = view[written:]
        at += written


def _file_name(number: int) -> str:
    return f"{number:010d}.log"
