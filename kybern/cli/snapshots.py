"""Files of `kybern store snapshot save` (and `etcdctl snapshot save`): written whole, checked, looked into.

A file is the state as the store streams it, filled up to blocks of 512 bytes, and its SHA-256. The state begins with a
frame: four bytes of length, and a MessagePack map that describes the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from kybern.cli.errors import CliError

_BLOCK = 512
_DIGEST = 32
_PORTION = 1 << 20
# A head is some dozens of bytes; more is none.
_MOST_HEAD = 4096


class SnapshotInfo(msgspec.Struct, frozen=True):
    """What a file holds. `records` may count changes too, not keys alone; sizes in bytes."""

    file: str
    size: int
    sha256: str
    format: int
    revision: int
    compacted: int
    records: int


class _Head(msgspec.Struct, frozen=True):
    """The parts of the head that are shown; there may be more. Forms of it count one or the other."""

    format: int
    revision: int
    compacted: int
    records: int = 0
    keys: int = 0


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Callable[[bytes], object]]:
    """A function that adds to a new file, which has its name only once it is whole, checked and on disk.

    Raises:
        CliError: when there is such a file, it cannot be written, or what was written is not a snapshot.
    """
    if path.exists():
        raise CliError(f"{path} is there already", "choose another name: a snapshot is never overwritten")
    part = path.with_name(f".{path.name}.part")
    try:
        # It holds all secrets of the cluster.
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
                yield file.write
                file.flush()
                os.fsync(file.fileno())
            verify(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror or error}") from error


def verify(path: Path) -> str:
    """Check a file's length and checksum; the checksum, in hexadecimal.

    Raises:
        CliError: when it cannot be read, is cut, or was changed.
    """
    try:
        size = path.stat().st_size
        if size <= _DIGEST or size % _BLOCK != _DIGEST:
            raise CliError(f"{path} is not a whole snapshot: {size} bytes are not blocks of {_BLOCK} and a checksum")
        digest = hashlib.sha256()
        with path.open("rb") as file:
            left = size - _DIGEST
            while left:
                portion = file.read(min(_PORTION, left))
                if not portion:
                    raise CliError(f"{path} became shorter while it was read")
                digest.update(portion)
                left -= len(portion)
            said = file.read(_DIGEST)
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror or error}") from error
    if said != digest.digest():
        raise CliError(
            f"{path} was changed: its SHA-256 is {digest.hexdigest()[:16]}..., it says {said.hex()[:16]}...",
            "take another copy; this one must not be restored",
        )
    return said.hex()


def inspect(path: Path) -> SnapshotInfo:
    """Check a file and say what it holds.

    Raises:
        CliError: when it cannot be read, is damaged, or is not of this store.
    """
    checksum = verify(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(4), "big")
            if not 0 < length <= _MOST_HEAD:
                raise CliError(f"{path} is whole, but is not of kybern-store", "`etcdctl snapshot status` reads etcd's")
            head = msgspec.msgpack.decode(file.read(length), type=_Head)
        size = path.stat().st_size
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        raise CliError(f"{path} is whole, but is not a snapshot that this version knows: {error}") from error
    records = head.records or head.keys
    return SnapshotInfo(str(path), size, checksum, head.format, head.revision, head.compacted, records)
