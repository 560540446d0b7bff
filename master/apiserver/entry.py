"""An object as the store holds it: canonical bytes with the resourceVersion spliced in, and what selectors ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kybern.api.fields import selectable
from kybern.api.metadata import splice_resource_version
from kybern.api.resources import Resource
from kybern.client.store import KeyValue

Document = dict[str, Any]


class _Labels(msgspec.Struct):
    labels: dict[str, str] = {}


class _Labelled(msgspec.Struct):
    metadata: _Labels


_decode_labels = msgspec.json.Decoder(_Labelled).decode
_decode = msgspec.json.Decoder().decode


class Entry:
    """One object as of one revision. Immutable but for what it computes when first asked."""

    __slots__ = ("_fields", "_labels", "key", "name", "namespace", "notes", "raw", "revision")

    def __init__(self, key: bytes, namespace: str, name: str, raw: bytes, revision: int) -> None:
        self.key = key
        self.namespace = namespace
        self.name = name
        self.raw = raw
        self.revision = revision
        # For readers that keep something computed from the document (the node authorizer does).
        self.notes: Any = None
        self._labels: dict[str, str] | None = None
        self._fields: dict[str, str] | None = None

    def document(self) -> Document:
        """A new copy of the document, resourceVersion included."""
        document: Document = _decode(self.raw)
        return document

    @property
    def labels(self) -> Mapping[str, str]:
        """The object's labels."""
        if self._labels is None:
            self._labels = _decode_labels(self.raw).metadata.labels
        return self._labels

    def fields(self, resource: Resource) -> Mapping[str, str]:
        """The values that field selectors may compare."""
        if self._fields is None:
            self._fields = selectable(resource, _decode(self.raw))
        return self._fields

    def at(self, revision: int) -> bytes:
        """The document with another resourceVersion: that of its deletion."""
        before = b'"resourceVersion":"%d"' % self.revision
        return self.raw.replace(before, b'"resourceVersion":"%d"' % revision, 1)


def from_store(pair: KeyValue, namespace: str, name: str) -> Entry:
    """The entry of a stored key.

    Raises:
        ValueError: when the value was not written by an API server.
    """
    raw = splice_resource_version(pair.value, pair.mod_revision)
    return Entry(pair.key, namespace, name, raw, pair.mod_revision)
