"""Places where a test makes a member fail, named by what has just been done there: `KYBERN_FAILPOINTS` names which.

    KYBERN_FAILPOINTS="snapshot.renamed=exit;append.synced=exit@40;append.written=sleep:0.2%0.1"

Each is NAME=ACTION, with @N: at the Nth time alone (counted from 1), or with %P: with probability P each time. Actions:

    exit            the process ends at once, as by SIGKILL
    raise           OSError(EIO): the disk is broken
    full            OSError(ENOSPC): the disk is full
    sleep:SECONDS   the calling thread waits: a slow disk

A member says on stderr which fail point acts, `fail point NAME: ACTION`, so that a test can wait for it and count them.
Without the variable a fail point costs one comparison. It is read when a member starts (`from_environment`).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kybern.daemon import StartupError

log = logging.getLogger(__name__)

VARIABLE = "KYBERN_FAILPOINTS"
# Exit status of a process that a fail point ended.
EXIT_STATUS = 99

NAMES = (
    # A batch of log entries: nothing written, half of it, all of it, and fdatasync has returned.
    "append.begin",
    "append.partial",
    "append.written",
    "append.synced",
    # A new segment's file: it exists, its header is written, it is durable with its name. Zeros are written ahead.
    "segment.created",
    "segment.written",
    "segment.synced",
    "segment.zeroed",
    # Term and vote.
    "vote.written",
    "vote.synced",
    "vote.renamed",
    "vote.done",
    # A committed entry on its way into the state machine (on the loop).
    "apply.begin",
    "apply.done",
    # A snapshot of this member's own state.
    "snapshot.begin",
    "snapshot.partial",
    "snapshot.written",
    "snapshot.synced",
    "snapshot.renamed",
    "snapshot.done",
    # Log segments and snapshots that are no longer needed: before the first, after each one, the directory is synced.
    "trim.begin",
    "trim.unlinked",
    "trim.done",
    # A leader's snapshot.
    "install.begin",
    "install.partial",
    "install.synced",
    "install.verified",
    "install.renamed",
    "install.loaded",
    "install.done",
    # A data directory that is made from a file: it is marked as unfinished, everything is written, the mark is gone.
    "restore.marked",
    "restore.written",
    "restore.unmarked",
    # Recovery from a lost quorum: what was is kept aside, and then a snapshot is written in its place.
    "recover.begin",
    "recover.kept",
    # A copy that a member writes by its schedule: a part of it is written, it is durable, it has its name.
    "backup.partial",
    "backup.written",
    "backup.done",
)


@dataclass(slots=True)
class _Point:
    action: str
    seconds: float
    nth: int
    chance: float
    hits: int = 0


_active: dict[str, _Point] = {}


def armed() -> bool:
    """Whether any fail point is set."""
    return bool(_active)


def hit(name: str) -> None:
    """Fail here if a test asked for it.

    Raises:
        OSError: when the action is one that raises.
    """
    if not _active:
        return
    point = _active.get(name)
    if point is None:
        return
    point.hits += 1
    if point.nth and point.hits != point.nth:
        return
    if point.chance < 1 and random.random() >= point.chance:  # noqa: S311 - not for secrets
        return
    # By the system call, since the process may end next.
    os.write(2, f"fail point {name}: {point.action}\n".encode())
    match point.action:
        case "exit":
            os._exit(EXIT_STATUS)
        case "raise":
            raise OSError(errno.EIO, f"fail point {name}")
        case "full":
            raise OSError(errno.ENOSPC, f"fail point {name}")
        case _:
            time.sleep(point.seconds)


def from_environment(environment: Mapping[str, str]) -> None:
    """Set the fail points that the environment names; without any, those that are set stay.

    Raises:
        StartupError: when the variable is not understood.
    """
    text = environment.get(VARIABLE)
    if not text:
        return
    try:
        points = _parse(text)
    except ValueError as error:
        raise StartupError(f"{VARIABLE} is not understood: {error}") from error
    log.warning("%s is set: this member is going to fail on purpose (%s)", VARIABLE, text)
    _active.clear()
    _active.update(points)


@contextlib.contextmanager
def enabled(text: str) -> Iterator[None]:
    """Set fail points for the duration of a test in this process.

    Raises:
        ValueError: when the text is not understood.
    """
    before = dict(_active)
    _active.clear()
    _active.update(_parse(text))
    try:
        yield
    finally:
        _active.clear()
        _active.update(before)


def _parse(text: str) -> dict[str, _Point]:
    points: dict[str, _Point] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, separator, rest = part.partition("=")
        if not separator or name not in NAMES:
            raise ValueError(f"{part!r} names no fail point (there are {', '.join(NAMES)})")
        nth, chance = 0, 1.0
        if "@" in rest:
            rest, _, number = rest.partition("@")
            nth = int(number)
        elif "%" in rest:
            rest, _, number = rest.partition("%")
            chance = float(number)
        action, _, argument = rest.partition(":")
        if action not in ("exit", "raise", "full", "sleep"):
            raise ValueError(f"{part!r} has no action that is known")
        points[name] = _Point(action, float(argument) if action == "sleep" else 0.0, nth, chance)
    return points
