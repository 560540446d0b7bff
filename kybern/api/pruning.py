"""Brings documents into the form that is stored: known fields, right types, no nulls, canonical scalars.

`conform` does it all in one pass; `prune` and `check` are its halves. Documents that are in order already, which most
are, cost one conversion in C (`kybern.api.schema.strict`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kybern.api import scalars
from kybern.api.errors import Cause, CauseType, StatusError, bad_request
from kybern.api.resources import Resource
from kybern.api.schema import Schema, SchemaType
from kybern.api.schema.strict import conforms

# As many as Kubernetes reports before it stops.
_MOST_UNKNOWN = 100


@dataclass(slots=True)
class Conformance:
    """What was found in a document: unknown fields (dropped), and faults by field (left in place)."""

    unknown: list[str] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)


def conform(schema: Schema, document: dict[str, Any], *, partial: bool = False) -> Conformance:
    """Drop unknown fields and nulls, bring scalars into canonical form, and report what remains wrong; in place.

    With `partial` the document need not be complete (a configuration that is applied): nothing is required of it, and
    nothing is filled in.

    Scalars: quantities as Kubernetes writes them, times in UTC (`Time` with whole seconds, `MicroTime` with six
    digits), base64 without line breaks. Below `status` absent required scalars get their zero value, as they do when a
    Kubernetes API server writes them.
    """
    found = Conformance()
    if not conforms(schema, document):
        _Walk(found, partial=partial).root(schema, document)
    return found


def prune(schema: Schema, document: dict[str, Any]) -> list[str]:
    """Drop unknown fields and nulls, bring scalars into canonical form; in place.

    Returns:
        One line per unknown field, as Kubernetes words it: `unknown field "spec.foo"`.
    """
    return conform(schema, document).unknown


def check(schema: Schema, document: dict[str, Any]) -> list[Cause]:
    """The fields of a pruned document that have a wrong type or form, or are missing though required."""
    return conform(schema, document).causes


def duplicate_fields(paths: Sequence[str]) -> list[str]:
    """One line per field that occurs twice, as Kubernetes words it."""
    return [f'duplicate field "{path}"' for path in paths]


def strict_error(resource: Resource, complaints: Sequence[str]) -> StatusError:
    """400: a client that asked for strict validation sent unknown or duplicate fields."""
    return bad_request(f"{_subject(resource)}: strict decoding error: {', '.join(complaints)}")


def malformed(resource: Resource, causes: Sequence[Cause]) -> StatusError:
    """400: values of a wrong type. The message names the first field, the details all of them."""
    error = bad_request(f"{_subject(resource)}: {causes[0]}")
    error.causes = tuple(causes)
    error.kind, error.group = resource.kind, resource.group
    return error


def _subject(resource: Resource) -> str:
    return f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'


# --- the walk through a document that is not in order


class _Walk:
    def __init__(self, found: Conformance, *, partial: bool) -> None:
        self._found = found
        self._partial = partial
        self._in_status = False

    def root(self, schema: Schema, document: dict[str, Any]) -> None:
        for key in list(document):
            self._in_status = key == "status"
            self._member(schema, document, key, key)
        self._in_status = False
        self._required(schema, document, "")

    def _object(self, schema: Schema, value: dict[str, Any], path: str) -> None:
        if schema.preserve_unknown and not schema.properties:
            return
        for key in list(value):
            self._member(schema, value, key, f"{path}.{key}")
        self._required(schema, value, path)

    def _member(self, schema: Schema, parent: dict[str, Any], key: str, path: str) -> None:
        child = schema.properties.get(key)
        if child is None:
            child = schema.additional
            if child is None:
                if not schema.preserve_unknown:
                    del parent[key]
                    if len(self._found.unknown) < _MOST_UNKNOWN:
                        self._found.unknown.append(f'unknown field "{path}"')
                return
        value = parent[key]
        if value is None and child.type is not SchemaType.ANY:
            if schema.additional is None:
                del parent[key]
                return
            # A null in a map is the zero value of the map's type.
            value = parent[key] = _zero(child)
        parent[key] = self._value(child, value, path)

    def _value(self, schema: Schema, value: Any, path: str) -> Any:
        """The value in canonical form."""
        if schema.type is SchemaType.OBJECT:
            if isinstance(value, dict):
                self._object(schema, value, path)
                return value
        elif schema.type is SchemaType.ARRAY:
            if isinstance(value, list):
                self._list(schema, value, path)
                return value
        elif schema.type is SchemaType.ANY:
            return value
        else:
            return self._scalar(schema, value, path)
        self._fault(schema, value, path)
        return value

    def _list(self, schema: Schema, value: list[Any], path: str) -> None:
        if schema.items is None:
            return
        for index, item in enumerate(value):
            if item is None:
                item = _zero(schema.items)  # noqa: PLW2901 - Kubernetes reads a null item as the zero value
            value[index] = self._value(schema.items, item, f"{path}[{index}]")

    def _scalar(self, schema: Schema, value: Any, path: str) -> Any:
        try:
            return scalars.canonical(schema, value)
        except scalars.WrongTypeError:
            self._fault(schema, value, path)
        except ValueError as error:
            self._found.causes.append(Cause(path, f"Invalid value: {quoted(value)}: {error}", CauseType.INVALID))
        return value

    def _fault(self, schema: Schema, value: Any, path: str) -> None:
        message = f"Invalid value: {quoted(value)}: must be {scalars.describe(schema)}, not {_type_of(value)}"
        self._found.causes.append(Cause(path, message, CauseType.TYPE_INVALID))

    def _required(self, schema: Schema, value: dict[str, Any], path: str) -> None:
        if self._partial:
            return
        missing = schema.required - value.keys()
        for key in sorted(missing):
            child = schema.properties[key]
            if self._in_status:
                if child.type is not SchemaType.OBJECT and child.format != "date-time":
                    value[key] = _zero(child)
            else:
                self._found.causes.append(Cause(f"{path}.{key}" if path else key, "Required value", CauseType.REQUIRED))


_ZEROS: Mapping[SchemaType, Callable[[], Any]] = {
    SchemaType.OBJECT: dict,
    SchemaType.ARRAY: list,
    SchemaType.STRING: str,
    SchemaType.INTEGER: int,
    SchemaType.NUMBER: int,
    SchemaType.BOOLEAN: bool,
    SchemaType.ANY: lambda: None,
}


def _zero(schema: Schema) -> Any:
    return "0" if schema.quantity else _ZEROS[schema.type]()


def quoted(value: Any) -> str:
    """A value as error messages show it."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else ("{...}" if isinstance(value, dict) else _short(value))


def _short(value: Any) -> str:
    return "[...]" if isinstance(value, list) else str(value)


_TYPE_NAMES: Mapping[type, str] = {
    bool: "a boolean", int: "an integer", float: "a number", str: "a string", list: "a list", dict: "an object",
}  # fmt: skip


def _type_of(value: Any) -> str:
    return _TYPE_NAMES.get(type(value), "null")
