"""A queue of keys to work on: serial per key, parallel across keys, with delays and back-off.

A key that is added while it waits is there once; one that is added while it is worked on comes again afterwards.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from kybern.backoff import Backoff

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Not a task of its own: delays are timers of the loop, and `get` waits."""

    def __init__(self, *, base: float = 0.05, cap: float = 60.0, rng: random.Random | None = None) -> None:
        self._base = base
        self._cap = cap
        self._rng = rng
        self._ready: deque[K] = deque()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._backoffs: dict[K, Backoff] = {}
        self._available = asyncio.Event()

    def add(self, key: K) -> None:
        """Work on the key as soon as possible."""
        self._cancel_timer(key)
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)
            self._available.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Work on the key in a while; sooner when it is added meanwhile, or was already due sooner."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= due:
            return
        self._cancel_timer(key)
        if seconds <= 0:
            self.add(key)
            return
        self._timers[key] = loop.call_at(due, self._fire, key)

    def retry(self, key: K) -> float:
        """Work on the key again after its back-off; returns the seconds until then."""
        backoff = self._backoffs.setdefault(key, Backoff(base=self._base, cap=self._cap, rng=self._rng))
        wait = backoff.next()
        self.add_after(key, wait)
        return wait

    def forget(self, key: K) -> None:
        """The key's work succeeded: its next failure starts from the shortest back-off."""
        self._backoffs.pop(key, None)

    async def get(self) -> K:
        """The next key; `done` must be called for it."""
        while not self._ready:
            self._available.clear()
            await self._available.wait()
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """The work on the key has ended, one way or the other."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Cancel the timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def __len__(self) -> int:
        return len(self._ready) + len(self._working)

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: K) -> None:
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
