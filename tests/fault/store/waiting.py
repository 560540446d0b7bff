"""Waiting for what a member must do after a fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

SECONDS = 30.0


class Unmet(Exception):  # noqa: N818
    """A member did not do what it must after a fault."""


async def until(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    """Wait for something.

    Raises:
        Unmet: when it does not happen.
    """
    try:
        async with asyncio.timeout(seconds):
            await happens(condition)
    except TimeoutError:
        raise Unmet(f"it did not happen that {what}") from None


async def happens(condition: Callable[[], bool]) -> None:
    """Wait for something that may not happen; for as long as the caller does."""
    while not condition():  # noqa: ASYNC110 - another process makes it true
        await asyncio.sleep(0.02)
