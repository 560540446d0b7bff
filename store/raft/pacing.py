"""Long work on the loop in portions, with time for others in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator

# Seconds of the loop's time that a portion may take, and bytes that it may have.
_SLICE = 0.004
_PORTION_BYTES = 256 << 10


async def paced(frames: Iterator[bytes], hurried: Callable[[], bool] = bool) -> AsyncIterator[bytes]:
    """The frames in larger parts, with as much time for others in between as they take to make; none when `hurried`."""
    while True:
        began, size = time.perf_counter(), 0
        parts: list[bytes] = []
        for frame in frames:
            parts.append(frame)
            size += len(frame)
            if size >= _PORTION_BYTES or time.perf_counter() - began > _SLICE:
                break
        if not parts:
            return
        took = time.perf_counter() - began
        yield b"".join(parts)
        await asyncio.sleep(0 if hurried() else min(took, 10 * _SLICE))
