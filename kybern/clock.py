"""Time is passed in, so that tests and simulations can run it.

Production code takes a `Clock` and never calls `time` or `datetime.now` itself. Sleeping and time-outs go through
asyncio as usual: a test that wants virtual time runs the whole loop on it with `run_virtual`.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    """What the time is. `monotonic` is for intervals, `now` for what people and other hosts read."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back, and counts while the process is stopped."""
        ...


class SystemClock:
    """The clocks of this host."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """CLOCK_BOOTTIME: unlike CLOCK_MONOTONIC it goes on while the host is suspended, and leases must see that."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class LoopClock:
    """Reads the running loop's time; on a `run_virtual` loop that is virtual time."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start

    def now(self) -> datetime:
        """`start` plus the loop's time."""
        return self._start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """The loop's time in seconds."""
        return asyncio.get_running_loop().time()


class _JumpingSelector(selectors.SelectSelector):
    """Instead of waiting for a time-out, moves the clock there at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            # Nothing will ever happen by itself: only another thread could wake the loop, so wait for that.
            return super().select(None)
        self.now += max(timeout, 0.0)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that jumps to its next timer whenever nothing is ready to run.

    Deterministic as long as nothing but timers and other tasks wakes a task. Not for sockets or threads: the jump
    does not wait for them.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a `VirtualTimeLoop`; an hour of sleeping takes no time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def rfc3339(moment: datetime) -> str:
    """A Kubernetes `Time`: UTC with whole seconds, as in `2026-11-20T10:00:00Z`."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def rfc3339_micro(moment: datetime) -> str:
    """A Kubernetes `MicroTime`, as in `2026-11-20T10:00:00.000000Z`."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def seconds_until(moment: datetime, clock: Clock) -> float:
    """Seconds from now to `moment`; negative when it has passed."""
    return (moment - clock.now()).total_seconds()


_UNITS: Mapping[str, float] = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds in a duration such as `1h30m`, `10s` or `500ms`.

    Raises:
        ValueError: when the text is not such a duration.
    """
    import re  # noqa: PLC0415 - only configuration needs it

    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise ValueError(f"{text!r} is not a duration (write it like 10s, 500ms or 1h30m)")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
