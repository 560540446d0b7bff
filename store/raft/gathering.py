"""When a leader waits for more commands before it makes an entry of those that it has.

An entry costs every member a turn, a write and a message, however few commands it holds. Without waiting, the faster a
group commits, the fewer commands come during a commit, and the more of the processors' time goes into entries. So those
whose commands are answered are given a moment to send others, the longer the more there are of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# What is at least so large is worth an entry of its own: it is made beside those on their way, and not waited with.
WORTH_AN_ENTRY = 8 << 10
# A millisecond for each so many commands, and so many milliseconds at most. Measured with calls of one command each:
# four at a time lose nothing by it, and sixteen gain half of their rate.
_COMMANDS_PER_MILLISECOND = 4
_MOST_MILLISECONDS = 4
# Seconds after which an entry says nothing any more about how many commands come.
_LATELY = 0.05


class Gathering:
    """A leader's memory of the last entry that it made, and the timer while the next one waits. Used on the loop."""

    def __init__(self, gathered: Callable[[], None]) -> None:
        """`gathered` is called when an entry that was put off has waited long enough."""
        self._gathered = gathered
        self._commands = 0
        self._made = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._over = False

    def made(self, now: float, commands: int) -> None:
        """An entry of so many commands was made."""
        self._made, self._commands = now, commands

    def patience(self, now: float, waiting: int, size: int) -> float:
        """For how many seconds an entry of what waits (commands and their bytes) is to be put off."""
        if size >= WORTH_AN_ENTRY:
            return 0.0
        answered = self._commands if now - self._made < _LATELY else 0
        return min((answered + waiting) // _COMMANDS_PER_MILLISECOND, _MOST_MILLISECONDS) / 1000

    def put_off(self, now: float, waiting: int, size: int) -> bool:
        """Whether the entry is not made now; then `gathered` will be called."""
        over, self._over = self._over, False
        patience = self.patience(now, waiting, size)
        if over or not patience:
            return False
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(patience, self._end)
        return True

    def takes(self, size: int) -> bool:
        """Whether commands of so many bytes change something: not while an entry waits, and is small."""
        return self._timer is None or size >= WORTH_AN_ENTRY

    def stop(self) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self._timer = None
        self._over = True
        self._gathered()
