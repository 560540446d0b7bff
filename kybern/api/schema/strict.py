"""The fast answer to "is this document in order?": a schema as msgspec types.

Most documents have no unknown field, no null, no wrong type, and their quantities and times are already in canonical
form. msgspec finds that out in C. Only documents that fail here are walked in Python, which repairs them and names
their faults; so the types may refuse a good document, but must never accept one that the walk would change or refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from kybern.api.schema.node import Schema, SchemaType

_DAY = r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
_MOMENT = rf"(?!0000)\d{{4}}-{_DAY}T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d"
# Canonical quantities, as far as an expression can tell: whole numbers that the next suffix could not shorten, and that
# are not too large.
_LONG = r"(?!\d*000(?!\d))[1-9]\d{3"
_QUANTITY = rf"(?a)^(?:0|[1-9]\d{{0,2}}(?:[numkMGTP]|[KMGTP]i)?|[1-7]Ei|[1-9]E|{_LONG},17}}[num]?|{_LONG},5}}[kM])\Z"

_SCALARS: Mapping[SchemaType, Any] = {
    SchemaType.STRING: str,
    SchemaType.INTEGER: int,
    SchemaType.NUMBER: float | int,
    SchemaType.BOOLEAN: bool,
    SchemaType.ANY: Any,
}
_INT32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_FORMATS: Mapping[tuple[SchemaType, str], Any] = {
    (SchemaType.INTEGER, "int32"): _INT32,
    (SchemaType.INTEGER, "int64"): _INT64,
    (SchemaType.STRING, "byte"): bytes,
    (SchemaType.STRING, "date-time"): Annotated[str, msgspec.Meta(pattern=rf"(?a)^{_MOMENT}Z\Z")],
}
_MICRO_TIME = Annotated[str, msgspec.Meta(pattern=rf"(?a)^{_MOMENT}\.\d{{6}}Z\Z")]
_QUANTITY_TYPE = Annotated[str, msgspec.Meta(pattern=_QUANTITY)]

# By the dict of properties, which copies of a node share. The schema is kept so that no id is used twice.
_types: dict[int, tuple[Schema, Any]] = {}
_building: set[int] = set()


class _RecursiveError(Exception):
    """A definition that contains itself; msgspec's types cannot be made for it at run time."""


def conforms(schema: Schema, document: Any) -> bool:
    """Whether a document surely needs no repair and breaks no rule of the schema. False means: look closer."""
    expected = strict_type(schema)
    if expected is None:
        return False
    try:
        msgspec.convert(document, expected)
    except (msgspec.ValidationError, RecursionError):
        return False
    return True


def strict_type(schema: Schema) -> Any:
    """The msgspec type of the documents that need no repair; None when there can be none."""
    known = _types.get(id(schema.properties))
    if known is not None:
        return known[1]
    try:
        made = _type(schema)
    except _RecursiveError:
        made = None
    _types[id(schema.properties)] = (schema, made)
    return made


def _type(schema: Schema) -> Any:
    if schema.int_or_string:
        return str | _INT32
    if schema.quantity:
        return _QUANTITY_TYPE
    if schema.type is SchemaType.ARRAY:
        return list[_type(schema.items)] if schema.items else list[Any]  # type: ignore[misc]
    if schema.type is SchemaType.OBJECT:
        return _object(schema)
    if schema.micro:
        return _MICRO_TIME
    return _FORMATS.get((schema.type, schema.format)) or _SCALARS[schema.type]


def _object(schema: Schema) -> Any:
    if schema.preserve_unknown:
        return dict[str, Any]
    if schema.additional is not None:
        return dict[str, _type(schema.additional)]  # type: ignore[misc]
    identity = id(schema.properties)
    known = _types.get(identity)
    if known is not None and known[1] is not None:
        return known[1]
    if identity in _building:
        raise _RecursiveError
    _building.add(identity)
    try:
        made = _struct(schema)
    finally:
        _building.discard(identity)
    _types[identity] = (schema, made)
    return made


def _struct(schema: Schema) -> Any:
    # Names on the wire need not be identifiers, so the fields are numbered.
    rename = {f"f{i}": name for i, name in enumerate(schema.properties)}
    fields: list[Any] = []
    for field, name in rename.items():
        kind = _type(schema.properties[name])
        fields.append((field, kind) if name in schema.required else (field, kind, msgspec.UNSET))
    return msgspec.defstruct(
        (schema.definition or "Anonymous").rpartition(".")[2],
        fields,
        rename=rename,
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )
