"""One node of a schema: what is known of a value at some place of a document."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class SchemaType(StrEnum):
    """JSON types, and `any` for values of every type."""

    OBJECT = "object"
    ARRAY = "array"
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    ANY = "any"


class ListType(StrEnum):
    """How the items of a list are owned and merged (x-kubernetes-list-type)."""

    ATOMIC = "atomic"
    SET = "set"
    MAP = "map"


@dataclass(slots=True, eq=False, repr=False)
class Schema:
    """What is known of a value. Nodes are shared between kinds and must not be changed once they are loaded.

    An object has either `properties` (a struct) or `additional` (a map); with `preserve_unknown` it may hold anything.
    Nodes compare by identity; two places of the same definition may have nodes of their own that share `properties`.
    """

    type: SchemaType
    properties: dict[str, Schema] = field(default_factory=dict)
    # Schema of a map's values.
    additional: Schema | None = None
    # Schema of a list's items.
    items: Schema | None = None
    required: frozenset[str] = frozenset()
    preserve_unknown: bool = False
    # int32, int64, double, byte (base64), date-time.
    format: str = ""
    # A whole number or a string (`80`, `"http"`, `"25%"`).
    int_or_string: bool = False
    # A quantity: a string, or a number that becomes one.
    quantity: bool = False
    # date-time with microseconds.
    micro: bool = False
    # `merge`, `retainKeys`, `replace`: how a strategic merge patch treats the value.
    patch_strategy: frozenset[str] = frozenset()
    patch_merge_key: str = ""
    list_type: ListType = ListType.ATOMIC
    list_map_keys: tuple[str, ...] = ()
    # A map or struct whose fields belong to one manager together.
    atomic: bool = False
    enum: tuple[str, ...] = ()
    description: str = ""
    # Name of the definition that the node stands for; empty for anonymous nodes.
    definition: str = ""
    # What kybern.api.schema.strict has made of the node; None before that.
    strict: Any = None

    def __repr__(self) -> str:
        return f"<Schema {self.definition or self.type}>"

    @property
    def scalar(self) -> bool:
        """Whether the value has no parts."""
        return self.type not in (SchemaType.OBJECT, SchemaType.ARRAY, SchemaType.ANY)

    @property
    def is_map(self) -> bool:
        """Whether it is an object with arbitrary keys and values of one schema."""
        return self.type is SchemaType.OBJECT and self.additional is not None

    def child(self, key: str) -> Schema | None:
        """Schema of the value under a key of an object; None when the key is unknown or anything may be there."""
        return self.properties.get(key) or self.additional
