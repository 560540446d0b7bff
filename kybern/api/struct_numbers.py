"""Numbers of documents that came as a google.protobuf.Struct, which knows nothing but doubles."""

from __future__ import annotations

import re
from typing import Any

from kybern.api.schema import Schema, SchemaType

_DECIMAL = re.compile(r"-?[0-9]{1,19}")


def restore_numbers(schema: Schema, document: dict[str, Any]) -> None:
    """Turn whole doubles into integers and decimal text in integer fields into integers; in place.

    Integers beyond 2^53 travel as text, since a double would not hold them. Where the schema allows anything (custom
    data, number fields) a whole double becomes an integer too: that is how JSON would have been written.
    """
    _object(schema, document)


def _object(schema: Schema | None, value: dict[str, Any]) -> None:
    for key, item in value.items():
        kind = type(item)
        if kind is float or kind is dict or kind is list or kind is str:
            value[key] = _value(schema.child(key) if schema is not None else None, item)


def _value(schema: Schema | None, value: Any) -> Any:
    if isinstance(value, dict):
        _object(schema, value)
    elif isinstance(value, list):
        items = schema.items if schema is not None else None
        value[:] = [_value(items, item) for item in value]
    elif isinstance(value, float):
        return _whole(value)
    elif isinstance(value, str) and schema is not None and schema.type is SchemaType.INTEGER:
        return int(value) if _DECIMAL.fullmatch(value) else value
    return value


def _whole(value: float) -> int | float:
    return int(value) if value.is_integer() else value
