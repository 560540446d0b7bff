"""Which lines of a log an option asks for, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from node.runtime.interface import LogOptions


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line, newline included, and when it was written."""

    at: datetime
    data: bytes

    def render(self, timestamps: bool) -> bytes:
        """The line, with its time (RFC 3339, nanoseconds) before it if asked for."""
        return stamp(self.at).encode() + b" " + self.data if timestamps else self.data


def stamp(moment: datetime) -> str:
    """RFC 3339 in UTC with nine digits of a second, of which a `datetime` knows six."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


def select(lines: Sequence[LogLine], options: LogOptions) -> Sequence[LogLine]:
    """The lines that were written since the asked-for moment, and of those the last ones."""
    chosen = [line for line in lines if options.since is None or line.at >= options.since]
    if options.tail_lines is None:
        return chosen
    return chosen[-options.tail_lines :] if options.tail_lines > 0 else []
