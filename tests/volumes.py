"""A file system that can be frozen: a disk that does not come back from a write. Needs root and loop devices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

_BYTES = 256 << 20
# Thaws when its standard input ends, so also when the test that held it was killed: nothing else ends a process that
# waits for a frozen file system.
_FREEZE = 'fsfreeze -f "$1" && echo frozen && { cat >/dev/null; fsfreeze -u "$1"; }'


def unavailable() -> str:
    """Why there can be none here; empty when there can."""
    if os.geteuid() != 0:
        return "a file system that can be frozen needs root"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices"
    missing = [name for name in ("mkfs.ext4", "fsfreeze", "mount", "umount") if shutil.which(name) is None]
    return f"{', '.join(missing)} is not installed" if missing else ""


def make_volume(path: Path) -> None:
    """Mount an empty ext4 at `path`, which is made; its bytes are in a file beside it.

    Raises:
        OSError: when there can be none here.
    """
    if why := unavailable():
        raise OSError(why)
    image = path.with_name(f"{path.name}.img")
    with image.open("wb") as file:
        file.truncate(_BYTES)
    path.mkdir(mode=0o700)
    _run("mkfs.ext4", "-q", "-m", "0", str(image))
    _run("mount", "-o", "loop", str(image), str(path))
    (path / "lost+found").rmdir()
    path.chmod(0o700)


def remove_volume(path: Path) -> None:
    """Undo `make_volume`."""
    _run("umount", str(path))
    path.with_name(f"{path.name}.img").unlink()


@contextlib.asynccontextmanager
async def frozen(path: Path) -> AsyncIterator[None]:
    """Whoever writes to the volume waits until this ends."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", _FREEZE, "freeze", str(path)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if not await process.stdout.readline():
            raise OSError(f"{path} cannot be frozen")
        yield
    finally:
        process.stdin.close()
        if await process.wait():
            raise OSError(f"{path} cannot be thawed")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
