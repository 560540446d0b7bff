"""The folder of a run that keeps nothing: removed at its end, or by a later run when it was killed before."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "kybern-fault-"
# Locked for as long as the run's process is there, whose number it holds: such numbers are used again, locks are not.
_OWNER = "owner"


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for this process alone, among the temporary ones; first those are removed whose processes are gone."""
    remove_left()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        descriptor = _own(Path(name))
        try:
            yield Path(name)
        finally:
            os.close(descriptor)


def remove_left() -> list[Path]:
    """Remove what earlier runs left that were killed; which folders those were."""
    left = [path for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*") if _is_left(path)]
    for path in left:
        # Another run may be doing the same.
        shutil.rmtree(path, ignore_errors=True)
    return left


def _own(folder: Path) -> int:
    """Make the folder this process's; the descriptor of its lock."""
    new = folder / f".{_OWNER}"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.write(descriptor, b"%d\n" % os.getpid())
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    # It never has its name without the lock.
    new.rename(folder / _OWNER)
    return descriptor


def _is_left(folder: Path) -> bool:
    """Whether the folder's process is gone. One without an owner may just be in the making."""
    try:
        descriptor = os.open(folder / _OWNER, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
