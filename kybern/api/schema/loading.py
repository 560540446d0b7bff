"""Makes `Schema` trees from the published definitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from kybern.api.resources import Resource
from kybern.api.schema import definitions
from kybern.api.schema.node import ListType, Schema, SchemaType

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."

# Definitions whose JSON is not what a walk through their properties would say.
_SPECIAL: Mapping[str, Schema] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": Schema(SchemaType.STRING, quantity=True),
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": Schema(SchemaType.STRING, int_or_string=True),
    _META + "Time": Schema(SchemaType.STRING, format="date-time"),
    _META + "MicroTime": Schema(SchemaType.STRING, format="date-time", micro=True),
    _META + "FieldsV1": Schema(SchemaType.OBJECT, preserve_unknown=True, atomic=True),
    _META + "Patch": Schema(SchemaType.ANY),
    "io.k8s.apimachinery.pkg.runtime.RawExtension": Schema(SchemaType.OBJECT, preserve_unknown=True, atomic=True),
    _EXTENSIONS + "JSON": Schema(SchemaType.ANY),
    _EXTENSIONS + "JSONSchemaPropsOrArray": Schema(SchemaType.ANY),
    _EXTENSIONS + "JSONSchemaPropsOrBool": Schema(SchemaType.ANY),
    _EXTENSIONS + "JSONSchemaPropsOrStringArray": Schema(SchemaType.ANY),
}

_loaded: dict[str, Schema] = {}


@cache
def load_kind(group: str, version: str, kind: str) -> Schema:
    """The schema of a kind.

    Raises:
        LookupError: when no definition has that kind.
    """
    return _definition(definitions.name_of_kind(group, version, kind))


def load(resource: Resource) -> Schema:
    """The schema of a resource's objects.

    Raises:
        LookupError: when there is no definition of its kind.
    """
    return load_kind(resource.group, resource.version, resource.kind)


@cache
def load_definition(name: str) -> Schema:
    """The schema of a definition, named in full or by its last parts (`autoscaling.v1.Scale`, `meta.v1.DeleteOptions`).

    Raises:
        LookupError: when no definition, or more than one, has that name.
    """
    return _definition(definitions.resolve_name(name))


def _definition(name: str) -> Schema:
    known = _loaded.get(name)
    if known is None:
        raw = definitions.read(name)
        special = _SPECIAL.get(name)
        known = replace(special) if special is not None else Schema(SchemaType.OBJECT)
        known.definition = name
        known.description = raw.get("description", "")
        # Before its properties: a definition may contain itself, and copies of the node share the dict that is filled.
        _loaded[name] = known
        if special is None:
            _fill(known, raw)
    return known


def _fill(node: Schema, raw: Mapping[str, Any]) -> None:
    """Set what a JSON Schema says of an object, in place."""
    node.required = frozenset(raw.get("required", ()))
    node.atomic = raw.get("x-kubernetes-map-type") == "atomic"
    if "additionalProperties" in raw:
        node.additional = _node(raw["additionalProperties"])
    for name, value in raw.get("properties", {}).items():
        node.properties[name] = _node(value)


def _node(raw: Mapping[str, Any]) -> Schema:
    reference = raw.get("$ref")
    if reference is not None:
        node = replace(_definition(reference.rpartition("/")[2]))
    else:
        node = Schema(_type(raw))
        if node.type is SchemaType.OBJECT:
            _fill(node, raw)
        elif node.type is SchemaType.ARRAY:
            node.items = _node(raw["items"])
    node.format = raw.get("format", node.format)
    node.description = raw.get("description", node.description)
    node.enum = tuple(raw.get("enum", ()))
    node.patch_strategy = frozenset(s for s in raw.get("x-kubernetes-patch-strategy", "").split(",") if s)
    node.patch_merge_key = raw.get("x-kubernetes-patch-merge-key", "")
    node.list_type = ListType(raw.get("x-kubernetes-list-type", ListType.ATOMIC))
    node.list_map_keys = tuple(raw.get("x-kubernetes-list-map-keys", ()))
    if "x-kubernetes-map-type" in raw:
        node.atomic = raw["x-kubernetes-map-type"] == "atomic"
    return node


def _type(raw: Mapping[str, Any]) -> SchemaType:
    stated = raw.get("type")
    if isinstance(stated, list):
        # Optional fields are written as [type, "null"].
        stated = next(t for t in stated if t != "null")
    return SchemaType(stated) if stated else SchemaType.ANY
