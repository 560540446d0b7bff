"""Reads Kubernetes' Protobuf request bodies (`application/vnd.kubernetes.protobuf`) into documents.

A body is `k8s`, a zero byte and an envelope (`runtime.Unknown`: apiVersion, kind, raw message). The messages are
decoded straight from the wire by a table of field numbers, `kybern/api/data/protobuf.json`; per field it holds
the number, the type, and at most one of three marks:

- `inline`: the field's own fields belong to the parent in JSON (a Volume's source, a Probe's action);
- `optional`: absence means something else than zero (`replicas`, `defaultMode`), so a zero that was sent is kept;
- `always`: Kubernetes writes the field even when it is zero (`containerPort`, a status's counts).

Other zero values are left out, as in the JSON that Kubernetes writes.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import msgspec

from kybern.api import quantity
from kybern.api.errors import bad_request
from kybern.clock import rfc3339, rfc3339_micro

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

_MAGIC = b"k8s\0"
# How deep messages may be nested; no kind of Kubernetes comes near it.
_MOST_DEPTH = 64


def decode_protobuf(body: bytes) -> dict[str, Any]:
    """The document in a Protobuf body.

    Raises:
        StatusError: 400 when the body is not such an envelope, is damaged, or holds a kind that has no table.
    """
    try:
        return _envelope(body)
    except _DamagedError as error:
        raise bad_request(f"the body of the request is not valid Kubernetes Protobuf: {error}") from None


def message_name(api_version: str, kind: str) -> str | None:
    """The name in the table of the message of a kind; None when it has none."""
    group, _, version = api_version.rpartition("/")
    name = f"{group.partition('.')[0] or 'core'}.{version}.{kind}"
    if name in _table():
        return name
    # Options are sent under any group's version.
    shared = f"apis.meta.v1.{kind}"
    return shared if shared in _table() else None


class _DamagedError(Exception):
    """The bytes are not what they should be; the text says how."""


# Field numbers of the envelope, runtime.Unknown.
_TYPE_META, _RAW, _CONTENT_ENCODING, _CONTENT_TYPE = 1, 2, 3, 4


def _envelope(body: bytes, depth: int = 0) -> dict[str, Any]:
    if body[:4] != _MAGIC:
        raise _DamagedError("it does not begin with the bytes 'k8s\\0'")
    parts = {number: data for number, wire, data in _fields(body[4:]) if wire == 2}
    type_meta = _decode(_message("runtime.TypeMeta"), parts.get(_TYPE_META, b""), depth)
    api_version, kind = type_meta.get("apiVersion", ""), type_meta.get("kind", "")
    raw = parts.get(_RAW, b"")
    if parts.get(_CONTENT_ENCODING):
        raise _DamagedError(f"content encoding {_text(parts[_CONTENT_ENCODING], depth)!r} is not supported")
    if parts.get(_CONTENT_TYPE) == b"application/json":
        return {"apiVersion": api_version, "kind": kind, **_json_object(raw)}
    name = message_name(api_version, kind)
    if name is None:
        raise _DamagedError(f"kind {kind!r} in {api_version!r} is not known")
    return {"apiVersion": api_version, "kind": kind, **_decode(_message(name), raw, depth + 1)}


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _DamagedError(f"embedded JSON: {error}") from None
    if not isinstance(value, dict):
        raise _DamagedError("embedded JSON must be an object")
    return value


# --- the table


class Field(NamedTuple):
    """A field of the table."""

    number: int
    type: str
    mark: str = ""


@cache
def _table() -> dict[str, msgspec.Raw]:
    data = files("kybern.api.data").joinpath("protobuf.json").read_bytes()
    return msgspec.json.decode(data, type=dict[str, msgspec.Raw])


def fields_of(message: str) -> dict[str, Field]:
    """The fields of a message by their JSON name.

    Raises:
        KeyError: when the table has no such message.
    """
    return {name: Field(*entry) for name, entry in msgspec.json.decode(_table()[message]).items()}


def messages() -> list[str]:
    """The names of all messages of the table."""
    return list(_table())


# --- messages, made ready for decoding


# Turns what is on the wire (an integer, or bytes) into a JSON value; the second argument is the depth.
Reader = Callable[[Any, int], Any]


@dataclass(slots=True, frozen=True)
class _Slot:
    """How one field is decoded."""

    name: str
    # 0 for integers, 2 for everything with a length.
    wire: int
    read: Reader
    inline: bool = False
    repeated: bool = False
    map: bool = False
    # Whether a zero or empty value is kept.
    keep: bool = False


_Message = tuple[dict[int, _Slot], tuple[tuple[str, int | bool], ...]]


@cache
def _message(name: str) -> _Message:
    """The slots of a message by field number, and the fields that are there even when they are zero, with the zero."""
    fields = fields_of(name)
    slots = {field.number: _slot(json_name, field) for json_name, field in fields.items()}
    always = tuple((n, False if field.type == "bool" else 0) for n, field in fields.items() if field.mark == "always")
    return slots, always


_MAP = re.compile(r"map<string,(.+)>")


def _slot(name: str, field: Field) -> _Slot:
    kind = field.type
    repeated = kind.startswith("repeated ")
    kind = kind.removeprefix("repeated ")
    mapped = _MAP.fullmatch(kind)
    if mapped:
        kind = mapped.group(1)
    read, wire = _reader(kind)
    if mapped:
        return _Slot(name, 2, _map_entry(read, wire), map=True)
    keep = repeated or field.mark in ("optional", "always")
    return _Slot(name, wire, read, inline=field.mark == "inline", repeated=repeated, keep=keep)


def _reader(kind: str) -> tuple[Reader, int]:
    scalar = _SCALARS.get(kind)
    if scalar is not None:
        return scalar
    special = _SPECIAL.get(kind)
    if special is not None:
        return special, 2
    if kind.rpartition(".")[2] in _LISTS:
        return _list_reader(kind), 2
    # Looked up when a value comes: messages may contain themselves.
    return lambda data, depth: _decode(_message(kind), data, depth), 2


def _map_entry(read: Reader, wire: int) -> Reader:
    zero: Any = 0 if wire == 0 else b""

    def entry(data: bytes, depth: int) -> tuple[str, Any]:
        key, value = "", zero
        for number, _, item in _fields(data):
            if number == 1:
                key = _text(item, depth)
            elif number == 2:
                value = item
        return key, read(value, depth)

    return entry


def _list_reader(kind: str) -> Reader:
    """Messages that stand for a list: one repeated field, `items`."""
    return lambda data, depth: _decode(_message(kind), data, depth).get("items", [])


# --- the wire


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _DamagedError("a number is cut off or too long")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7


_FIXED = {1: 8, 5: 4}


def _fields(data: bytes) -> list[tuple[int, int, Any]]:
    """The fields on the wire: number, wire type (0 or 2), integer or bytes."""
    result: list[tuple[int, int, Any]] = []
    at, end = 0, len(data)
    while at < end:
        tag, at = (data[at], at + 1) if data[at] < 0x80 else _varint(data, at)
        wire = tag & 7
        if wire == 2:
            length, at = _varint(data, at)
            if length > end - at:
                raise _DamagedError("a field is cut off")
            result.append((tag >> 3, 2, data[at : at + length]))
            at += length
        elif wire == 0:
            value, at = _varint(data, at)
            result.append((tag >> 3, 0, value))
        elif wire in _FIXED:
            # No field of the table is of these types: an unknown one, which is skipped.
            at += _FIXED[wire]
            if at > end:
                raise _DamagedError("a field is cut off")
        else:
            raise _DamagedError(f"wire type {wire} is not used")
    return result


def _decode(message: _Message, data: bytes, depth: int) -> dict[str, Any]:
    if depth > _MOST_DEPTH:
        raise _DamagedError("messages are nested too deep")
    slots, always = message
    result: dict[str, Any] = {}
    for number, wire, raw in _fields(data):
        slot = slots.get(number)
        if slot is None:
            continue
        if wire != slot.wire:
            _packed(slot, wire, raw, result)
            continue
        value = slot.read(raw, depth + 1)
        if slot.repeated:
            result.setdefault(slot.name, []).append(value)
        elif slot.map:
            key, item = value
            result.setdefault(slot.name, {})[key] = item
        elif slot.inline:
            result.update(value)
        elif value or (slot.keep and value is not None):
            result[slot.name] = value
        else:
            result.pop(slot.name, None)
    for name, zero in always:
        result.setdefault(name, zero)
    return result


def _packed(slot: _Slot, wire: int, raw: Any, result: dict[str, Any]) -> None:
    """Repeated integers may come as one field that holds all of them."""
    if not (slot.repeated and slot.wire == 0 and wire == 2):
        raise _DamagedError(f"field {slot.name!r} is of a wrong type")
    values = result.setdefault(slot.name, [])
    at = 0
    while at < len(raw):
        value, at = _varint(raw, at)
        values.append(slot.read(value, 0))


# --- values


def _text(data: Any, _: int) -> str:
    try:
        return str(data, "utf-8")
    except (UnicodeDecodeError, TypeError) as error:
        raise _DamagedError(f"a text is not UTF-8: {error}") from None


def _bytes(data: bytes, _: int) -> str:
    return base64.b64encode(data).decode()


def _int32(value: int, _: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def _int64(value: int, _: int = 0) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _bool(value: int, _: int) -> bool:
    return value != 0


def _quantity(data: bytes, depth: int) -> str:
    for number, wire, value in _fields(data):
        if number == 1 and wire == 2:
            text = _text(value, depth)
            try:
                return quantity.canonical(text) if text else "0"
            except ValueError as error:
                raise _DamagedError(f"{text!r}: {error}") from None
    return "0"


def _int_or_string(data: bytes, depth: int) -> int | str:
    values = {number: value for number, _, value in _fields(data)}
    if values.get(1, 0) == 0:
        number = values.get(2, 0)
        if not isinstance(number, int):
            raise _DamagedError("an integer or string holds neither")
        return _int32(number, depth)
    return _text(values.get(3, b""), depth)


def _moment(data: bytes) -> datetime | None:
    if not data:
        return None
    values = {number: value for number, wire, value in _fields(data) if wire == 0}
    try:
        whole = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=_int64(values.get(1, 0)))
        return whole.replace(microsecond=values.get(2, 0) // 1000)
    except (OverflowError, ValueError):
        raise _DamagedError("a time is out of range") from None


def _time(data: bytes, _: int) -> str | None:
    moment = _moment(data)
    return rfc3339(moment) if moment is not None else None


def _micro_time(data: bytes, _: int) -> str | None:
    moment = _moment(data)
    return rfc3339_micro(moment) if moment is not None else None


def _duration(data: bytes, _: int) -> str:
    values = {number: value for number, wire, value in _fields(data) if wire == 0}
    return _go_duration(_int64(values.get(1, 0)))


def _go_duration(nanoseconds: int) -> str:
    """A duration as Go writes it: `1h0m0s`, `1.5s`, `300ms`."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest < 10**9:
        for unit, size in (("ms", 10**6), ("µs", 10**3), ("ns", 1)):
            if rest >= size:
                return f"{sign}{_decimal(rest, size)}{unit}"
    minutes, rest = divmod(rest, 60 * 10**9)
    seconds = f"{_decimal(rest, 10**9)}s"
    if not minutes:
        return sign + seconds
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours}h{minutes}m{seconds}" if hours else f"{sign}{minutes}m{seconds}"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0") if rest else str(whole)


