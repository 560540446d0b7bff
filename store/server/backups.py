"""Copies of the state that a member writes by itself, now and then, for the day on which there is no quorum any more.

Every member writes its own, of the state that it has: a host that is lost takes its own copies with it and no others,
nobody has to agree on whose turn it is, and a copy costs each member what a snapshot of its log costs it anyway. A
member that cannot be sure that its state is current, because no quorum says so, makes no copy of it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kybern import snapshots
from kybern.backoff import Backoff
from kybern.clock import Clock
from kybern.snapshots import Backup, BadSnapshot, Seal
from store.mvcc.dump import dump
from store.raft import failpoints
from store.raft.interface import RaftUnavailable
from store.raft.pacing import paced
from store.server.core import Core

log = logging.getLogger(__name__)

R = TypeVar("R")

_PREFIX = "kybern_store_backup"
# Seconds after a failure, then twice as long each time.
_RETRY = 15.0
_LONGEST_RETRY = 1800.0
# What stays free for the log, which may share the disk: a full one stops the member.
_SPARE_BYTES = 64 << 20
_SYNC_BYTES = 8 << 20
# Seconds after which a copy is given up: while one is made, compactions take nothing out.
_LONGEST = 600.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Where copies are written, how often (seconds), and how many of this member's stay."""

    folder: Path
    member: str
    interval: float
    keep: int


@dataclass(slots=True)
class Figures:
    """What is measured. `succeeded`: when the last copy was begun, in seconds since the epoch; 0 for never."""

    succeeded: float = 0.0
    revision: int = 0
    size: int = 0
    seconds: float = 0.0
    taken: int = 0
    failures: int = 0
    # Whether the last attempt failed.
    failing: bool = False


