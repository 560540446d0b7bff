"""The OpenAPI v3 documents: an index, and one document per group-version.

kubectl needs them: `explain` prints the schemas, `create -f` and `apply` look whether PATCH takes `fieldValidation` and
then leave validation to the server. A document holds the paths of the group-version's resources and the schemas that
are reachable from them. It is made when it is first asked for and kept as bytes; the index names each document by a
hash of what it is made from, so that the index costs nothing and clients cache documents for good.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

import kybern
from kybern.api.resources import Registry, Resource, Subresource
from kybern.api.schema import definitions

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_REFERENCE = "#/components/schemas/"

Json = dict[str, Any]

# The last document of each group-version, with the hash that it was made for.
_documents: dict[tuple[str, str], tuple[str, bytes]] = {}


def index(registry: Registry) -> bytes:
    """The document at `/openapi/v3`: where the documents of the group-versions are."""
    versions = sorted({(r.group, r.version) for r in registry})
    paths = {
        _relative_path(group, version): {
            "serverRelativeURL": f"/openapi/v3/{_relative_path(group, version)}"
            f"?hash={_fingerprint(_resources(registry, group, version))}"
        }
        for group, version in versions
    }
    return msgspec.json.encode({"paths": paths})


def document(registry: Registry, group_version: str) -> bytes | None:
    """The document of a group-version, named as in the index (`api/v1`, `apis/apps/v1`) or as in objects (`apps/v1`).

    Returns:
        JSON, or None when nothing of that group-version is served.
    """
    group, _, version = group_version.removeprefix("apis/").removeprefix("api/").rpartition("/")
    resources = _resources(registry, group, version)
    if not resources:
        return None
    wanted = _fingerprint(resources)
    known = _documents.get((group, version))
    if known is None or known[0] != wanted:
        known = _documents[group, version] = (wanted, _build(resources))
    return known[1]


def _relative_path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _resources(registry: Registry, group: str, version: str) -> tuple[Resource, ...]:
    found = (r for r in registry if r.group == group and r.version == version)
    return tuple(sorted(found, key=lambda r: r.plural))


def _fingerprint(resources: tuple[Resource, ...]) -> str:
    text = repr((kybern.__version__, definitions.VERSION, resources))
    return hashlib.sha256(text.encode()).hexdigest().upper()


def _build(resources: tuple[Resource, ...]) -> bytes:
    paths: Json = {}
    roots: set[str] = {_META + "Status", _META + "DeleteOptions", _META + "Patch"}
    for resource in resources:
        paths.update(_paths(resource, roots))
    built = {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": f"v{definitions.VERSION}"},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": _schemas(roots)},
    }
    return msgspec.json.encode(built)


# --- schemas


def _schemas(roots: Iterable[str]) -> Json:
    """The definitions that are reachable from some, in OpenAPI's form."""
    result: Json = {}
    waiting = sorted(roots)
    while waiting:
        name = waiting.pop()
        if name in result:
            continue
        found: list[str] = []
        result[name] = _SPECIAL[name] if name in _SPECIAL else _schema(definitions.read(name), found)
        waiting += [n for n in found if n not in result]
    return dict(sorted(result.items()))


_SPECIAL: Mapping[str, Json] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {
        "description": "A number with an optional suffix: m, k, M, G, T, P, E or Ki, Mi, Gi, Ti, Pi, Ei.",
        "oneOf": [{"type": "string"}, {"type": "number"}],
    },
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {
        "description": "A whole number or a string.",
        "format": "int-or-string",
        "oneOf": [{"type": "integer"}, {"type": "string"}],
    },
}

# Keywords that OpenAPI 3.0 knows and the definitions use; `enum` is there only for apiVersion and kind.
_KEPT = ("description", "format", "required", "oneOf")


def _schema(raw: Mapping[str, Any], found: list[str]) -> Json:
    """A JSON Schema as OpenAPI writes it; the names of the definitions that it refers to are added to `found`."""
    reference = raw.get("$ref")
    if reference is not None:
        name = reference.rpartition("/")[2]
        found.append(name)
        target = {"$ref": _REFERENCE + name}
        rest = {k: v for k, v in raw.items() if k == "description" or k.startswith("x-kubernetes-")}
        # Nothing may stand beside a reference.
        return {"allOf": [target], **rest} if rest else target
    result: Json = {k: v for k, v in raw.items() if k in _KEPT or k.startswith("x-kubernetes-")}
    kind = raw.get("type")
    if kind is not None:
        # Optional fields are written as [type, "null"]; OpenAPI 3.0 has no type null.
        result["type"] = next(t for t in kind if t != "null") if isinstance(kind, list) else kind
    if "properties" in raw:
        result["properties"] = {k: _schema(v, found) for k, v in raw["properties"].items()}
    if "items" in raw:
        result["items"] = _schema(raw["items"], found)
    if "additionalProperties" in raw:
        result["additionalProperties"] = _schema(raw["additionalProperties"], found)
    return result


# --- paths


