"""Complaints about fields, in Kubernetes' words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from kybern.api.errors import Cause, CauseType

Causes = list[Cause]

IMMUTABLE = "field is immutable"


def show(value: Any) -> str:
    """A value as messages show it: text in quotes, everything else as JSON."""
    return msgspec.json.encode(value).decode()


def required(path: str, detail: str = "") -> Cause:
    """The field must be set."""
    return Cause(path, f"Required value: {detail}" if detail else "Required value", CauseType.REQUIRED)


def invalid(path: str, value: Any, detail: str) -> Cause:
    """The value breaks a rule."""
    return Cause(path, f"Invalid value: {show(value)}: {detail}", CauseType.INVALID)


def not_supported(path: str, value: Any, supported: Iterable[str]) -> Cause:
    """The value is not one of those that are known."""
    listed = ", ".join(show(s) for s in sorted(supported))
    return Cause(path, f"Unsupported value: {show(value)}: supported values: {listed}", CauseType.NOT_SUPPORTED)


def duplicate(path: str, value: Any) -> Cause:
    """The value must be unique and is not."""
    return Cause(path, f"Duplicate value: {show(value)}", CauseType.DUPLICATE)


def not_found(path: str, value: Any) -> Cause:
    """The value refers to something that is not there."""
    return Cause(path, f"Not found: {show(value)}", CauseType.NOT_FOUND)


def forbidden(path: str, detail: str) -> Cause:
    """The field may not be set, or not be changed, here."""
    return Cause(path, f"Forbidden: {detail}", CauseType.FORBIDDEN)


def too_long(path: str, limit: int) -> Cause:
    """The value has too many bytes."""
    return Cause(path, f"Too long: may not be more than {limit} bytes", CauseType.TOO_LONG)


def too_many(path: str, count: int, limit: int) -> Cause:
    """The list has too many items."""
    return Cause(path, f"Too many: {count}: must have at most {limit} items", "FieldValueTooMany")


def non_negative(path: str, value: Any, out: Causes) -> None:
    """Complain about a number below zero; absent is fine."""
    if value is not None and value < 0:
        out.append(invalid(path, value, "must be greater than or equal to 0"))


def in_range(path: str, value: int, low: int, high: int, out: Causes) -> None:
    """Complain about a number outside of a range."""
    if not low <= value <= high:
        out.append(invalid(path, value, f"must be between {low} and {high}, inclusive"))


def one_of(path: str, value: Any, supported: frozenset[str], out: Causes, *, needed: bool = True) -> None:
    """Complain about a value that is not known, or absent though needed."""
    if not value:
        if needed:
            out.append(required(path))
    elif value not in supported:
        out.append(not_supported(path, value, supported))
