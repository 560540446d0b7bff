"""Long work on the loop, in slices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from store.mvcc.walks import StateReplaced, Walk

T = TypeVar("T")

# Seconds of the loop's time that a slice takes, and how much of that is left to others before the next.
_SLICE = 0.004
_PAUSE = 0.25


class Turns:
    """Does walks, the long ones one after the other."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def run(self, begin: Callable[[], Walk[T]]) -> T:
        """Begin a walk and do it to its end; anew when the state was replaced meanwhile."""
        async with self._lock:
            while True:
                try:
                    return await sliced(begin())
                except StateReplaced:
                    continue


async def sliced(walk: Walk[T]) -> T:
    """Do a walk to its end, with others' work in between when it is long.

    Raises:
        StateReplaced: as the walk.
    """
    try:
        while True:
            began = time.perf_counter()
            while (took := time.perf_counter() - began) < _SLICE:
                try:
                    next(walk)
                except StopIteration as stop:
                    value: T = stop.value
                    return value
            # Not just a round of the loop: the other threads want the interpreter too.
            await asyncio.sleep(took * _PAUSE)
    finally:
        walk.close()
