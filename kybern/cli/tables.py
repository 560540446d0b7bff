"""Tables as kubectl prints them, and the option to have none. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import typer

Output = Literal["table", "json"]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="For people, or for programs.")]


def render(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be, three spaces between them; the first row is the heading."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))] if rows else []
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def duration(seconds: float) -> str:
    """A short text such as `45s`, `12m`, `3h20m` or `5d4h`."""
    whole = max(int(seconds), 0)
    if whole < 120:
        return f"{whole}s"
    if whole < 3 * 3600:
        return f"{whole // 60}m"
    if whole < 48 * 3600:
        hours, minutes = whole // 3600, whole % 3600 // 60
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    days, hours = whole // 86400, whole % 86400 // 3600
    return f"{days}d{hours}h" if hours else f"{days}d"


def size(number: float) -> str:
    """A short text of a number of bytes, such as `17 B`, `1.5 kB` or `2.1 GB` (powers of 1000)."""
    units = ["B", "kB", "MB", "GB"]
    # What would be rounded to 1000 is one of the next unit.
    while number >= 999.95 and len(units) > 1:
        number /= 1000
        units.pop(0)
    return f"{number:.0f} B" if units[0] == "B" else f"{number:.1f} {units[0]}"
