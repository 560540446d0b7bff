"""Files of `kybern store snapshot save` (and `etcdctl snapshot save`): written whole, checked, looked into."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from kybern import snapshots
from kybern.cli.errors import CliError
from kybern.snapshots import Backup, BadSnapshot


class SnapshotInfo(msgspec.Struct, frozen=True):
    """What a file holds; `size` in bytes."""

    file: str
    size: int
    sha256: str
    format: int
    revision: int
    compacted: int
    keys: int
    level: int


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
        snapshots.sync_folder(path.parent)
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror or error}") from error


def verify(path: Path) -> str:
    """Check a file's length and checksum; the checksum, in hexadecimal.

    Raises:
        CliError: when it cannot be read, is cut, or was changed.
    """
    with _explained():
        return snapshots.verify(path)


def inspect(path: Path) -> SnapshotInfo:
    """Check a file and say what it holds.

    Raises:
        CliError: when it cannot be read, is damaged, or is not of this store.
    """
    checksum = verify(path)
    with _explained():
        head = snapshots.read_head(path)
    size = path.stat().st_size
    return SnapshotInfo(str(path), size, checksum, head.format, head.revision, head.compacted, head.keys, head.level)


def scheduled(folder: Path) -> list[Backup]:
    """The files of members' schedules in a folder, the oldest first.

    Raises:
        CliError: when it cannot be read.
    """
    try:
        return snapshots.backups(folder)
    except OSError as error:
        raise CliError(f"cannot read {folder}: {error.strerror or error}") from error


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BadSnapshot as error:
        raise CliError(str(error), error.hint) from error
