"""Snapshots of one member: taken now and then, loaded at start, sent to followers, installed from a leader.

In this order, so that a crash in between loses nothing: write, fsync, rename, fsync of the directory, and only then is
the log trimmed. A snapshot is made from the machine's `dump` in portions between turns of the loop, which has at least
half of its time for other work; files are written in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from kybern.config.models import StoreConfig
from kybern.daemon import StartupError
from store.raft import failpoints, messages
from store.raft.configuration import Configuration
from store.raft.core import HardenedRaft
from store.raft.datadir import ADVICE
from store.raft.disk import DiskWriter
from store.raft.interface import Loading, StateMachine
from store.raft.journal import Journal
from store.raft.level import unsupported
from store.raft.pacing import paced
from store.raft.snapshots import (
    CorruptSnapshot,
    Header,
    SnapshotDirectory,
    SnapshotFile,
    SnapshotReader,
    SnapshotWriter,
)
from store.raft.transfer import Receiver, Sender

log = logging.getLogger(__name__)

R = TypeVar("R")

# Seconds after which a snapshot that could not be written is tried again.
_RETRY = 30.0
# Seconds that a member that stops takes for a last snapshot at most.
_LAST_SECONDS = 10.0
# Seconds between lines in the log about a snapshot that is being loaded.
_PROGRESS = 2.0


@dataclass(frozen=True, slots=True)
class Position:
    """What goes into a snapshot's header besides the log's index and term."""

    command_index: int
    now_ms: int
    configuration: Configuration


class Owner(Protocol):
    """The node around it."""

    def position(self) -> Position:
        """As of the last entry that was applied."""
        ...

    def restored(self, header: Header) -> None:
        """A snapshot took the place of the state."""
        ...

    def snapshot_failed(self, error: Exception) -> None:
        """This member cannot go on."""
        ...


class Snapshots:
    """All about snapshots of one member; called on the loop."""

    def __init__(self, config: StoreConfig, path: Path, journal: Journal, machine: StateMachine, owner: Owner) -> None:
        self._config = config
        self._directory = SnapshotDirectory(path)
        self._journal = journal
        self._machine = machine
        self._owner = owner
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="raft-snapshot")
        self._newest: SnapshotFile | None = None
        self._task: asyncio.Task[None] | None = None
        self._sender: Sender | None = None
        self._receiver: Receiver | None = None
        self._raft: HardenedRaft | None = None
        self._disk: DiskWriter | None = None
        # Of the log, since the last snapshot.
        self._bytes = 0
        self._entries = 0
        self._not_before = 0.0
        self._stopping = False
        self.taken = 0
        self.seconds = 0.0
        self.failures = 0

    # --- at the start

    async def restore(self) -> Header | None:
        """Load the newest snapshot into the machine, and bring the log into line with it; None without one.

        Raises:
            StartupError: when the snapshot is corrupt or of a level that the machine cannot apply, or log and snapshot
                leave a gap.
        """
        self._newest = await self._run(self._directory.open)
        await self._run(self._reconcile, self._newest)
        if self._newest is None:
            return None
        header, began = self._newest.header, time.monotonic()
        if header.level not in self._machine.levels:
            raise unsupported(self._config, self._machine.levels, header.level, self._newest.path)
        log.info("loading the snapshot up to entry %d (%d bytes)", header.index, self._newest.size)
        try:
            loading = await self._load(self._newest.path, progress=True)
            loading.finish()
        except CorruptSnapshot as error:
            raise StartupError(f"{error}; {ADVICE}") from error
        except Exception as error:
            raise StartupError(f"{self._newest.path} cannot be loaded: {error}; {ADVICE}") from error
        log.info("loaded the snapshot up to entry %d in %.1f s", header.index, time.monotonic() - began)
        return header

    def join(self, raft: HardenedRaft, disk: DiskWriter, send: Callable[[str, messages.Message], bool]) -> None:
        """Take part, after `restore`."""
        self._raft, self._disk = raft, disk
        patience = self._config.election_timeout_max
        self._sender = Sender(raft, send, time.monotonic, patience)
        self._receiver = Receiver(raft, self._directory, self._executor, send, self._install, self._config.cluster_name)

    async def stop(self, *, last: bool = False) -> None:
        """End everything; what was not finished is of no use and removed at the next start.

        `last`: take a snapshot first, or finish the one that is being taken, when it would take long to apply the log
        since the newest one again at the next start.
        """
        if self._sender is not None and self._receiver is not None:
            await self._sender.stop()
            await self._receiver.stop()
        if last and self._raft is not None:
            self._stopping = True
            if self._task is None and self._worth_it() and not self._raft.paused:
                self._begin(self._raft)
            if self._task is not None:
                await asyncio.wait([self._task], timeout=_LAST_SECONDS)
        await self._settle()
        await asyncio.to_thread(self._executor.shutdown)

    # --- while it runs

    def applied(self, size: int) -> None:
        """An entry of so many bytes was applied."""
        self._bytes += size
        self._entries += 1

    def turn(self) -> None:
        """Begin what is due."""
        if self._sender is not None:
            self._sender.advance(self._newest)
        if self._raft is not None and self._task is None and self._due():
            self._begin(self._raft)

    def on_part(self, peer: str, message: messages.SnapshotPart) -> None:
        """A part of a leader's snapshot."""
        if self._receiver is not None:
            self._receiver.part(peer, message)

    def on_reply(self, peer: str, message: messages.SnapshotReply) -> None:
        """A follower's answer to one."""
        if self._sender is not None:
            self._sender.reply(peer, message)

    def metrics(self) -> dict[str, float]:
        """Counters and gauges."""
        found = {
            "snapshots_taken": float(self.taken),
            "snapshot_seconds": self.seconds,
            "snapshot_failures": float(self.failures),
            "snapshot_index": float(self._newest.header.index) if self._newest else 0.0,
            "snapshot_bytes": float(self._newest.size) if self._newest else 0.0,
        }
        if self._sender is not None and self._receiver is not None:
            found["snapshots_sent"] = float(self._sender.finished)
            found["snapshot_bytes_sent"] = float(self._sender.bytes_sent)
            found["snapshots_installed"] = float(self._receiver.installed)
        return found

    # --- taking one

    def _due(self) -> bool:
        most = max(self._config.snapshot_log_bytes, self._newest.size if self._newest else 0)
        grown = self._bytes >= most or self._entries >= self._config.snapshot_entries
        return grown and time.monotonic() >= self._not_before and self._raft is not None and not self._raft.paused

    def _worth_it(self) -> bool:
        """Whether to read a new snapshot takes less than to read the newest one and apply what came after it."""
        size = self._newest.size if self._newest else 0
        return self._bytes >= max(self._config.snapshot_log_bytes // 4, size // 8)

    def _begin(self, raft: HardenedRaft) -> None:
        # Here, between two entries: machine, index and position are of one moment.
        position = self._owner.position()
        index = raft.applied_index
        header = Header(
            self._config.cluster_name,
            index,
            self._journal.term_at(index),
            position.command_index,
            position.now_ms,
            position.configuration,
            level=self._machine.level,
        )
        self._bytes = self._entries = 0
        frames = self._machine.dump()
        self._task = asyncio.get_running_loop().create_task(self._take(header, frames), name="raft-snapshot")

    async def _take(self, header: Header, frames: Iterator[bytes]) -> None:
        began = time.monotonic()
        writer: SnapshotWriter | None = None
        try:
            writer = await self._run(SnapshotWriter, self._directory.path, header)
            # Nobody needs the loop's time any more when the member stops.
            async for part in paced(frames, lambda: self._stopping):
                await self._run(writer.write, part)
            self._newest = await self._run(writer.finish)
            self.taken += 1
            self.seconds += time.monotonic() - began
            log.info(
                "took a snapshot up to entry %d (%d bytes) in %.1f s",
                header.index,
                self._newest.size,
                time.monotonic() - began,
            )
            await self._trim(self._newest)
        except OSError as error:
            # Nothing is lost by it: the log has everything.
            self.failures += 1
            self._not_before = time.monotonic() + _RETRY
            self._entries = self._config.snapshot_entries
            log.warning("no snapshot up to entry %d, the log stays and it is tried again: %s", header.index, error)
        except Exception:
            self.failures += 1
            self._not_before = time.monotonic() + _RETRY
            log.exception("no snapshot up to entry %d, the log stays", header.index)
        finally:
            close = getattr(frames, "close", None)
            if close is not None:
                close()
            self._task = None
            if writer is not None and (self._newest is None or self._newest.header is not header):
                self._executor.submit(writer.abandon)

    async def _trim(self, newest: SnapshotFile) -> None:
        failpoints.hit("trim.begin")
        self._journal.trim(self._keep_after(newest.header.index))
        await self._run(self._journal.remove)
        await self._run(self._directory.remove_older, newest)
        failpoints.hit("trim.done")

    def _keep_after(self, index: int) -> int:
        """The entry after which the log stays: some are kept for members that are a little behind."""
        journal = self._journal
        size = journal.size_after(index)
        keep = self._config.snapshot_keep_entries
        while keep and journal.size_after(index - keep) - size > self._config.snapshot_log_bytes // 2:
            keep //= 2
        lowest = self._sender.lowest() if self._sender is not None else None
        return min(index - keep, index if lowest is None else lowest)

    async def _settle(self) -> None:
        """No snapshot is being taken when this returns."""
        task = self._task
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        # What the task had given to the thread goes on without it.
        await self._run(lambda: None)

    # --- a leader's

    async def _install(self, header: Header) -> None:
        """Put a verified file in the place of log and state."""
        raft, disk, journal = self._raft, self._disk, self._journal
        assert raft is not None  # noqa: S101 - joined, or there would be no receiver
        assert disk is not None  # noqa: S101
        if header.level not in self._machine.levels:
            where = f"the leader's snapshot up to entry {header.index}, for {self._config.data_dir},"
            self._owner.snapshot_failed(unsupported(self._config, self._machine.levels, header.level, where))
            raise CorruptSnapshot(self._directory.incoming, 0, f"level {header.level}, which this version cannot apply")
        try:
            loading = await self._load(self._directory.incoming)
        except (OSError, CorruptSnapshot):
            raise
        except Exception as error:
            # Its bytes are right, so it was written by another version.
            self._owner.snapshot_failed(StartupError(f"the leader's snapshot cannot be loaded: {error}"))
            raise CorruptSnapshot(self._directory.incoming, 0, str(error)) from error
        await self._settle()
        if raft.leads:
            log.info("this member leads by now, so it has all that the snapshot up to entry %d has", header.index)
            return
        # Nor shall it begin to, by votes that are on their way: its log may end earlier in a moment.
        raft.abstain()
        raft.paused = True
        whole = True
        try:
            await disk.hold()
            if raft.applied_index >= header.index or self._overtaken(header):
                log.info("the log has overtaken the snapshot up to entry %d", header.index)
                return
            try:
                self._newest = await self._run(self._directory.install)
            except OSError as error:
                # Whether it has its name is not known, and the log may not go on without knowing.
                self._owner.snapshot_failed(error)
                raise
            # All in one go: nobody sees the new state with the old log.
            whole = False
            journal.reset(header.index, header.term)
            raft.restored(header.index, header.now_ms)
            raft.adopt(header.index, header.configuration)
            loading.finish()
            self._bytes = self._entries = 0
            self._owner.restored(header)
            failpoints.hit("install.loaded")
            try:
                await self._run(journal.remove)
                await self._run(self._directory.remove_older, self._newest)
            except OSError as error:
                self._owner.snapshot_failed(error)
                raise
            whole = True
            failpoints.hit("install.done")
            log.info("log and state are those of the leader's snapshot up to entry %d", header.index)
        finally:
            raft.paused = False
            # What is left of the old log must not stand before a new segment, also when this member stops meanwhile.
            if whole:
                disk.release()

    def _overtaken(self, header: Header) -> bool:
        """Whether the disk has the log up to where a leader's snapshot ends, although not all of it is applied.

        That comes about while the file is loaded and another member begins to lead: what comes after it in the log may
        be acknowledged by then, and must not be forgotten.
        """
        journal = self._journal
        return (
            journal.base_index <= header.index <= journal.durable_index and journal.term_at(header.index) == header.term
        )

    async def _load(self, path: Path, *, progress: bool = False) -> Loading:
        """Feed a file's dump to the machine, which is not changed yet."""
        reader = await self._run(SnapshotReader, path)
        try:
            loading = self._machine.load()
            told = time.monotonic()
            while (part := await self._run(reader.read)) is not None:
                loading.feed(part)
                if progress and time.monotonic() - told > _PROGRESS:
                    told = time.monotonic()
                    log.info("%d %% of the snapshot is loaded", int(reader.progress * 100))
        finally:
            reader.close()
        return loading

    def _reconcile(self, newest: SnapshotFile | None) -> None:
        """Before anything runs: the log must go on where the snapshot ends."""
        journal = self._journal
        if newest is None:
            if journal.base_term:
                raise StartupError(
                    f"the log begins after entry {journal.base_index}, and there is no snapshot of what was before: "
                    f"{self._directory.path} is empty; {ADVICE}"
                )
            return
        index, term = newest.header.index, newest.header.term
        if index < journal.base_index:
            raise StartupError(
                f"the log begins after entry {journal.base_index}, but {newest.path} ends with entry {index}; {ADVICE}"
            )
        if index <= journal.last_index and journal.term_at(index) == term:
            return
        if not newest.installed:
            raise StartupError(
                f"the log ends with entry {journal.last_index} or differs there, but {newest.path} was made of entry "
                f"{index} of term {term}; {ADVICE}"
            )
        # Installing it was interrupted before the old log was gone, or nothing has been logged since a restore.
        if journal.last_index > journal.base_index:
            log.warning("the log up to entry %d gives way to the snapshot up to %d", journal.last_index, index)
        try:
            journal.reset(index, term)
            journal.remove()
        except OSError as error:
            raise StartupError(f"cannot remove the old log: {error}", retry=True) from error

    async def _run(self, call: Callable[..., R], *arguments: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *arguments)
