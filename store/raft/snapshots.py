"""The bytes of a snapshot file, and the directory that holds the newest one.

    file    magic, length and CRC of the header; the header (msgpack)
    part    length, CRC, bytes of the state machine's dump; as often as needed
    end     length 0, CRC of what follows; how many bytes of the dump there were

INDEX.snap is this member's own; INDEX.installed came from a leader, and takes the place of a log that does not reach
it. Either has its name only after it is durable, and the log is trimmed only after its name is. Everything in here
blocks, and runs in a thread.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from kybern.daemon import StartupError
from kybern.struct import Frozen
from store.raft import failpoints
from store.raft.configuration import Configuration
from store.raft.datadir import ADVICE, sync_directory, sync_file

FORMAT = 1
# About how much of a dump stands in one part.
PART_BYTES = 256 << 10

# What is written before the disk is waited for, so that the log's writes never wait behind a whole snapshot's.
_SYNC_BYTES = 8 << 20

_MAGIC = b"KYBSNAP\x01"
_HEAD = struct.Struct("<8sII")
_PART = struct.Struct("<II")
_TOTAL = struct.Struct("<Q")
_MAX_HEADER = 1 << 20
_MAX_PART = 64 << 20
# How much of a dump one part has at most.
_PIECE = 4 << 20
_NAME = re.compile(r"^(\d{20})\.(snap|installed)$")


class Header(Frozen, forbid_unknown_fields=True):
    """What a snapshot stands for: everything up to the log entry `index`, which is of `term`."""

    cluster: str
    index: int
    term: int
    # As `Applied.index` of the last command, and the leader's clock in the last entry that had one.
    command_index: int
    now_ms: int
    # Who belongs to the group as of that entry: the log no longer says it.
    configuration: Configuration
    format: int = FORMAT
    # The group's level as of that entry.
    level: int = 1


class CorruptSnapshot(Exception):  # noqa: N818 - names the state of a file
    """A file is not a whole snapshot. `offset` is where it begins to be wrong."""

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        super().__init__(f"{path} is corrupt at offset {offset}: {reason}")
        self.path = path
        self.offset = offset


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """A snapshot that is durable under its name."""

    path: Path
    header: Header
    size: int
    installed: bool


class SnapshotWriter:
    """Writes one snapshot; nothing has its name before `finish` has returned.

    `installed`: it takes the place of the log, as a leader's does.
    """

    def __init__(self, directory: Path, header: Header, *, installed: bool = False) -> None:
        self._installed = installed
        self._path = directory / f"{header.index:020d}.{'installed' if installed else 'snap'}"
        self._temporary = directory / "own.new"
        self._header = header
        self._total = self._unsynced = 0
        self._file = self._temporary.open("wb")
        body = _encoded(header)
        try:
            self._file.write(_HEAD.pack(_MAGIC, len(body), zlib.crc32(body)) + body)
            failpoints.hit("snapshot.begin")
        except OSError:
            self.abandon()
            raise

    def write(self, part: bytes) -> None:
        """Add a part of the dump.

        Raises:
            OSError: when the disk does not take it.
        """
        # What is longer than a reader takes is cut: the machine takes its dump cut anywhere.
        for at in range(0, len(part), _PIECE):
            piece = part[at : at + _PIECE] if len(part) > _PIECE else part
            self._file.write(_PART.pack(len(piece), zlib.crc32(piece)))
            self._file.write(piece)
        self._total += len(part)
        self._unsynced += len(part)
        if self._unsynced >= _SYNC_BYTES:
            self._unsynced = 0
            self._file.flush()
            os.fdatasync(self._file.fileno())
        failpoints.hit("snapshot.partial")

    def finish(self) -> SnapshotFile:
        """Make it durable and give it its name.

        Raises:
            OSError: when the disk does not take it.
        """
        total = _TOTAL.pack(self._total)
        self._file.write(_PART.pack(0, zlib.crc32(total)) + total)
        self._file.flush()
        failpoints.hit("snapshot.written")
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        failpoints.hit("snapshot.synced")
        self._temporary.replace(self._path)
        failpoints.hit("snapshot.renamed")
        sync_directory(self._path.parent)
        failpoints.hit("snapshot.done")
        return SnapshotFile(self._path, self._header, size, installed=self._installed)

    def abandon(self) -> None:
        """Remove what was written; nothing happens after `finish`."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)


