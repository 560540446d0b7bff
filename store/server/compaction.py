"""History does not grow for ever: the leader proposes compactions by itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque

from kybern.clock import Clock
from kybern.pb.etcd.kv_pb2 import CompactionRequest
from kybern.pb.v1.store_pipe_pb2 import StoreCommand
from store.mvcc.outcomes import CompactOutcome
from store.raft.interface import RaftUnavailable
from store.server.core import Core, Refused

log = logging.getLogger(__name__)

# Seconds between looks.
_INTERVAL = 1.0


class Compactor:
    """Keeps the last `revisions` revisions, and of these the ones that are younger than `seconds`."""

    def __init__(self, core: Core, clock: Clock, *, revisions: int, seconds: float) -> None:
        self._core = core
        self._clock = clock
        self._revisions = revisions
        self._seconds = seconds
        # When this member was first at which revision, oldest first.
        self._marks: deque[tuple[float, int]] = deque()
        # Entries of a tenth of the history each are often enough; so is one for what is old, now and then.
        self._step = max(1, revisions // 10)
        self._compacted_at = clock.monotonic()

    def choose(self) -> int:
        """The revision to compact to now; 0 for none."""
        now = self._clock.monotonic()
        keys = self._core.machine.keys
        if not self._marks or self._marks[-1][1] != keys.revision:
            self._marks.append((now, keys.revision))
        aged = 0
        while self._marks and self._marks[0][0] <= now - self._seconds:
            aged = self._marks.popleft()[1]
        if aged and not self._marks:
            # Nothing was written since: what is current is not history.
            self._marks.append((now, keys.revision))
        target = max(aged, keys.revision - self._revisions)
        gain = target - keys.compacted
        if gain <= 0:
            return 0
        if gain >= self._step or now - self._compacted_at >= self._seconds / 5:
            self._compacted_at = now
            return target
        if aged:
            # Too little to be worth an entry now: it counts again at the next look.
            self._marks.appendleft((now - self._seconds, aged))
        return 0

    async def run(self) -> None:
        """Look now and then for as long as the member runs."""
        while True:
            await asyncio.sleep(_INTERVAL)
            target = self.choose()
            if target and self._core.raft.is_leader:
                # Refused: a client compacted further meanwhile. Unavailable: whoever leads next will see to it.
                with contextlib.suppress(Refused, RaftUnavailable):
                    await self._core.propose(StoreCommand(compact=CompactionRequest(revision=target)), CompactOutcome)
                    log.debug("history before revision %d is compacted", target)