def _embedded(data: bytes, depth: int) -> dict[str, Any] | None:
    """An object inside an object (RawExtension): JSON, or a Protobuf body again."""
    raw = next((value for number, wire, value in _fields(data) if number == 1 and wire == 2), b"")
    if not raw:
        return None
    if raw[:4] == _MAGIC:
        if depth > _MOST_DEPTH:
            raise _DamagedError("messages are nested too deep")
        return _envelope(raw, depth + 1)
    return _json_object(raw)


_SCALARS: Mapping[str, tuple[Reader, int]] = {
    "string": (_text, 2),
    "bytes": (_bytes, 2),
    "int32": (_int32, 0),
    "int64": (_int64, 0),
    "bool": (_bool, 0),
}
_SPECIAL: Mapping[str, Reader] = {
    "api.resource.Quantity": _quantity,
    "api.resource.QuantityValue": _quantity,
    "util.intstr.IntOrString": _int_or_string,
    "apis.meta.v1.Time": _time,
    "apis.meta.v1.MicroTime": _micro_time,
    "apis.meta.v1.Duration": _duration,
    "apis.meta.v1.FieldsV1": _embedded,
    "runtime.RawExtension": _embedded,
}
_LISTS = frozenset({"Verbs", "ExtraValue", "AttestationValue"})
