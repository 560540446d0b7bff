"""When a leader waits for more commands before it makes an entry of those that it has.

An entry costs every member a turn, a write and a message, however few commands it holds. Without waiting, the faster a
group commits, the fewer commands come during a commit, and the more of the processors' time goes into entries. So those
whose commands are answered are given a moment to send others, the longer the more there are of them.
"""

from __future__ import annotations

from dataclasses import dataclass

# What is at least so large is worth an entry of its own: it is made beside those on their way, and not waited with.
WORTH_AN_ENTRY = 8 << 10
# A millisecond for each so many commands, and so many milliseconds at most. Measured with calls of one command each:
# four at a time lose nothing by it, and sixteen gain half of their rate.
_COMMANDS_PER_MILLISECOND = 4
_MOST_MILLISECONDS = 4
# Seconds after which an entry says nothing any more about how many commands come.
_LATELY = 0.05


@dataclass(slots=True)
class Gathering:
    """What a leader remembers of the last entry that it made."""

    _commands: int = 0
    _made: float = float("-inf")

    def made(self, now: float, commands: int) -> None:
        """An entry of so many commands was made."""
        self._made, self._commands = now, commands

    def patience(self, now: float, waiting: int, size: int) -> float:
        """For how many seconds an entry of what waits (commands and their bytes) is to be put off."""
        if size >= WORTH_AN_ENTRY:
            return 0.0
        answered = self._commands if now - self._made < _LATELY else 0
        return min((answered + waiting) // _COMMANDS_PER_MILLISECOND, _MOST_MILLISECONDS) / 1000
