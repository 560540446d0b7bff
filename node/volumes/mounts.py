"""Mounting and unmounting with mount(2): no process is started for it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from node.volumes.interface import VolumeError

_MS_NOSUID = 2
_MS_NODEV = 4
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8


class LinuxMounter:
    """Implements `Mounter` on the mount namespace of this process."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def mount_tmpfs(self, path: Path, size_bytes: int | None, mode: int) -> None:
        """As `Mounter.mount_tmpfs`."""
        if path in mount_points():
            return
        options = f"mode={mode:o}" + (f",size={size_bytes}" if size_bytes is not None else "")
        arguments = (b"tmpfs", os.fsencode(path), b"tmpfs", _MS_NOSUID | _MS_NODEV, options.encode())
        if self._libc.mount(*arguments) != 0:
            raise VolumeError(f"cannot mount a memory file system on {path}: {os.strerror(ctypes.get_errno())}")

    def unmount_below(self, root: Path) -> None:
        """As `Mounter.unmount_below`; the deepest first."""
        below = [p for p in mount_points() if p == root or root in p.parents]
        for path in sorted(below, key=lambda p: len(p.parts), reverse=True):
            if self._libc.umount2(os.fsencode(path), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
                raise VolumeError(f"cannot unmount {path}: {os.strerror(ctypes.get_errno())}")


def mount_points() -> list[Path]:
    """Where something is mounted, in the order of mounting."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return [Path(_unescape(line.split(" ")[4])) for line in lines]


def _unescape(text: str) -> str:
    for code, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        text = text.replace(code, character)
    return text