class BackupCollector(Collector):
    """How the member's copies of its state fare, when it writes any by itself."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """All figures."""
        figures = self._figures
        gauges = {
            "success_timestamp_seconds": ("When the last copy was begun that succeeded", figures.succeeded),
            "revision": ("The revision that it has", figures.revision),
            "bytes": ("How large it is", figures.size),
            "seconds": ("How long it took", figures.seconds),
            "failing": ("Whether the last attempt failed", float(figures.failing)),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"{_PREFIX}_last_{name}", text, value)
        yield CounterMetricFamily(f"{_PREFIX}s", "Copies that succeeded", figures.taken)
        yield CounterMetricFamily(f"{_PREFIX}_failures", "Attempts that failed", figures.failures)


class Backups:
    """Writes and prunes one member's copies; `run` goes on for as long as the member runs and never raises."""

    def __init__(self, core: Core, clock: Clock, schedule: Schedule) -> None:
        self._core = core
        self._clock = clock
        self._schedule = schedule
        self._backoff = Backoff(base=min(_RETRY, schedule.interval), cap=min(_LONGEST_RETRY, schedule.interval))
        # One thread, and no one else's: a folder on another host may hang.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="store-backup")
        # Counts how often a leader's snapshot took the place of the state.
        self._replaced = 0
        core.machine.on_loaded(self._on_loaded)
        self.figures = Figures()

    async def run(self) -> None:
        """Write a copy whenever one is due."""
        try:
            wait = await self._run(self._first_wait)
            while True:
                await asyncio.sleep(wait)
                wait = self._schedule.interval if await self.attempt() else self._backoff.next()
        finally:
            self._executor.shutdown(wait=False)

    async def attempt(self) -> bool:
        """Write a copy and remove old ones; whether that worked. What failed is logged and counted."""
        began = time.monotonic()
        try:
            found = await self._take()
        except asyncio.CancelledError:
            raise
        except RaftUnavailable:
            self._failed("no quorum says that this member's state is current")
        except TimeoutError:
            self._failed(f"it took longer than {_LONGEST:.0f} s")
        except OSError as error:
            self._failed(error.strerror or str(error))
        except Exception as error:
            self._failed(str(error) or type(error).__name__)
        else:
            self._succeeded(found, time.monotonic() - began)
            return True
        return False

    # --- within

    def _first_wait(self) -> float:
        """The schedule goes on where the member's earlier life left it."""
        schedule = self._schedule
        try:
            known = snapshots.backups(schedule.folder, schedule.member)
        except OSError:
            return 0.0
        if not known:
            return 0.0
        last = known[-1]
        self.figures.succeeded, self.figures.revision, self.figures.size = (
            last.time.timestamp(),
            last.revision,
            last.size,
        )
        return first_wait(self._clock.now(), last.time, schedule.interval)

    async def _take(self) -> Backup:
        await self._core.raft.read_barrier()
        # From here to the dump's beginning nothing is waited for: name and state are of one moment.
        keys, when, schedule = self._core.machine.keys, self._clock.now(), self._schedule
        revision, need, state = keys.revision, keys.footprint + _SPARE_BYTES, self._replaced
        path = schedule.folder / snapshots.backup_name(schedule.member, when, revision)
        with closing(dump(self._core.machine)) as portions:
            async with asyncio.timeout(_LONGEST):
                await self._run(self._prepare, path, need)
                size = await self._write(path, self._of(state, portions))
        await self._run(self._prune, path)
        return Backup(str(path), schedule.member, when, revision, size)

    async def _write(self, path: Path, portions: Iterator[bytes]) -> int:
        """Write a file, whole or not at all; its size."""
        part = path.with_name(f".{path.name}.part")
        file = await self._run(_create, part)
        try:
            seal, unsynced = Seal(), 0
            async for portion in paced(portions):
                unsynced += len(portion)
                await self._run(_add, file, seal, portion, unsynced >= _SYNC_BYTES)
                unsynced %= _SYNC_BYTES
            return await self._run(_finish, file, seal, part, path)
        except Exception:
            await self._run(_discard, file, part)
            raise
        except BaseException:
            # Given up: the thread may be busy yet, and is not waited for.
            self._executor.submit(_discard, file, part)
            raise

    async def _run(self, call: Callable[..., R], *arguments: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *arguments)

    def _on_loaded(self) -> None:
        self._replaced += 1

    def _of(self, state: int, portions: Iterator[bytes]) -> Iterator[bytes]:
        """The portions, for as long as they are of the state that was there when `state` replacements had been."""
        for portion in portions:
            if self._replaced != state:
                raise RuntimeError("a leader's snapshot took the place of the state meanwhile")
            yield portion

    def _prepare(self, path: Path, need: int) -> None:
        """Make room, and see that there is."""
        folder = path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in folder.iterdir():
            if left.name.startswith(f".store-{self._schedule.member}-") and left.name.endswith(".snapshot.part"):
                left.unlink()
        found = os.statvfs(folder)
        free = found.f_bavail * found.f_frsize
        if free < need:
            raise OSError(errno.ENOSPC, f"{folder} has {free >> 20} MiB left, and up to {need >> 20} MiB are needed")

    def _prune(self, newest: Path) -> None:
        schedule = self._schedule
        known = snapshots.backups(schedule.folder, schedule.member)
        # The one just written stays, also when the clock has gone back since others were.
        old = [Path(backup.file) for backup in known if Path(backup.file) != newest]
        for path in old[: max(0, len(old) + 1 - schedule.keep)]:
            path.unlink()
            log.info("removed the copy %s", path)
        snapshots.sync_folder(schedule.folder)

    def _succeeded(self, found: Backup, seconds: float) -> None:
        self._backoff.reset()
        figures = self.figures
        figures.succeeded, figures.revision, figures.size = found.time.timestamp(), found.revision, found.size
        figures.seconds, figures.taken, figures.failing = seconds, figures.taken + 1, False
        log.info("wrote the copy %s (%d bytes) in %.1f s", found.file, found.size, seconds)

    def _failed(self, reason: str) -> None:
        self.figures.failures += 1
        self.figures.failing = True
        log.error("no copy of the state could be written into %s: %s", self._schedule.folder, reason)


def first_wait(now: datetime, last: datetime, interval: float) -> float:
    """Seconds until a copy is due, when the last one was begun at `last`, which a wrong clock may have put anywhere."""
    return min(max(0.0, interval - (now - last).total_seconds()), interval)


def _create(path: Path) -> BinaryIO:
    # It holds all secrets of the cluster.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    return open(descriptor, "wb")  # noqa: PTH123 - a descriptor has no path; `_take` closes it


def _discard(file: BinaryIO, part: Path) -> None:
    """Nothing of an unfinished file stays."""
    with suppress(OSError, ValueError):
        file.close()
    part.unlink(missing_ok=True)


def _add(file: BinaryIO, seal: Seal, portion: bytes, sync: bool) -> None:
    seal.add(portion)
    file.write(portion)
    failpoints.hit("backup.partial")
    if sync:
        # The log's fdatasync must not wait behind all of it.
        file.flush()
        os.fdatasync(file.fileno())


def _finish(file: BinaryIO, seal: Seal, part: Path, path: Path) -> int:
    """Make it durable, read it back, and give it its name; its size."""
    file.write(seal.end())
    file.flush()
    os.fsync(file.fileno())
    size = file.tell()
    file.close()
    failpoints.hit("backup.written")
    try:
        snapshots.verify(part)
    except BadSnapshot as error:
        raise OSError(errno.EIO, f"what was written is not what is read: {error}") from error
    part.replace(path)
    snapshots.sync_folder(path.parent)
    failpoints.hit("backup.done")
    return size
