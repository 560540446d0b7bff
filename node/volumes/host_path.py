"""hostPath volumes: what must be there, and what is made."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from node.volumes.interface import VolumeError

_KINDS: Mapping[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


def prepare(path: Path, kind: str) -> Path:
    """Check a path of the node against the type that the volume names, and make it where the type says so.

    Raises:
        VolumeError: when something else is there, or nothing.
    """
    if not path.is_absolute() or ".." in path.parts:
        raise VolumeError(f"hostPath {str(path)!r} must be absolute and must not contain '..'")
    if kind == "":
        return path
    if kind == "DirectoryOrCreate":
        if not path.exists():
            path.mkdir(parents=True)
            path.chmod(0o755)
        kind = "Directory"
    elif kind == "FileOrCreate":
        if not path.exists():
            path.touch(0o644)
        kind = "File"
    if kind not in _KINDS:
        raise VolumeError(f"hostPath type {kind!r} is not known")
    fits, name = _KINDS[kind]
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise VolumeError(f"hostPath type check failed: {path} is not {name}: {error.strerror}") from error
    if not fits(mode):
        raise VolumeError(f"hostPath type check failed: {path} is not {name}")
    return path
