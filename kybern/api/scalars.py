"""The canonical form of scalar values, by schema."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Any

from kybern.api import quantity
from kybern.api.schema.node import Schema, SchemaType
from kybern.clock import rfc3339, rfc3339_micro


class WrongTypeError(Exception):
    """A value whose JSON type does not fit the schema."""


_RANGES = {"int32": 2**31, "int64": 2**63}
# RFC 3339, whose separators Python's parser is too liberal with.
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def canonical(schema: Schema, value: Any) -> Any:
    """The form in which a scalar is stored.

    Raises:
        WrongTypeError: when the JSON type does not fit.
        ValueError: when the type fits and the value does not; the message says what it must be.
    """
    if schema.quantity:
        return _quantity(value)
    if schema.int_or_string:
        return value if isinstance(value, str) else integer(value, "int32")
    match schema.type:
        case SchemaType.STRING:
            return _string(schema, value)
        case SchemaType.INTEGER:
            return integer(value, schema.format)
        case SchemaType.BOOLEAN:
            if not isinstance(value, bool):
                raise WrongTypeError
        case SchemaType.NUMBER:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise WrongTypeError
        case _:
            pass
    return value


def integer(value: Any, form: str = "") -> int:
    """A whole number; `2.0` is one, as in JSON.

    Raises:
        WrongTypeError: when it is something else.
        ValueError: when it does not fit into the format.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongTypeError
    whole = int(value)
    if value != whole:
        raise WrongTypeError
    bound = _RANGES.get(form)
    if bound is not None and not -bound <= whole < bound:
        raise ValueError(f"must be between {-bound} and {bound - 1}, inclusive")
    return whole


def _quantity(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise WrongTypeError
    return quantity.canonical(value.strip() if isinstance(value, str) else value)


def _string(schema: Schema, value: Any) -> str:
    if not isinstance(value, str):
        raise WrongTypeError
    if schema.format == "date-time":
        return _moment(value, micro=schema.micro)
    if schema.format == "byte":
        return _base64(value)
    return value


def _moment(value: str, *, micro: bool) -> str:
    if _RFC3339.fullmatch(value) is None:
        raise ValueError("must be a date and time as in RFC 3339, such as 2006-01-02T15:04:05Z")
    try:
        moment = datetime.fromisoformat(_six_digits(value.upper())).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be a date and time that exists, such as 2006-01-02T15:04:05Z") from None
    return rfc3339_micro(moment) if micro else rfc3339(moment)


def _six_digits(value: str) -> str:
    """Cut a fraction of nanoseconds to the microseconds that Python keeps."""
    return re.sub(r"(\.\d{6})\d+", r"\1", value)


def _base64(value: str) -> str:
    text = value.replace("\n", "").replace("\r", "")
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be base64 (RFC 4648, with padding)") from None
    return text


def describe(schema: Schema) -> str:
    """What a value must be, for error messages."""
    if schema.quantity:
        return "a quantity (a string or a number)"
    if schema.int_or_string:
        return "an integer or a string"
    match schema.type:
        case SchemaType.OBJECT:
            return "an object"
        case SchemaType.ARRAY:
            return "a list"
        case SchemaType.INTEGER:
            return f"an integer ({schema.format})" if schema.format else "an integer"
        case _:
            return f"a {schema.type}"
