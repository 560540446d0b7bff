"""Files that hold a copy of the store's state: their form, and whether one is whole.

A file is the state as `Maintenance.Snapshot` streams it, filled up with zeros to blocks of 512 bytes, and the SHA-256
of all that; etcd's tools take a file of that shape for a whole one. The state begins with a frame: four bytes of
length, and a MessagePack map that describes the rest. `kybern store snapshot save`, `etcdctl snapshot save` and the
members' own schedule write such files.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

BLOCK = 512
DIGEST = 32

_PORTION = 1 << 20
# A head is some dozens of bytes; more is none.
_MOST_HEAD = 4096
_TIME = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"^store-(?P<member>.+)-(?P<time>\d{8}T\d{6}Z)-(?P<revision>\d+)\.snapshot$")


class BadSnapshot(Exception):  # noqa: N818 - said of the file
    """A file cannot be used as a snapshot. `hint` says what to do, when there is something to say."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Head(msgspec.Struct, frozen=True):
    """What the state says of itself. `keys`: how many exist; `compacted`: the oldest revision that can be read.

    `level`: of the group that it was made of; versions that can apply it restore it.
    """

    format: int
    revision: int
    compacted: int
    keys: int
    level: int = 1


class Seal:
    """Adds up what is written to a file, and makes its end."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._size = 0

    def add(self, portion: bytes) -> None:
        """Take the next bytes of the state into account."""
        self._digest.update(portion)
        self._size += len(portion)

    def end(self) -> bytes:
        """What is written after the state: zeros, and the checksum."""
        fill = bytes(-self._size % BLOCK)
        self._digest.update(fill)
        return fill + self._digest.digest()


class Backup(msgspec.Struct, frozen=True):
    """A file of a member's schedule. `time`: when it was begun (UTC); `size` in bytes."""

    file: str
    member: str
    time: datetime
    revision: int
    size: int


def verify(path: Path) -> str:
    """Check a file's length and checksum; the checksum, in hexadecimal.

    Raises:
        BadSnapshot: when it cannot be read, is cut, or was changed.
    """
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise BadSnapshot(f"{path} is a folder; name a file in it")
        if size <= DIGEST or size % BLOCK != DIGEST:
            raise BadSnapshot(
                f"{path} is not a whole snapshot: {size} bytes are not blocks of {BLOCK} and a checksum",
                "take another copy: it was cut, or is not of `snapshot save`",
            )
        with path.open("rb") as file:
            left = size - DIGEST
            while left:
                portion = file.read(min(_PORTION, left))
                if not portion:
                    raise BadSnapshot(f"{path} became shorter while it was read")
                digest.update(portion)
                left -= len(portion)
            said = file.read(DIGEST)
    except OSError as error:
        raise BadSnapshot(f"cannot read {path}: {error.strerror or error}") from error
    if said != digest.digest():
        raise BadSnapshot(
            f"{path} was changed: its SHA-256 is {digest.hexdigest()[:16]}..., it says {said.hex()[:16]}...",
            "take another copy; this one must not be restored",
        )
    return said.hex()


def portions(path: Path) -> Iterator[bytes]:
    """The bytes of a file in portions, fill and checksum included.

    Raises:
        BadSnapshot: when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            while portion := file.read(_PORTION):
                yield portion
    except OSError as error:
        raise BadSnapshot(f"cannot read {path}: {error.strerror or error}") from error


def read_head(path: Path) -> Head:
    """What a file says that it holds; its checksum is not looked at.

    Raises:
        BadSnapshot: when it cannot be read, or is not of this store.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(4), "big")
            if not 0 < length <= _MOST_HEAD:
                raise BadSnapshot(f"{path} is not of kybern-store", "`etcdctl snapshot status` reads etcd's")
            return msgspec.msgpack.decode(file.read(length), type=Head)
    except OSError as error:
        raise BadSnapshot(f"cannot read {path}: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        raise BadSnapshot(f"{path} is not a snapshot that this version knows: {error}") from error


def backup_name(member: str, time: datetime, revision: int) -> str:
    """The name of a file of a member's schedule; names sort by time."""
    return f"store-{member}-{time.astimezone(UTC).strftime(_TIME)}-{revision}.snapshot"


def backups(folder: Path, member: str = "") -> list[Backup]:
    """The files of schedules in a folder (of one member, when named), the oldest first.

    Raises:
        OSError: when the folder cannot be read.
    """
    return sorted(_named(folder.iterdir(), member), key=lambda backup: (backup.time, backup.revision, backup.file))


def _named(paths: Iterable[Path], member: str) -> Iterator[Backup]:
    for path in paths:
        match = _NAME.match(path.name)
        if match is None or member not in ("", match["member"]):
            continue
        try:
            time = datetime.strptime(match["time"], _TIME).replace(tzinfo=UTC)
            size = path.stat().st_size
        except (ValueError, FileNotFoundError):
            # No time that there is, or removed since the folder was read: none of the schedule's any more.
            continue
        yield Backup(str(path), match["member"], time, int(match["revision"]), size)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable.

    Raises:
        OSError: when the disk does not take that.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
