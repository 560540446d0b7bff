"""How late the member's loop is: a timer that should fire every 10 ms and notes by how much it does not.

What takes long in one turn of the loop holds up everything else, heartbeats above all. Wall time beside CPU time of the
loop's thread tells a turn that is too long from a machine that has no processor to spare.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_INTERVAL = 0.01
# Upper bounds of the histogram, in seconds.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
# `worst` looks back over about a minute: so many spans of so many seconds.
_SPAN = 5.0
_SPANS = 12


@dataclass(slots=True)
class Lag:
    """The worst of some span of time, in seconds.

    `late` is how late the timer was, `late_cpu` the CPU time that the loop's thread had used by then since the time
    before, `late_process` what all threads of the process had used (another one may have had the interpreter), and
    `cpu` the most that the loop's thread used between two times, late or not.
    """

    late: float = 0.0
    late_cpu: float = 0.0
    late_process: float = 0.0
    cpu: float = 0.0

    def note(self, other: Lag) -> None:
        """Take in what was seen at one time, or the worst of another span."""
        if other.late > self.late:
            self.late, self.late_cpu, self.late_process = other.late, other.late_cpu, other.late_process
        self.cpu = max(self.cpu, other.cpu)


class LoopLag:
    """Measures while it runs; `start` and `stop` on the loop that is measured."""

    def __init__(
        self,
        wall: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
        process: Callable[[], float] = time.process_time,
    ) -> None:
        self._wall = wall
        self._cpu = cpu
        self._process = process
        self._timer: asyncio.TimerHandle | None = None
        self._counts = [0] * (len(BOUNDS) + 1)
        self._total = 0.0
        self._recent: deque[tuple[float, Lag]] = deque(maxlen=_SPANS)
        self._asked = Lag()
        self._due = self._used = self._all_used = 0.0

    def start(self) -> None:
        """Begin to measure the running loop."""
        self._await()

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take(self) -> Lag:
        """The worst since the last call of this, for one who asks alone (a benchmark)."""
        taken, self._asked = self._asked, Lag()
        return taken

    def worst(self) -> Lag:
        """The worst of about the last minute."""
        found = Lag()
        oldest = self._wall() - _SPAN * _SPANS
        for begun, lag in self._recent:
            if begun >= oldest:
                found.note(lag)
        return found

    def histogram(self) -> tuple[Sequence[tuple[str, float]], float]:
        """Counts of delays up to each bound (in seconds, as Prometheus wants them), and the sum of all delays."""
        found: list[tuple[str, float]] = []
        count = 0
        for bound, more in zip((*map(str, BOUNDS), "+Inf"), self._counts, strict=True):
            count += more
            found.append((bound, float(count)))
        return found, self._total

    def tick(self) -> None:
        """What the timer does."""
        now, used = self._wall(), self._cpu()
        late, cpu = max(0.0, now - self._due), used - self._used
        lag = Lag(late, cpu, self._process() - self._all_used, cpu)
        self._counts[bisect_left(BOUNDS, late)] += 1
        self._total += late
        self._asked.note(lag)
        if not self._recent or now - self._recent[-1][0] >= _SPAN:
            self._recent.append((now, Lag()))
        self._recent[-1][1].note(lag)
        self._await()

    def _await(self) -> None:
        self._due, self._used, self._all_used = self._wall() + _INTERVAL, self._cpu(), self._process()
        self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self.tick)
