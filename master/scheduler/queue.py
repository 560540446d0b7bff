"""Pods that wait for a decision: by priority, then by age; refused ones wait for the cluster to change."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import dataclass

from kybern.clock import Clock
from master.scheduler.pods import PodInfo

FIRST_WAIT = 1.0
LONGEST_WAIT = 10.0
# A refused pod is tried again after this even if nothing seems to have changed.
FLUSH = 60.0


@dataclass(slots=True)
class _Entry:
    info: PodInfo
    number: int
    attempts: int = 0
    # When its back-off is over, on the monotonic clock.
    ready: float = 0.0
    # What it waits for, on the same clock; None while it is active or being decided.
    due: float | None = None
    # The queue's count of changes when its decision began.
    epoch: int = 0


class SchedulingQueue:
    """Holds every pod that is to be scheduled, from `add` until `remove`; `pop` hands one out at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._active: list[tuple[int, int, str]] = []
        self._active_uids: set[str] = set()
        self._refused: set[str] = set()
        self._waiting: list[tuple[float, int, str]] = []
        self._numbers = itertools.count()
        self._epoch = 0
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, uid: str) -> bool:
        return uid in self._entries

    def add(self, info: PodInfo) -> None:
        """A pod to schedule, or a changed one: it is tried as soon as its turn comes."""
        entry = self._entries.get(info.uid)
        if entry is None:
            entry = self._entries[info.uid] = _Entry(info, next(self._numbers))
        entry.info = info
        self._activate(entry)

    def remove(self, uid: str) -> None:
        """The pod is placed, or no more."""
        self._entries.pop(uid, None)
        self._active_uids.discard(uid)
        self._refused.discard(uid)

    def refuse(self, uid: str) -> None:
        """No node will do now: wait for a change (see `changed`), at least the back-off and at most `FLUSH`.

        A change since the decision began counts.
        """
        entry = self._entries.get(uid)
        if entry is None:
            return
        self._back_off(entry)
        if entry.epoch == self._epoch:
            self._refused.add(uid)
            self._wait(entry, self._clock.monotonic() + FLUSH)
        else:
            self._wait(entry, entry.ready)

    def retry(self, uid: str) -> None:
        """The decision could not be carried out: again after the back-off, whatever happens."""
        entry = self._entries.get(uid)
        if entry is not None:
            self._back_off(entry)
            self._wait(entry, entry.ready)

    def changed(self) -> None:
        """Something changed that may make room: refused pods are tried again once their back-off is over."""
        self._epoch += 1
        for uid in self._refused:
            self._wait(self._entries[uid], self._entries[uid].ready)
        self._refused.clear()

    async def pop(self) -> PodInfo:
        """The next pod; it stays in the queue's care until `remove`, `refuse` or `retry`."""
        while True:
            if (info := self.take()) is not None:
                return info
            self._wake.clear()
            # Not shorter than a timer can tell: what rounding leaves would be waited for again and again.
            timeout = max(self._waiting[0][0] - self._clock.monotonic(), 0.001) if self._waiting else None
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def take(self) -> PodInfo | None:
        """As `pop`; None when none is due now."""
        now = self._clock.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            due, number, uid = heapq.heappop(self._waiting)
            entry = self._entries.get(uid)
            # Heap entries whose pod went, or waits for another moment by now, mean nothing.
            if entry is not None and entry.number == number and entry.due == due:
                self._activate(entry)
        while self._active:
            _, number, uid = heapq.heappop(self._active)
            entry = self._entries.get(uid)
            if entry is not None and entry.number == number and uid in self._active_uids:
                self._active_uids.discard(uid)
                entry.epoch = self._epoch
                return entry.info
        return None

    def _back_off(self, entry: _Entry) -> None:
        wait = min(FIRST_WAIT * 2.0 ** min(entry.attempts, 10), LONGEST_WAIT)
        entry.attempts += 1
        entry.ready = self._clock.monotonic() + wait

    def _wait(self, entry: _Entry, due: float) -> None:
        if entry.info.uid in self._active_uids:
            return  # it was changed meanwhile and is up for another decision anyway
        entry.due = due
        heapq.heappush(self._waiting, (due, entry.number, entry.info.uid))
        self._wake.set()

    def _activate(self, entry: _Entry) -> None:
        uid = entry.info.uid
        entry.due = None
        self._refused.discard(uid)
        if uid not in self._active_uids:
            self._active_uids.add(uid)
            heapq.heappush(self._active, (-entry.info.pod.spec.priority, entry.number, uid))
            self._wake.set()
