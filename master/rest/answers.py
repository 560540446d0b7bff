"""Answers as bytes: objects, lists, tables and Statuses, and the HTTP responses that carry them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from aiohttp import web

from kybern.api.errors import StatusError, bad_request
from kybern.api.resources import Resource
from kybern.client.interface import revision_of
from master.apiserver.interface import Listed
from master.rest.negotiation import Accepted, Form
from master.rest.printers import Printer, printer_of

JSON_HEADERS: Mapping[str, str] = {"Content-Type": "application/json", "Cache-Control": "no-cache, private"}

_INCLUDE = ("", "None", "Metadata", "Object")
_encoder = msgspec.json.Encoder()


class _Parts(msgspec.Struct):
    metadata: msgspec.Raw = msgspec.Raw(b"{}")


_parts = msgspec.json.Decoder(_Parts)


@dataclass(frozen=True, slots=True)
class Shape:
    """How the objects of one request are to be shown: the form, and for tables what each row carries along."""

    accepted: Accepted
    # `None`, `Metadata` (also when empty) or `Object`.
    include: str = ""
    pretty: bool = False


def shape_of(accepted: Accepted, query: Mapping[str, str]) -> Shape:
    """The shape that a request asks for.

    Raises:
        StatusError: 400 for an unknown `includeObject`.
    """
    include = query.get("includeObject", "")
    if include not in _INCLUDE:
        raise bad_request(
            f"invalid value {include[:200]!r} of the parameter includeObject: use None, Metadata or Object"
        )
    return Shape(accepted, include, query.get("pretty", "") in ("1", "true"))


def show(data: bytes, resource: Resource, subresource: str, shape: Shape, now: datetime) -> bytes:
    """One object in the form that was asked for."""
    if shape.accepted.form is Form.WHOLE:
        return data
    if shape.accepted.form is Form.METADATA:
        return metadata_of(data, shape.accepted)
    metadata = {"resourceVersion": str(revision_of(data) or "")}
    return table([data], printer_of(resource, subresource), shape, now, metadata)


def show_list(listed: Listed, resource: Resource, shape: Shape, now: datetime) -> bytes:
    """A list in the form that was asked for. The whole objects are joined as they are."""
    metadata: dict[str, Any] = {"resourceVersion": str(listed.revision)}
    if listed.continue_token:
        metadata["continue"] = listed.continue_token
    if listed.remaining:
        metadata["remainingItemCount"] = listed.remaining
    if shape.accepted.form is Form.TABLE:
        return table(listed.items, printer_of(resource), shape, now, metadata)
    items: Iterable[bytes] = listed.items
    kind, api_version = f"{resource.kind}List", resource.api_version
    if shape.accepted.form is Form.METADATA:
        kind, api_version = "PartialObjectMetadataList", shape.accepted.api_version
        items = [metadata_of(item, shape.accepted) for item in items]
    head = _encoder.encode({"kind": kind, "apiVersion": api_version, "metadata": metadata})
    return b"".join((head[:-1], b',"items":[', b",".join(items), b"]}\n"))


def metadata_of(data: bytes, accepted: Accepted) -> bytes:
    """A PartialObjectMetadata: the metadata alone."""
    head = b'{"kind":"PartialObjectMetadata","apiVersion":"%b","metadata":' % accepted.api_version.encode()
    return head + bytes(_parts.decode(data).metadata) + b"}"


def table(
    items: Sequence[bytes],
    printer: Printer,
    shape: Shape,
    now: datetime,
    metadata: Mapping[str, Any],
    *,
    heads: bool = True,
) -> bytes:
    """A Table with a row per object; `heads` is off after the first event of a watch."""
    document = {
        "kind": "Table",
        "apiVersion": shape.accepted.api_version,
        "metadata": metadata,
        "columnDefinitions": [column.document() for column in printer.columns] if heads else [],
        "rows": [_row(item, printer, shape, now) for item in items],
    }
    return _encoder.encode(document)


def _row(data: bytes, printer: Printer, shape: Shape, now: datetime) -> dict[str, Any]:
    cells, conditions = printer.row(data, now)
    row: dict[str, Any] = {"cells": cells}
    if conditions:
        row["conditions"] = conditions
    if shape.include == "Object":
        row["object"] = msgspec.Raw(data)
    elif shape.include != "None":
        row["object"] = msgspec.Raw(metadata_of(data, shape.accepted))
    return row


def success(resource: Resource, name: str, document: bytes, code: int) -> bytes:
    """The Status that most deletions answer with; clients wait by its uid until the object is gone."""
    details: dict[str, str] = {}
    if name:
        details["name"] = name
    if resource.group:
        details["group"] = resource.group
    details["kind"] = resource.plural
    if document:
        details["uid"] = uid_of(document)
    status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    status["details"] = details
    if code != 200:
        status["code"] = code
    return _encoder.encode(status) + b"\n"


class _OnlyUid(msgspec.Struct):
    uid: str = ""


class _UidParts(msgspec.Struct):
    metadata: _OnlyUid = msgspec.field(default_factory=_OnlyUid)


_uids = msgspec.json.Decoder(_UidParts)


def uid_of(data: bytes) -> str:
    """The uid of a document."""
    return _uids.decode(data).metadata.uid


def failure(error: StatusError) -> bytes:
    """A failed request's Status: compact, with a newline, as clients expect it."""
    return _encoder.encode(error.document()) + b"\n"


def respond(body: bytes, *, code: int = 200, pretty: bool = False, warnings: Sequence[str] = ()) -> web.Response:
    """An answer in JSON."""
    if pretty:
        body = msgspec.json.format(body, indent=2) + b"\n"
    response = web.Response(body=body, status=code, headers=JSON_HEADERS)
    for text in warnings:
        response.headers.add("Warning", warning(text))
    return response


def respond_error(error: StatusError) -> web.Response:
    """A refusal or a failure, as a Status."""
    response = web.Response(body=failure(error), status=error.code, headers=JSON_HEADERS)
    if error.retry_after:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.code == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="kybern"'
    return response


def warning(text: str) -> str:
    """The value of a Warning header (RFC 7234): code, agent, quoted text of one line."""
    line = "".join(c if c.isprintable() else " " for c in text)
    quoted = line.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{quoted}"'
