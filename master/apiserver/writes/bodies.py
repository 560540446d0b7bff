"""Request bodies: decoded, pruned, and strict when the client asked for that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kybern.api import decoding, errors, pruning
from kybern.api.protobuf import MEDIA_TYPE, decode_protobuf
from kybern.api.resources import Resource
from kybern.api.schema import Schema
from kybern.client.interface import PatchType
from master.apiserver.interface import Body, Target, WriteOptions

Document = dict[str, Any]

_JSON = ("", "application/json")
_YAML = ("application/yaml", "application/x-yaml", "text/yaml")
_STRICT, _IGNORE = "Strict", "Ignore"
# The store takes transactions of 1.5 MiB.
_MOST_BYTES = 1_400_000


def read(body: Body) -> tuple[Document, list[str]]:
    """The document of a body, and complaints about keys that occur twice.

    Raises:
        StatusError: 400 when it cannot be read, 415 when its format is not known.
    """
    media_type = body.content_type.partition(";")[0].strip().lower()
    if media_type in _JSON:
        document, duplicates = decoding.decode_json(body.data)
    elif media_type == MEDIA_TYPE:
        return decode_protobuf(body.data), []
    elif media_type in _YAML:
        document, duplicates = decoding.decode_yaml(body.data)
    else:
        raise errors.unsupported_media_type(body.content_type, ["application/json", "application/yaml", MEDIA_TYPE])
    return document, pruning.duplicate_fields(duplicates)


def conform(
    resource: Resource,
    schema: Schema,
    document: Document,
    options: WriteOptions,
    complaints: Sequence[str] = (),
    *,
    partial: bool = False,
) -> tuple[str, ...]:
    """Prune a document, in place; returns what to warn of.

    Raises:
        StatusError: 400 when a field has a wrong type, or is unknown and the client wants strictness.
    """
    found = pruning.conform(schema, document, partial=partial)
    if found.causes:
        raise pruning.malformed(resource, found.causes)
    complaints = [*found.unknown, *complaints]
    if complaints and options.field_validation == _STRICT:
        raise pruning.strict_error(resource, complaints)
    return () if options.field_validation == _IGNORE else tuple(complaints)


def read_patch(kind: PatchType, data: bytes) -> tuple[Any, list[str]]:
    """The value of a patch, and complaints about keys that occur twice.

    Raises:
        StatusError: 400 when it cannot be read.
    """
    if kind is PatchType.APPLY:
        document, duplicates = decoding.decode_yaml(data)
        return document, pruning.duplicate_fields(duplicates)
    if kind is PatchType.JSON:
        return decoding.decode_json_value(data), []
    document, duplicates = decoding.decode_json(data)
    return document, pruning.duplicate_fields(duplicates)


def check_options(options: WriteOptions) -> None:
    """Refuse options that nobody knows.

    Raises:
        StatusError: 400 or 422, naming the option.
    """
    if options.field_validation not in ("", _STRICT, "Warn", _IGNORE):
        raise errors.bad_request(
            f'fieldValidation: Unsupported value: "{options.field_validation}": '
            'supported values: "Ignore", "Strict", "Warn"'
        )
    if len(options.field_manager) > 128 or not options.field_manager.isprintable():
        raise errors.bad_request("fieldManager: Invalid value: must be at most 128 printable characters")


def check_name(target: Target, document: Document) -> None:
    """Refuse a body that is about another object than the path.

    Raises:
        StatusError: 400 when name or namespace differ.
    """
    metadata = document.get("metadata") or {}
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if name and name != target.name:
        raise errors.bad_request(f"the name of the object ({name}) does not match the name on the URL ({target.name})")
    if target.resource.namespaced and namespace and namespace != target.namespace:
        raise errors.bad_request(
            f"the namespace of the object ({namespace}) does not match the namespace on the URL ({target.namespace})"
        )


def check_size(value: bytes) -> bytes:
    """The canonical bytes, if the store takes as many.

    Raises:
        StatusError: 413 when there are too many.
    """
    if len(value) > _MOST_BYTES:
        raise errors.too_large(f"the object has {len(value)} bytes; at most {_MOST_BYTES} can be stored")
    return value
