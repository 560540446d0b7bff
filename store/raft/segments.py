"""The bytes of the journal: a file is a header and batches; a batch is what one fdatasync made durable.

    file    header (magic, format, number of the file, sequence of its first batch, index and term before it, CRC)
    batch   header (magic, count of records, bytes of records, sequence, CRC of this header)
    record  length, CRC (of length, index, term and payload), index, term, payload

Entries are never rewritten in place: a record whose index is not above the last one replaces the log from there on
(Raft truncates only what was never committed). So the log only ever grows at its end, and a crash can damage nothing
but the last batch, which nobody was told about.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

FORMAT = 1

_FILE_HEADER = struct.Struct("<8sIIQQQI")
_FILE_MAGIC = b"KYBRAFT\x01"
_BATCH_HEADER = struct.Struct("<4sIIQI")
_BATCH_MAGIC = b"KYBt"
_RECORD = struct.Struct("<IIQQ")
_CHECKED = struct.Struct("<IQQ")
# A disk writes at least this much or nothing; what a power cut left unwritten reads as zeros.
_SECTOR = 512

FILE_HEADER_BYTES = _FILE_HEADER.size
RECORD_HEADER_BYTES = _RECORD.size


class CorruptJournal(Exception):  # noqa: N818 - names the state of a file
    """A file holds something else than was written to it. `offset` is where it begins to be wrong."""

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        super().__init__(f"{path} is corrupt at offset {offset}: {reason}")
        self.path = path
        self.offset = offset


@dataclass(frozen=True, slots=True)
class FileHeader:
    """What stands at the beginning of a segment."""

    number: int
    first_sequence: int
    # The entry before the segment's first one when the segment was begun.
    previous_index: int
    previous_term: int


@dataclass(frozen=True, slots=True)
class Record:
    """An entry as found in a file; `offset` is where its payload begins."""

    index: int
    term: int
    offset: int
    length: int


@dataclass(slots=True)
class Scanned:
    """What a segment holds. Bytes from `good_bytes` on are an unfinished write."""

    header: FileHeader
    records: list[Record] = field(default_factory=list)
    next_sequence: int = 0
    good_bytes: int = 0
    torn_bytes: int = 0


def encode_file_header(header: FileHeader) -> bytes:
    """The first bytes of a segment."""
    fields = (_FILE_MAGIC, FORMAT, header.number, header.first_sequence, header.previous_index, header.previous_term)
    crc = zlib.crc32(_FILE_HEADER.pack(*fields, 0)[:-4])
    return _FILE_HEADER.pack(*fields, crc)


def encode_record(index: int, term: int, payload: bytes) -> tuple[bytes, bytes]:
    """An entry as it stands in a batch: what precedes the payload, and the payload."""
    return _RECORD.pack(len(payload), record_crc(index, term, payload), index, term), payload


def record_crc(index: int, term: int, payload: bytes) -> int:
    """The checksum of an entry: also of where it belongs, so that a record that strayed is noticed."""
    return zlib.crc32(payload, zlib.crc32(_CHECKED.pack(len(payload), index, term)))


def encode_batch(sequence: int, records: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A batch of encoded records."""
    parts = [part for record in records for part in record]
    size = sum(map(len, parts))
    fields = (_BATCH_MAGIC, len(records), size, sequence)
    crc = zlib.crc32(_BATCH_HEADER.pack(*fields, 0)[:-4])
    return b"".join((_BATCH_HEADER.pack(*fields, crc), *parts))


BATCH_HEADER_BYTES = _BATCH_HEADER.size


def decode_file_header(path: Path, data: bytes) -> FileHeader | None:
    """The header of a segment, or None when its write was cut off (the file was just being made).

    Raises:
        CorruptJournal: when it is complete and wrong.
    """
    if len(data) < FILE_HEADER_BYTES or not any(data[:FILE_HEADER_BYTES]):
        return None
    magic, version, number, sequence, index, term, crc = _FILE_HEADER.unpack_from(data)
    if magic != _FILE_MAGIC or zlib.crc32(data[: FILE_HEADER_BYTES - 4]) != crc:
        raise CorruptJournal(path, 0, "this is not the header of a journal segment")
    if version != FORMAT:
        raise CorruptJournal(path, 0, f"format {version} is not known to this version (it knows {FORMAT})")
    return FileHeader(number, sequence, index, term)


def scan(path: Path, data: bytes, header: FileHeader) -> Scanned:
    """Read a whole segment.

    Raises:
        CorruptJournal: when something is wrong that a write cut off by a crash does not explain.
    """
    found = Scanned(header, next_sequence=header.first_sequence)
    at = FILE_HEADER_BYTES
    while at < len(data):
        end = _scan_batch(path, data, at, found)
        if end is None:
            break
        at = end
        found.next_sequence += 1
    found.good_bytes = at
    found.torn_bytes = len(data) - at
    return found


def _scan_batch(path: Path, data: bytes, at: int, found: Scanned) -> int | None:
    """Add the batch at `at`; where it ends, or None when its write was cut off."""
    if len(data) - at < BATCH_HEADER_BYTES:
        return None
    magic, count, size, sequence, crc = _BATCH_HEADER.unpack_from(data, at)
    body = at + BATCH_HEADER_BYTES
    if magic != _BATCH_MAGIC or zlib.crc32(data[at : body - 4]) != crc:
        # The header gives no length that could be trusted: only a tail of unwritten bytes excuses it.
        if _has_unwritten_sector(data, at, body) and not any(data[body:]):
            return None
        raise CorruptJournal(path, at, "the header of a batch does not match its checksum")
    if sequence != found.next_sequence:
        raise CorruptJournal(path, at, f"batch {sequence} stands where {found.next_sequence} belongs")
    end: int = body + size
    if end > len(data):
        return None
    records = _scan_records(data, body, end, count)
    if isinstance(records, int):
        # A later batch is begun only after this one's fdatasync: only the very last one may be unfinished.
        if end == len(data) and _has_unwritten_sector(data, at, end):
            return None
        raise CorruptJournal(path, records, "a record does not match its checksum")
    found.records.extend(records)
    return end


def _scan_records(data: bytes, at: int, end: int, count: int) -> list[Record] | int:
    """The records of a batch, or the offset of the first wrong one."""
    records: list[Record] = []
    view = memoryview(data)
    while at < end:
        start = at + RECORD_HEADER_BYTES
        if start > end:
            return at
        length, crc, index, term = _RECORD.unpack_from(data, at)
        checked = zlib.crc32(_CHECKED.pack(length, index, term))
        if start + length > end or zlib.crc32(view[start : start + length], checked) != crc:
            return at
        records.append(Record(index, term, start, length))
        at = start + length
    return records if len(records) == count else at


def _has_unwritten_sector(data: bytes, start: int, end: int) -> bool:
    """Whether some sector's part of [start, end) is all zeros: what a power cut leaves of a write."""
    at = start
    while at < end:
        after = min(end, (at // _SECTOR + 1) * _SECTOR)
        if not any(data[at:after]):
            return True
        at = after
    return False