def _paths(resource: Resource, roots: set[str]) -> Json:
    prefix = f"/{_relative_path(resource.group, resource.version)}"
    scope = f"{prefix}/namespaces/{{namespace}}" if resource.namespaced else prefix
    own = definitions.name_of_kind(resource.group, resource.version, resource.kind)
    listed = _list_name(resource, own)
    roots |= {own, listed}
    kind = _Kind(resource.group, resource.version, resource.kind)
    collection = f"{scope}/{resource.plural}"
    named = f"{collection}/{{name}}"
    result: Json = {
        collection: _operations(_COLLECTION, resource.verbs, kind, own, {"list": listed, **_GONE}),
        named: _operations(_OBJECT, resource.verbs, kind, own, {} if resource.delete_returns_object else _GONE),
    }
    if resource.namespaced:
        result[f"{prefix}/{resource.plural}"] = _operations(_EVERYWHERE, resource.verbs, kind, own, {"list": listed})
        result[collection]["parameters"] = [_NAMESPACE]
    result[named]["parameters"] = [_NAME, _NAMESPACE] if resource.namespaced else [_NAME]
    for subresource in resource.subresources:
        path = _subresource_path(resource, subresource, roots)
        if path:
            path["parameters"] = result[named]["parameters"]
            result[f"{named}/{subresource.name}"] = path
    return result


def _list_name(resource: Resource, own: str) -> str:
    try:
        return definitions.name_of_kind(resource.group, resource.version, f"{resource.kind}List")
    except LookupError:
        return own


def _subresource_path(resource: Resource, subresource: Subresource, roots: set[str]) -> Json:
    if subresource.version:
        kind = _Kind(subresource.group, subresource.version, subresource.kind)
    else:
        kind = _Kind(resource.group, resource.version, subresource.kind or resource.kind)
    try:
        name = definitions.name_of_kind(*kind)
    except LookupError:
        # Streams (exec, log) have no bodies.
        return {}
    roots.add(name)
    return _operations(_SUBRESOURCE, subresource.verbs, kind, name, {})


class _Kind(tuple[str, str, str]):
    """Group, version and kind."""

    __slots__ = ()

    def __new__(cls, group: str, version: str, kind: str) -> _Kind:
        return super().__new__(cls, (group, version, kind))

    def json(self) -> Json:
        return dict(zip(("group", "version", "kind"), self, strict=True))


# Verb of the API, method of HTTP, action as Kubernetes calls it.
_Operation = tuple[str, str, str]
_COLLECTION: tuple[_Operation, ...] = (
    ("list", "get", "list"), ("create", "post", "post"), ("deletecollection", "delete", "deletecollection"),
)  # fmt: skip
_EVERYWHERE: tuple[_Operation, ...] = (("list", "get", "list"),)
_OBJECT: tuple[_Operation, ...] = (
    ("get", "get", "get"), ("update", "put", "put"), ("patch", "patch", "patch"), ("delete", "delete", "delete"),
)  # fmt: skip
_SUBRESOURCE: tuple[_Operation, ...] = (("create", "post", "post"), *_OBJECT)


# What deletions answer with, unless they answer with the object.
_GONE: Mapping[str, str] = {"delete": _META + "Status", "deletecollection": _META + "Status"}


def _operations(
    wanted: tuple[_Operation, ...], verbs: Iterable[str], kind: _Kind, body: str, answers: Mapping[str, str]
) -> Json:
    """The operations of a path by method. `answers` names the definitions of other answers, by action."""
    served = set(verbs)
    return {
        method: _operation(action, kind, body, answers.get(action, body))
        for verb, method, action in wanted
        if verb in served
    }


def _operation(action: str, kind: _Kind, body: str, answer: str) -> Json:
    result: Json = {
        "parameters": [_parameter(name) for name in _PARAMETERS.get(action, ())],
        "responses": {"200": {"description": "OK", "content": _content(["application/json"], answer)}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": kind.json(),
    }
    match action:
        case "post" | "put":
            result["requestBody"] = {"required": True, "content": _content(["*/*"], body)}
        case "patch":
            result["requestBody"] = {"required": True, "content": _content(_PATCHES, _META + "Patch")}
        case "delete" | "deletecollection":
            result["requestBody"] = {"content": _content(["*/*"], _META + "DeleteOptions")}
    return result


_PATCHES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)


def _content(media_types: Iterable[str], name: str) -> Json:
    return {media_type: {"schema": {"$ref": _REFERENCE + name}} for media_type in media_types}


_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_SELECT = ("labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "resourceVersionMatch")
_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "list": (*_SELECT, "watch", "allowWatchBookmarks", "sendInitialEvents", "timeoutSeconds"),
    "post": _WRITE,
    "put": _WRITE,
    "patch": (*_WRITE, "force"),
    "delete": ("dryRun", "gracePeriodSeconds", "propagationPolicy"),
    "deletecollection": ("dryRun", "gracePeriodSeconds", "propagationPolicy", *_SELECT),
}
_TYPES: Mapping[str, str] = {
    "allowWatchBookmarks": "boolean",
    "force": "boolean",
    "gracePeriodSeconds": "integer",
    "limit": "integer",
    "sendInitialEvents": "boolean",
    "timeoutSeconds": "integer",
    "watch": "boolean",
}


def _parameter(name: str) -> Json:
    return {"name": name, "in": "query", "schema": {"type": _TYPES.get(name, "string"), "uniqueItems": True}}


_NAME: Json = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "uniqueItems": True}}
_NAMESPACE: Json = {**_NAME, "name": "namespace"}
