"""subPath: a part of a volume, which must not lead out of it."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from node.volumes.interface import VolumeError


def resolve(volume: Path, sub_path: str) -> Path:
    """The path of the host behind `sub_path` in a volume; directories that are missing are made.

    Links are followed as long as they stay inside the volume.

    Raises:
        VolumeError: when it leads out of the volume.
    """
    relative = PurePosixPath(sub_path)
    if relative.is_absolute() or ".." in relative.parts:
        raise VolumeError(f"subPath {sub_path!r} must be relative and must not contain '..'")
    root = volume.resolve()
    path = root
    for part in relative.parts:
        path = (path / part).resolve()
        if path != root and root not in path.parents:
            raise VolumeError(f"subPath {sub_path!r} leads out of the volume")
        if not os.path.lexists(path):
            path.mkdir()
            # Like the volume itself, so that a pod that may write there may write here.
            path.chmod(root.stat().st_mode & 0o7777)
    return path
