"""Objects on the wire of kybern.v1.Objects: typed metadata with a Struct, or JSON bytes; and resources' names.

Used by API servers and clients alike. A Struct knows nothing but doubles: whole numbers come back as integers by the
kind's schema, and integers that a double does not hold travel as decimal text.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from google.protobuf import json_format, struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from kybern.api.errors import bad_request
from kybern.api.resources import Resource
from kybern.api.schema import Schema, load, load_kind
from kybern.api.struct_numbers import restore_numbers
from kybern.clock import rfc3339
from kybern.pb.v1 import objects_pb2 as pb

Document = dict[str, Any]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.encode

# Integers up to here are exact as doubles.
_EXACT = 1 << 53

_TEXT_FIELDS = (
    ("name", "name"),
    ("generateName", "generate_name"),
    ("namespace", "namespace"),
    ("uid", "uid"),
    ("resourceVersion", "resource_version"),
)
_OWNER_FIELDS = (("apiVersion", "api_version"), ("kind", "kind"), ("name", "name"), ("uid", "uid"))
_MANAGER_FIELDS = (
    ("manager", "manager"),
    ("operation", "operation"),
    ("apiVersion", "api_version"),
    ("fieldsType", "fields_type"),
    ("subresource", "subresource"),
)


def resource_message(resource: Resource) -> pb.Resource:
    """The name of a resource."""
    return pb.Resource(group=resource.group, version=resource.version, resource=resource.plural)


# --- to the wire


def to_object(raw: bytes, encoding: pb.Encoding.ValueType) -> pb.Object:
    """An object as the peer wants it encoded."""
    if encoding == pb.ENCODING_JSON:
        return pb.Object(json=raw)
    document: Document = _decode(raw)
    metadata = document.pop("metadata", None) or {}
    message = pb.Object(api_version=document.pop("apiVersion", ""), kind=document.pop("kind", ""))
    _write_metadata(metadata, message.metadata)
    _write_struct(document, message.fields)
    return message


def json_object(document: Mapping[str, Any]) -> pb.Object:
    """A document of our own, as JSON."""
    return pb.Object(json=_encode(document))


def _write_struct(values: Mapping[str, Any], struct: struct_pb2.Struct) -> None:
    # An empty Struct must be there too: it is the body.
    struct.SetInParent()
    for key, value in values.items():
        _write_value(value, struct.fields[key])


def _write_value(value: Any, message: struct_pb2.Value) -> None:
    if value is None:
        message.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, str):
        message.string_value = value
    elif isinstance(value, int) and abs(value) > _EXACT:
        message.string_value = str(value)
    elif isinstance(value, int | float):
        message.number_value = value
    elif isinstance(value, Mapping):
        _write_struct(value, message.struct_value)
    else:
        message.list_value.SetInParent()
        for item in value:
            _write_value(item, message.list_value.values.add())


def _write_metadata(metadata: Mapping[str, Any], message: pb.Metadata) -> None:
    for key, name in _TEXT_FIELDS:
        if metadata.get(key):
            setattr(message, name, metadata[key])
    message.generation = metadata.get("generation", 0)
    if metadata.get("deletionGracePeriodSeconds") is not None:
        message.deletion_grace_period_seconds = metadata["deletionGracePeriodSeconds"]
    _write_time(metadata.get("creationTimestamp"), message.creation_timestamp)
    _write_time(metadata.get("deletionTimestamp"), message.deletion_timestamp)
    message.labels.update(metadata.get("labels") or {})
    message.annotations.update(metadata.get("annotations") or {})
    message.finalizers.extend(metadata.get("finalizers") or ())
    for owner in metadata.get("ownerReferences") or ():
        reference = message.owner_references.add()
        for key, name in _OWNER_FIELDS:
            setattr(reference, name, owner.get(key) or "")
        if owner.get("controller") is not None:
            reference.controller = owner["controller"]
        if owner.get("blockOwnerDeletion") is not None:
            reference.block_owner_deletion = owner["blockOwnerDeletion"]
    for entry in metadata.get("managedFields") or ():
        managed = message.managed_fields.add()
        for key, name in _MANAGER_FIELDS:
            setattr(managed, name, entry.get(key) or "")
        _write_time(entry.get("time"), managed.time)
        managed.fields_v1 = _encode(entry.get("fieldsV1") or {}).decode()


def _write_time(text: str | None, message: Timestamp) -> None:
    if text:
        message.FromDatetime(datetime.fromisoformat(text))


# --- from the wire


def body_schema(resource: Resource, subresource: str = "") -> Schema:
    """The schema of the bodies that a resource or one of its subresources takes."""
    found = resource.subresource(subresource) if subresource else None
    if found is None or not found.kind:
        return load(resource)
    return load_kind(found.group or resource.group, found.version or resource.version, found.kind)


def from_object(message: pb.Object, schema: Schema) -> bytes:
    """The JSON of an object that came over the wire.

    Raises:
        StatusError: 400 when it has no body, or numbers that JSON does not have.
    """
    which = message.WhichOneof("body")
    if which == "json":
        return message.json
    try:
        document: Document = json_format.MessageToDict(message.fields) if which else {}
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the fields of the object cannot be read: {error}") from None
    if message.api_version:
        document["apiVersion"] = message.api_version
    if message.kind:
        document["kind"] = message.kind
    restore_numbers(schema, document)
    document["metadata"] = _read_metadata(message.metadata)
    return _encode(document)


def _read_metadata(message: pb.Metadata) -> Document:
    metadata: Document = {key: getattr(message, name) for key, name in _TEXT_FIELDS if getattr(message, name)}
    if message.generation:
        metadata["generation"] = message.generation
    if message.HasField("deletion_grace_period_seconds"):
        metadata["deletionGracePeriodSeconds"] = message.deletion_grace_period_seconds
    for key, name in (("creationTimestamp", "creation_timestamp"), ("deletionTimestamp", "deletion_timestamp")):
        if message.HasField(name):  # type: ignore[arg-type]
            metadata[key] = _read_time(getattr(message, name))
    for key in ("labels", "annotations"):
        if values := dict(getattr(message, key)):
            metadata[key] = values
    if message.finalizers:
        metadata["finalizers"] = list(message.finalizers)
    if message.owner_references:
        metadata["ownerReferences"] = [_read_owner(o) for o in message.owner_references]
    if message.managed_fields:
        metadata["managedFields"] = [_read_managed(m) for m in message.managed_fields]
    return metadata


def _read_owner(message: pb.OwnerReference) -> Document:
    owner: Document = {key: getattr(message, name) for key, name in _OWNER_FIELDS}
    if message.HasField("controller"):
        owner["controller"] = message.controller
    if message.HasField("block_owner_deletion"):
        owner["blockOwnerDeletion"] = message.block_owner_deletion
    return owner


def _read_managed(message: pb.ManagedFieldsEntry) -> Document:
    entry: Document = {key: getattr(message, name) for key, name in _MANAGER_FIELDS if getattr(message, name)}
    if message.HasField("time"):
        entry["time"] = _read_time(message.time)
    try:
        entry["fieldsV1"] = _decode(message.fields_v1.encode() or b"{}")
    except msgspec.DecodeError as error:
        raise bad_request(f"metadata.managed_fields.fields_v1 is not JSON: {error}") from None
    return entry


def _read_time(message: Timestamp) -> str:
    try:
        return rfc3339(message.ToDatetime(tzinfo=UTC))
    except (ValueError, OverflowError) as error:
        raise bad_request(f"not a time: {error}") from None
