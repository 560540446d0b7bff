"""The bytes of the journal: a file is a header and batches; a batch is what one fdatasync made durable.

    file    header (magic, format, number of the file, sequence of its first batch, index and term before it, CRC),
            batches, zeros that were written ahead
    batch   header (magic, count of records, bytes of records, sequence, CRC of this header), records, END
    record  length, CRC (of length, index, term and payload), index, term, payload

Entries are never rewritten in place: a record whose index is not above the last one replaces the log from there on
(Raft truncates only what was never committed). So the log only ever grows at its end, and a crash can damage nothing
but the last batch, which nobody was told about. What it did not write of that reads as zeros: any sectors after a power
cut, all from some byte on when the process was killed, and then END is missing. In format 1 there was no END, and files
were as long as what they held.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

FORMAT = 2
_OLDEST_FORMAT = 1

_FILE_HEADER = struct.Struct("<8sIIQQQI")
_FILE_MAGIC = b"KYBRAFT\x01"
_BATCH_HEADER = struct.Struct("<4sIIQI")
_BATCH_MAGIC = b"KYBt"
_RECORD = struct.Struct("<IIQQ")
_CHECKED = struct.Struct("<IQQ")
# Not 0, nor turned into 0 by a bit.
_END = b"\x5a"
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
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Record:
    """An entry as found in a file; `offset` is where its payload begins."""

    index: int
    term: int
    offset: int
    length: int


@dataclass(slots=True)
class Scanned:
    """What a segment holds: good bytes, then those of an unfinished write if there was one, then zeros."""

    header: FileHeader
    records: list[Record] = field(default_factory=list)
    next_sequence: int = 0
    good_bytes: int = 0
    torn_bytes: int = 0


def encode_file_header(header: FileHeader) -> bytes:
    """The first bytes of a segment."""
    before = (header.previous_index, header.previous_term)
    fields = (_FILE_MAGIC, header.format, header.number, header.first_sequence, *before)
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
    return b"".join((_BATCH_HEADER.pack(*fields, crc), *parts, _END))


BATCH_HEADER_BYTES = _BATCH_HEADER.size
BATCH_END_BYTES = len(_END)


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
    if not _OLDEST_FORMAT <= version <= FORMAT:
        raise CorruptJournal(path, 0, f"format {version} is not known to this version (it knows up to {FORMAT})")
    return FileHeader(number, sequence, index, term, version)


def scan(path: Path, data: bytes, header: FileHeader) -> Scanned:
    """Read a whole segment.

    Raises:
        CorruptJournal: when something is wrong that a write cut off by a crash does not explain.
    """
    found = Scanned(header, next_sequence=header.first_sequence)
    used = len(data.rstrip(b"\0"))
    at = FILE_HEADER_BYTES
    while at < used:
        end = _scan_batch(path, data, at, used, found)
        if end is None:
            break
        at = end
        found.next_sequence += 1
    found.good_bytes = at
    found.torn_bytes = max(0, used - at)
    return found


def _scan_batch(path: Path, data: bytes, at: int, used: int, found: Scanned) -> int | None:
    """Add the batch at `at`; where it ends, or None when its write was cut off. From `used` on all is zeros."""
    body = at + BATCH_HEADER_BYTES
    if body > len(data):
        return None
    magic, count, size, sequence, crc = _BATCH_HEADER.unpack_from(data, at)
    if magic != _BATCH_MAGIC or zlib.crc32(data[at : body - 4]) != crc:
        if used <= body or _lost_its_header(data, at, found.next_sequence):
            return None
        raise CorruptJournal(path, at, "the header of a batch does not match its checksum")
    if sequence != found.next_sequence:
        raise CorruptJournal(path, at, f"batch {sequence} stands where {found.next_sequence} belongs")
    ending = _END if found.header.format > 1 else b""
    end: int = body + size + len(ending)
    if end > len(data):
        return None
    records = _scan_records(data, body, body + size, count)
    if isinstance(records, _Range):
        wrong, reason = records, "a record does not match its checksum"
    elif data[body + size : end] != ending:
        wrong, reason = _Range(body + size, end), "a batch does not end as it should"
    else:
        found.records.extend(records)
        return end
    # A later batch is begun only after this one's fdatasync: only the very last one may be unfinished.
    killed = bool(ending) and used < end
    if used <= end and (killed or _has_unwritten_sector(data, wrong, _Range(at, end))):
        return None
    raise CorruptJournal(path, wrong.start, reason)


@dataclass(frozen=True, slots=True)
class _Range:
    """Bytes of a file, from `start` until before `end`."""

    start: int
    end: int


def _scan_records(data: bytes, at: int, end: int, count: int) -> list[Record] | _Range:
    """The records of a batch, or where the first wrong one is."""
    records: list[Record] = []
    view = memoryview(data)
    while at < end:
        start = at + RECORD_HEADER_BYTES
        if start > end:
            return _Range(at, end)
        length, crc, index, term = _RECORD.unpack_from(data, at)
        checked = zlib.crc32(_CHECKED.pack(length, index, term))
        if start + length > end or zlib.crc32(view[start : start + length], checked) != crc:
            return _Range(at, min(end, start + length))
        records.append(Record(index, term, start, length))
        at = start + length
    return records if len(records) == count else _Range(at, end)


def _lost_its_header(data: bytes, at: int, sequence: int) -> bool:
    """Whether the sector with a batch's header was not written, and no later batch follows, so this was the last one.

    How long it was meant to be nobody knows then.
    """
    body = at + BATCH_HEADER_BYTES
    if not _has_unwritten_sector(data, _Range(at, body), _Range(at, len(data))):
        return False
    at = data.find(_BATCH_MAGIC, body)
    while 0 <= at <= len(data) - BATCH_HEADER_BYTES:
        *_, later, crc = _BATCH_HEADER.unpack_from(data, at)
        if later > sequence and zlib.crc32(data[at : at + BATCH_HEADER_BYTES - 4]) == crc:
            return False
        at = data.find(_BATCH_MAGIC, at + 1)
    return True


def _has_unwritten_sector(data: bytes, wrong: _Range, batch: _Range) -> bool:
    """Whether the batch's part of a sector of what is wrong is all zeros: what a power cut leaves of a write."""
    for sector in range(wrong.start // _SECTOR * _SECTOR, wrong.end, _SECTOR):
        if not any(data[max(sector, batch.start) : min(sector + _SECTOR, batch.end)]):
            return True
    return False
