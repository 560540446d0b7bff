"""Many writes of one kind: some at a time, and carefully when they begin to fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from kybern.api.errors import StatusError

# Writes of one reconciliation that are under way at the same time.
PARALLEL = 64


async def together(acts: Iterable[Awaitable[object]]) -> list[StatusError]:
    """Do all of them, some at a time; returns what was refused. Other exceptions are raised once all have ended."""
    gate = asyncio.Semaphore(PARALLEL)

    async def one(act: Awaitable[object]) -> None:
        async with gate:
            await act

    results = await asyncio.gather(*(one(act) for act in acts), return_exceptions=True)
    failed = [r for r in results if isinstance(r, BaseException)]
    for error in failed:
        if not isinstance(error, StatusError):
            raise error
    return [e for e in failed if isinstance(e, StatusError)]


async def slow_start(count: int, act: Callable[[], Awaitable[object]]) -> list[StatusError]:
    """Do it `count` times: once, then twice as often each time, until a batch has a failure; returns the refusals.

    What fails once (a quota is used up, a webhook refuses) usually fails a thousand times; this asks a few times only.
    """
    done, size = 0, 1
    while done < count:
        size = min(size, count - done)
        if failed := await together(act() for _ in range(size)):
            return failed
        done += size
        size *= 2
    return []
