"""A directory whose files change all at once.

The layout is Kubernetes': files lie in a directory named after the time, `..data` points to it, and every name that
containers see is a link through `..data`. So renaming one link changes everything.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from node.volumes.interface import VolumeError

DATA = "..data"
_NEW = "..data_tmp"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file's content and its permissions; `uid` and `gid` when it is not root's."""

    data: bytes
    mode: int
    uid: int = -1
    gid: int = -1

    def __repr__(self) -> str:
        return f"FileEntry({len(self.data)} bytes, {self.mode:o})"


def write(root: Path, files: Mapping[str, FileEntry]) -> bool:
    """Make `root` hold exactly these files, by relative path; returns whether anything changed.

    Raises:
        VolumeError: when a path leads out of the directory.
        OSError: when the disk does not take it.
    """
    for name in files:
        _check(name)
    present = current(root)
    if present is not None and _same(present, files):
        _link(root, files)
        return False
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=root))
    fresh.chmod(0o755)
    for name, entry in files.items():
        _write_file(fresh / name, entry)
    pointer = root / _NEW
    pointer.unlink(missing_ok=True)
    pointer.symlink_to(fresh.name)
    pointer.replace(root / DATA)
    _link(root, files)
    _sweep(root, fresh.name)
    return True


def current(root: Path) -> Path | None:
    """The directory that `..data` points to; None before the first write."""
    try:
        target = root / (root / DATA).readlink()
    except OSError:
        return None
    return target if target.is_dir() else None


def _check(name: str) -> None:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or name.startswith(".."):
        raise VolumeError(f"{name!r} is not a path inside the volume")


def _same(present: Path, files: Mapping[str, FileEntry]) -> bool:
    found = {str(p.relative_to(present)) for p in present.rglob("*") if not p.is_dir()}
    if found != {str(PurePosixPath(name)) for name in files}:
        return False
    for name, entry in files.items():
        path = present / name
        if path.stat().st_mode & 0o7777 != entry.mode or path.read_bytes() != entry.data:
            return False
    return True


def _write_file(path: Path, entry: FileEntry) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(entry.data)
        if entry.uid >= 0 or entry.gid >= 0:
            os.fchown(file.fileno(), entry.uid, entry.gid)
        # After the change of owner, which clears some bits; and not subject to the umask.
        os.fchmod(file.fileno(), entry.mode)


def _link(root: Path, files: Mapping[str, FileEntry]) -> None:
    wanted = {PurePosixPath(name).parts[0] for name in files}
    for name in wanted:
        link = root / name
        if not link.is_symlink():
            link.symlink_to(Path(DATA) / name)
    for path in root.iterdir():
        if path.is_symlink() and path.name not in wanted and not path.name.startswith(".."):
            path.unlink()


def _sweep(root: Path, keep: str) -> None:
    for path in root.iterdir():
        if path.name.startswith("..") and path.name not in (DATA, keep) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
