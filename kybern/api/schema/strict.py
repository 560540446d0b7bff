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

# Types of the published definitions by name; nodes of custom resources keep theirs themselves.
_named: dict[str, Any] = {}
_NO_TYPE = object()


class _NoTypeError(Exception):
    """A schema that msgspec's types cannot express: it contains itself, or mixes known and unknown fields."""


def conforms(schema: Schema, document: Any) -> bool:
    """Whether a document surely needs no repair and breaks no rule of the schema. False means: look closer."""
    expected = schema.strict or strict_type(schema)
    if expected is _NO_TYPE:
        return False
    try:
        msgspec.convert(document, expected)
    except (msgspec.ValidationError, RecursionError):
        return False
    return True


def has_fast_check(schema: Schema) -> bool:
    """Whether there is a type for the documents that need no repair."""
    return strict_type(schema) is not _NO_TYPE


def strict_type(schema: Schema) -> Any:
    """The msgspec type of the documents that need no repair, or a mark that there can be none."""
    if schema.strict is None:
        try:
            schema.strict = _type(schema, ())
        except _NoTypeError:
            schema.strict = _NO_TYPE
    return schema.strict


def _type(schema: Schema, outer: tuple[int, ...]) -> Any:
    """The type of a value. `outer` are the objects around it, by the dict of their properties, which copies share."""
    if schema.int_or_string:
        return str | _INT32
    if schema.quantity:
        return _QUANTITY_TYPE
    if schema.type is SchemaType.ARRAY:
        return list[_type(schema.items, outer)] if schema.items else list[Any]  # type: ignore[misc]
    if schema.type is SchemaType.OBJECT:
        return _object(schema, outer)
    if schema.micro:
        return _MICRO_TIME
    return _FORMATS.get((schema.type, schema.format)) or _SCALARS[schema.type]


def _object(schema: Schema, outer: tuple[int, ...]) -> Any:
    if schema.preserve_unknown:
        if schema.properties:
            raise _NoTypeError
        return dict[str, Any]
    if schema.additional is not None:
        return dict[str, _type(schema.additional, outer)]  # type: ignore[misc]
    known = _named.get(schema.definition)
    if known is None:
        if id(schema.properties) in outer:
            raise _NoTypeError
        known = _struct(schema, (*outer, id(schema.properties)))
        if schema.definition:
            _named[schema.definition] = known
    return known


def _struct(schema: Schema, outer: tuple[int, ...]) -> Any:
    # Names on the wire need not be identifiers, so the fields are numbered.
    rename = {f"f{i}": name for i, name in enumerate(schema.properties)}
    fields: list[Any] = []
    for field, name in rename.items():
        kind = _type(schema.properties[name], outer)
        fields.append((field, kind) if name in schema.required else (field, kind, msgspec.UNSET))
    return msgspec.defstruct(
        (schema.definition or "Anonymous").rpartition(".")[2],
        fields,
        rename=rename,
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )
