"""Columns, rows, and the texts that several kinds share: ages, labels, selectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from kybern.api import selectors
from kybern.api.types.base import Object, decode

NONE = "<none>"
UNKNOWN = "<unknown>"

Cell = str | int


@dataclass(frozen=True, slots=True)
class Column:
    """A column's head. Priority 0 is always shown, 1 with `-o wide`."""

    name: str
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""

    def document(self) -> dict[str, Any]:
        """The columnDefinition of a Table."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


NAME = Column("Name", format="name", description="Name of the object, unique among those of its kind in its namespace.")
AGE = Column("Age", description="Time since the object was created.")


def wide(name: str, type_: str = "string") -> Column:
    """A column that `-o wide` alone shows."""
    return Column(name, type_, priority=1)


def number(name: str) -> Column:
    """A column of whole numbers."""
    return Column(name, "integer")


class Row(NamedTuple):
    """Cells in the order of the columns, and conditions of the row (`Completed` for pods that have ended)."""

    cells: Sequence[Cell]
    conditions: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Printer:
    """How one kind is shown: its columns, and the row of a document as of a moment."""

    columns: tuple[Column, ...]
    row: Callable[[bytes, datetime], Row]


T = TypeVar("T", bound=Object)


def printer(kind: type[T], columns: tuple[Column, ...], cells: Callable[[T, datetime], Sequence[Cell]]) -> Printer:
    """A printer that reads documents through a view."""
    return Printer(columns, lambda data, now: Row(cells(decode(data, kind), now)))


FALLBACK = printer(Object, (NAME, AGE), lambda it, now: (it.name, age(it.metadata.creation_timestamp, now)))


def age(moment: datetime | None, now: datetime) -> str:
    """Time since a moment in a few characters."""
    return UNKNOWN if moment is None else duration((now - moment).total_seconds())


def duration(seconds: float) -> str:
    """A length of time as kubectl writes it: two units at most, the second only while it matters."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{max(whole, 0)}s"
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 2920:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"


def labels(values: Mapping[str, str]) -> str:
    """`a=b,c=d`, in the keys' order."""
    return ",".join(f"{k}={v}" for k, v in sorted(values.items())) or NONE


def selector(document: Mapping[str, Any] | None) -> str:
    """A label selector as text."""
    try:
        parsed = selectors.from_label_selector(document)
    except ValueError:
        return "<error>"
    return (selectors.to_text(parsed) if parsed is not None else "") or NONE


def some(texts: Sequence[str], most: int = 3) -> str:
    """The first few, and how many more there are."""
    if not texts:
        return NONE
    more = len(texts) - most
    return ",".join(texts[:most]) + (f" + {more} more..." if more > 0 else "")


def joined(texts: Iterable[str]) -> str:
    """The texts with commas between, or `<none>`."""
    return ",".join(texts) or NONE
