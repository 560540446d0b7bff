"""Runs the journal's writes in a thread of their own, one at a time, and says when they are durable.

Room and descriptors are waited for: the batch is tried again until there are some. Any other error is the end of this
member, because after a failed fsync nobody knows what the disk holds. A disk that does not come back from a write at
all (a network volume that hangs, a file system that is frozen) is noticed by the loop, which goes on.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from store.raft.journal import Batch, Journal

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
# No room, or no descriptor left to begin a segment with: clients' connections may have taken them all.
_FOR_NOW = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)


class DiskWriter:
    """Writes what the journal wants written. All but the write itself happens on the loop."""

    def __init__(
        self,
        journal: Journal,
        *,
        patience: float,
        on_durable: Callable[[], None],
        on_unable: Callable[[], None],
        on_lost: Callable[[OSError], None],
    ) -> None:
        """`on_unable`: the disk is full, or a write has taken longer than `patience` seconds; see `trouble`."""
        self._journal = journal
        self._patience = patience
        self._on_durable = on_durable
        self._on_unable = on_unable
        self._on_lost = on_lost
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        # Set while no batch is being written.
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._held = False
        # False while the disk is full or lost: the member must not lead or acknowledge.
        self.healthy = True
        # True while a write does not come back: whatever else is asked of the disk would not either.
        self.stalled = False
        # Whether a write is with the thread, and for how many seconds the loop has run since.
        self._in_thread = False
        self._waited = 0.0
        self.writes = 0
        self.seconds = 0.0
        self.failures = 0
        self.stalls = 0

    def metrics(self) -> dict[str, float]:
        """Counters by name."""
        return {
            "fsyncs": self.writes,
            "fsync_seconds": self.seconds,
            "disk_failures": self.failures,
            "disk_stalls": self.stalls,
        }

    @property
    def writing(self) -> bool:
        """Whether a batch is being written."""
        return not self._idle.is_set()

    @property
    def trouble(self) -> str:
        """Why the disk takes nothing now; empty when it does."""
        if self.stalled:
            return "the disk does not answer"
        return "" if self.healthy else "the disk takes no writes"

    def waited(self, seconds: float) -> None:
        """The loop has run for so many seconds more.

        It is told instead of looking at a clock, because a process that was stopped has not waited for its disk.
        """
        if not self._in_thread or self.stalled:
            return
        self._waited += seconds
        if self._waited > self._patience:
            self.stalled = True
            self.stalls += 1
            log.error(
                "the disk does not answer: a write of the journal has not come back for %.1f s; until it does this "
                "member votes for nobody, lets another lead, acknowledges nothing and sends its clients elsewhere",
                self._waited,
            )
            self._on_unable()

    def pump(self) -> None:
        """Begin to write what has not been written, unless a write runs already."""
        if not self._idle.is_set() or self._stopping or self._held:
            return
        batch = self._journal.take()
        if batch is not None:
            self._idle.clear()
            self._write(batch)

    async def hold(self) -> None:
        """Wait for the running write, and begin no other until `release`."""
        self._held = True
        await self._idle.wait()

    def release(self) -> None:
        """Write again."""
        self._held = False
        self.pump()

    async def stop(self) -> None:
        """Wait for the running write; an error that repeats is no longer waited for."""
        self._stopping = True
        await self._idle.wait()
        if self._thread is not None:
            self._batches.put(None)
            await asyncio.to_thread(self._thread.join)

    def _write(self, batch: Batch) -> None:
        """Hand a batch to the thread. A plain queue costs less than half of what an executor and its futures do."""
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, args=(loop,), name="raft-disk", daemon=True)
            self._thread.start()
        self._in_thread, self._waited = True, 0.0
        self._batches.put(batch)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread."""
        while (batch := self._batches.get()) is not None:
            error: Exception | None = None
            start = time.perf_counter()
            try:
                self._journal.write(batch)
            except Exception as raised:
                error = raised
            loop.call_soon_threadsafe(self._written, batch, time.perf_counter() - start, error)

    def _written(self, batch: Batch, seconds: float, error: Exception | None) -> None:
        """On the loop: the thread is through with a batch."""
        self._in_thread = False
        if self.stalled:
            log.warning("the disk answers again, after %.1f s", seconds)
            self.stalled = False
        if error is not None:
            self._not_written(batch, error)
            return
        self.seconds += seconds
        self.writes += 1
        if not self.healthy:
            log.warning("the disk takes the journal again")
            self.healthy = True
        self._journal.done(batch)
        self._idle.set()
        self._on_durable()
        self.pump()

    def _not_written(self, batch: Batch, error: Exception) -> None:
        self.failures += 1
        # What is no error of the disk is a mistake of ours: the member must not go on with it either.
        cause = error if isinstance(error, OSError) else OSError(errno.EIO, f"{type(error).__name__}: {error}")
        if self._failed(cause) and not self._stopping:
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._again, batch)
        else:
            # Nothing is taken from the journal any more: it still has this batch as the one that is being written.
            self._idle.set()

    def _again(self, batch: Batch) -> None:
        # A member that is being stopped does not wait for the disk to have room.
        if self._stopping:
            self._idle.set()
        else:
            self._write(batch)

    def _failed(self, error: OSError) -> bool:
        """Whether to try again."""
        first, self.healthy = self.healthy, False
        if error.errno not in _FOR_NOW:
            log.critical("the journal cannot be written, this member ends: %s", error)
            self._on_lost(error)
            return False
        if first:
            log.error("the journal cannot be written and nothing is acknowledged until it can: %s", error)
            self._on_unable()
        return True
