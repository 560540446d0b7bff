"""Runs the journal's writes in a thread of their own, one at a time, and says when they are durable.

A full disk is waited for: the batch is tried again until it fits. Any other error is the end of this member, because
after a failed fsync nobody knows what the disk holds.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from store.raft.journal import Batch, Journal

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskWriter:
    """Writes what the journal wants written. All but the write itself happens on the loop."""

    def __init__(
        self,
        journal: Journal,
        *,
        on_durable: Callable[[], None],
        on_full: Callable[[], None],
        on_lost: Callable[[OSError], None],
    ) -> None:
        self._journal = journal
        self._on_durable = on_durable
        self._on_full = on_full
        self._on_lost = on_lost
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="raft-disk")
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._held = False
        # False while the disk is full or lost: the member must not lead or acknowledge.
        self.healthy = True
        self.writes = 0
        self.seconds = 0.0
        self.failures = 0

    def pump(self) -> None:
        """Begin to write what has not been written, unless a write runs already."""
        if self._task is None and not self._stopping and not self._held:
            batch = self._journal.take()
            if batch is not None:
                self._task = asyncio.get_running_loop().create_task(self._write(batch), name="raft-disk")

    async def hold(self) -> None:
        """Wait for the running write, and begin no other until `release`."""
        self._held = True
        if self._task is not None:
            await asyncio.wait([self._task])

    def release(self) -> None:
        """Write again."""
        self._held = False
        self.pump()

    async def stop(self) -> None:
        """Wait for the running write; an error that repeats is no longer waited for."""
        self._stopping = True
        if self._task is not None:
            await asyncio.wait([self._task])
        await asyncio.to_thread(self._executor.shutdown)

    async def _write(self, batch: Batch) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                self.seconds += await loop.run_in_executor(self._executor, self._timed_write, batch)
                break
            except OSError as error:
                self.failures += 1
                if not self._failed(error):
                    return
            # Not on a timer alone: a member that is being stopped does not wait for the disk to have room.
            await asyncio.sleep(RETRY_SECONDS)
            if self._stopping:
                return
        self.writes += 1
        if not self.healthy:
            log.warning("the disk takes the journal again")
            self.healthy = True
        self._journal.done(batch)
        self._task = None
        self._on_durable()
        self.pump()

    def _failed(self, error: OSError) -> bool:
        """Whether to try again."""
        first, self.healthy = self.healthy, False
        if error.errno not in _FULL:
            log.critical("the journal cannot be written, this member ends: %s", error)
            self._on_lost(error)
            return False
        if first:
            log.error("the journal cannot be written and nothing is acknowledged until it can: %s", error)
            self._on_full()
        return True

    def _timed_write(self, batch: Batch) -> float:
        start = time.perf_counter()
        self._journal.write(batch)
        return time.perf_counter() - start