class SnapshotReader:
    """Reads a snapshot part by part, and checks each."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            CorruptSnapshot: when it is not one.
            OSError: when the file cannot be read.
        """
        self._path = path
        self._file: BinaryIO = path.open("rb")
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self.header = self._read_header()
        except BaseException:
            self._file.close()
            raise
        self._total = 0

    def read(self) -> bytes | None:
        """The next part of the dump; None at its end, and then the file is whole.

        Raises:
            CorruptSnapshot: when it is not what was written.
        """
        at = self._file.tell()
        head = self._file.read(_PART.size)
        if len(head) < _PART.size:
            raise CorruptSnapshot(self._path, at, "it ends early")
        length, crc = _PART.unpack(head)
        if length > _MAX_PART:
            raise CorruptSnapshot(self._path, at, f"a part of {length} bytes")
        part = self._file.read(length or _TOTAL.size)
        if zlib.crc32(part) != crc or len(part) != (length or _TOTAL.size):
            raise CorruptSnapshot(self._path, at, "a part does not match its checksum")
        if length:
            self._total += length
            return part
        if _TOTAL.unpack(part)[0] != self._total or self._file.tell() != self.size:
            raise CorruptSnapshot(self._path, at, "it does not end where its end is")
        return None

    @property
    def progress(self) -> float:
        """How much has been read, from 0 to 1."""
        return self._file.tell() / max(1, self.size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_header(self) -> Header:
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            raise CorruptSnapshot(self._path, 0, "it is shorter than a header")
        magic, length, crc = _HEAD.unpack(head)
        body = self._file.read(length) if length <= _MAX_HEADER else b""
        if magic != _MAGIC or len(body) != length or zlib.crc32(body) != crc:
            raise CorruptSnapshot(self._path, 0, "this is not the header of a snapshot")
        try:
            header = msgspec.msgpack.decode(body, type=Header)
        except msgspec.MsgspecError as error:
            raise CorruptSnapshot(
                self._path, _HEAD.size, f"its header is not known to this version: {error}"
            ) from error
        if header.format != FORMAT:
            raise CorruptSnapshot(self._path, _HEAD.size, f"format {header.format}; this version knows {FORMAT}")
        return header


def _encoded(header: Header) -> bytes:
    """The header's bytes: as versions read them that know of no levels, unless it is of one that they must not read."""
    fields = msgspec.structs.asdict(header)  # type: ignore[arg-type] # it is a struct
    if header.level == 1:
        del fields["level"]
    return msgspec.msgpack.encode(fields)


def verify(path: Path) -> Header:
    """Read a whole file; its header.

    Raises:
        CorruptSnapshot: when something of it is wrong.
        OSError: when it cannot be read.
    """
    reader = SnapshotReader(path)
    try:
        while reader.read() is not None:
            pass
    finally:
        reader.close()
    return reader.header


class SnapshotDirectory:
    """The snapshots of one member: one, and for a moment two, until the older one is removed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.incoming = path / "incoming.new"

    def open(self) -> SnapshotFile | None:
        """The newest snapshot, its header checked; what an interrupted write left is removed.

        Raises:
            StartupError: when the directory cannot be used, or the newest snapshot is not one.
        """
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self.path.parent)
            for path in self.path.glob("*.new"):
                path.unlink()
            paths = sorted(path for path in self.path.iterdir() if _NAME.match(path.name))
            if not paths:
                return None
            found = self._file(paths[-1])
            # A process that was killed between rename and fsync left the name in the page cache alone.
            sync_file(found.path)
            sync_directory(self.path)
        except CorruptSnapshot as error:
            raise StartupError(f"{error}; {ADVICE}") from error
        except OSError as error:
            raise StartupError(f"cannot use the snapshots in {self.path}: {error}") from error
        return found

    def install(self) -> SnapshotFile:
        """Give the verified file `incoming` its name.

        Raises:
            OSError: when the disk does not take that.
        """
        reader = SnapshotReader(self.incoming)
        reader.close()
        path = self.path / f"{reader.header.index:020d}.installed"
        self.incoming.replace(path)
        failpoints.hit("install.renamed")
        sync_directory(self.path)
        return SnapshotFile(path, reader.header, reader.size, installed=True)

    def remove_older(self, keep: SnapshotFile) -> None:
        """Remove all snapshots but one.

        Raises:
            OSError: when the disk does not take that.
        """
        for path in sorted(self.path.iterdir()):
            if _NAME.match(path.name) and path != keep.path:
                path.unlink()
                sync_directory(self.path)

    def _file(self, path: Path) -> SnapshotFile:
        reader = SnapshotReader(path)
        reader.close()
        if not path.name.startswith(f"{reader.header.index:020d}."):
            raise CorruptSnapshot(path, 0, f"it calls itself snapshot {reader.header.index}")
        return SnapshotFile(path, reader.header, reader.size, installed=path.suffix == ".installed")
