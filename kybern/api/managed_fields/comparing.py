"""Which fields a change touches, and which fields a document has.

Equal parts are found by comparing them in C, so the cost of a change is that of what differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kybern.api.managed_fields.elements import element, keys_of
from kybern.api.managed_fields.sets import Fields
from kybern.api.schema import Schema, SchemaType

# Fields that no manager owns: the system sets them, or they say which object it is.
UNOWNED: Mapping[str, frozenset[str]] = {
    "": frozenset({"apiVersion", "kind"}),
    "metadata": frozenset(
        {
            "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields",
            "resourceVersion",
        }
    ),
}  # fmt: skip

# Structs that are there in every object, even an empty one: a new object does not bring them, so nobody owns them as
# such, only what is in them.
_ALWAYS_THERE = frozenset({"metadata", "spec", "status", "strategy", "template", "containers"})


@dataclass(slots=True)
class Comparison:
    """What differs between two documents: `changed` are new and changed fields; `removed` the tops of what is gone."""

    changed: Fields = field(default_factory=dict)
    removed: Fields = field(default_factory=dict)


def compare(schema: Schema, old: Mapping[str, Any], new: Mapping[str, Any], ignored: frozenset[str]) -> Comparison:
    """Compare two documents of one kind; `ignored` top-level fields are taken as equal."""
    skip = UNOWNED[""] | ignored
    result = Comparison()
    for key in new.keys() | old.keys():
        if key in skip:
            continue
        before, after = old.get(key), new.get(key)
        if key == "metadata":
            before, after = _owned_metadata(before), _owned_metadata(after)
        changed, removed = _field(schema.child(key), key, before, after, there=True)
        if changed is not None:
            result.changed[f"f:{key}"] = changed
        if removed is not None:
            result.removed[f"f:{key}"] = removed
    return result


def _owned_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    unowned = UNOWNED["metadata"]
    return {k: v for k, v in (metadata or {}).items() if k not in unowned}


# A part of both sets; None where it has nothing.
_Parts = tuple[Fields | None, Fields | None]
_NOTHING: _Parts = (None, None)


def _field(schema: Schema | None, key: str, old: Any, new: Any, *, there: bool) -> _Parts:
    if old is new or old == new:
        # 1 == True == 1.0 in Python; a change of type alone is caught by the schema long before.
        return _NOTHING
    if new is None:
        return None, {}
    there = there and key in _ALWAYS_THERE
    if old is None:
        return _whole(schema, new, there=there), None
    if isinstance(new, dict) and isinstance(old, dict) and not _atomic(schema):
        return _object(schema, old, new, there=there)
    if isinstance(new, list) and isinstance(old, list) and schema is not None:
        return _list(schema, old, new)
    return {}, None


def _atomic(schema: Schema | None) -> bool:
    """Whether an object is owned as a whole. Objects of an unknown schema are not."""
    return schema is not None and (schema.atomic or (schema.preserve_unknown and not schema.properties))


def _object(schema: Schema | None, old: dict[str, Any], new: dict[str, Any], *, there: bool) -> _Parts:
    changed: Fields = {}
    removed: Fields = {}
    for key, after in new.items():
        before = old.get(key)
        if before is after or before == after:
            continue
        more, less = _field(schema.child(key) if schema is not None else None, key, before, after, there=there)
        if more is not None:
            changed[f"f:{key}"] = more
        if less is not None:
            removed[f"f:{key}"] = less
    if len(old) > len(new) or old.keys() - new.keys():
        for key in old.keys() - new.keys():
            removed[f"f:{key}"] = {}
    return changed or None, removed or None


def _list(schema: Schema, old: list[Any], new: list[Any]) -> _Parts:
    old_keys, new_keys = keys_of(schema, old), keys_of(schema, new)
    if old_keys is None or new_keys is None:
        return {}, None
    before = dict(zip(old_keys, old, strict=True))
    changed: Fields = {}
    removed: Fields = {}
    for key, after in zip(new_keys, new, strict=True):
        old_item = before.pop(key, None)
        if old_item == after:
            continue
        more, less = _field(schema.items, "", old_item, after, there=False)
        if more is not None:
            changed[element(schema, key)] = more
        if less is not None:
            removed[element(schema, key)] = less
    for key in before:
        removed[element(schema, key)] = {}
    return changed or None, removed or None


def _whole(schema: Schema | None, value: Any, *, there: bool) -> Fields:
    """The set below a value that is new: the value itself and everything in it."""
    if isinstance(value, dict) and value and not _atomic(schema):
        content: Fields = {} if there else {".": {}}
        for key, item in value.items():
            child = schema.child(key) if schema is not None else None
            content[f"f:{key}"] = _whole(child, item, there=there and key in _ALWAYS_THERE)
        return content
    if isinstance(value, list) and value and schema is not None:
        keys = keys_of(schema, value)
        if keys is not None:
            content = {} if there else {".": {}}
            for key, item in zip(keys, value, strict=True):
                content[element(schema, key)] = _whole(schema.items, item, there=False)
            return content
    return {}


# --- what a document has


def fields_of(schema: Schema, document: Mapping[str, Any]) -> Fields:
    """The set of the fields that a document has: leaves, empty objects and lists, and items of keyed lists."""
    result: Fields = {}
    for key, value in document.items():
        if key in UNOWNED[""]:
            continue
        child = schema.child(key)
        if key == "metadata":
            kept = _owned_metadata(value)
            below = {f"f:{k}": _leaves(child.child(k) if child else None, v) for k, v in kept.items()}
            if below:
                result["f:metadata"] = below
        else:
            result[f"f:{key}"] = _leaves(child, value)
    return result


def _leaves(schema: Schema | None, value: Any) -> Fields:
    if isinstance(value, dict) and value and not _atomic(schema):
        return {f"f:{k}": _leaves(schema.child(k) if schema is not None else None, v) for k, v in value.items()}
    if isinstance(value, list) and value and schema is not None and schema.type is SchemaType.ARRAY:
        keys = keys_of(schema, value)
        if keys is not None:
            return {
                element(schema, key): _item_leaves(schema.items, item) for key, item in zip(keys, value, strict=True)
            }
    return {}


def _item_leaves(schema: Schema | None, item: Any) -> Fields:
    """An item of a keyed list belongs to the set itself, besides what is in it."""
    below = _leaves(schema, item)
    return {".": {}, **below} if below else {}
