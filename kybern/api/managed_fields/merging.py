"""Merges what a manager applies into an object, and removes what nobody applies any more."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from kybern.api.managed_fields.elements import ItemKey, MissingKeyError, element, keys_of, shown, strict_keys_of
from kybern.api.managed_fields.sets import Fields
from kybern.api.metadata import copy_json
from kybern.api.schema import Schema, SchemaType


class NotMergeableError(ValueError):
    """The applied configuration names list items in a way that does not tell them apart; the text says where."""


def check(schema: Schema, applied: Mapping[str, Any], path: tuple[str, ...] = ()) -> None:
    """Check that the items of keyed lists in an applied configuration have keys, each of its own.

    Raises:
        NotMergeableError: when they do not.
    """
    for key, value in applied.items():
        child = schema.child(key)
        if child is not None:
            _check(child, value, (*path, f"f:{key}"))


def _check(schema: Schema, value: Any, path: tuple[str, ...]) -> None:
    if isinstance(value, dict):
        check(schema, value, path)
    elif isinstance(value, list) and schema.type is SchemaType.ARRAY:
        try:
            keys = strict_keys_of(schema, value)
        except MissingKeyError as error:
            raise NotMergeableError(f"{shown(path)}: {error}") from None
        if keys is None:
            return
        seen: set[ItemKey] = set()
        for key, item in zip(keys, value, strict=True):
            here = (*path, element(schema, key))
            if key in seen:
                raise NotMergeableError(f"{shown(path)}: duplicate entries for key {shown(here[-1:])}")
            seen.add(key)
            if schema.items is not None:
                _check(schema.items, item, here)


def merge(schema: Schema | None, live: Any, applied: Any) -> Any:
    """The live value with the applied one merged in; shares nothing with either."""
    if isinstance(applied, dict) and isinstance(live, dict) and not (schema is not None and _atomic(schema)):
        result = {k: copy_json(v) for k, v in live.items() if k not in applied}
        merged = {k: merge(schema.child(k) if schema else None, live.get(k), v) for k, v in applied.items()}
        # In the order of the live object, so that an unchanged object stays the same byte for byte.
        return {k: merged.pop(k) if k in merged else result[k] for k in live} | merged
    if isinstance(applied, list) and isinstance(live, list) and schema is not None:
        return _merge_lists(schema, live, applied)
    return copy_json(applied)


def _atomic(schema: Schema) -> bool:
    return schema.atomic or (schema.preserve_unknown and not schema.properties)


def _merge_lists(schema: Schema, live: list[Any], applied: list[Any]) -> list[Any]:
    live_keys, applied_keys = keys_of(schema, live), keys_of(schema, applied)
    if live_keys is None or applied_keys is None:
        return list(copy_json(applied))
    present = dict(zip(live_keys, live, strict=True))
    wanted = dict(zip(applied_keys, applied, strict=True))
    left = deque((place, key) for place, key in enumerate(live_keys) if key not in wanted)
    bounds = _bounds({key: place for place, key in enumerate(live_keys)}, applied_keys)
    result: list[Any] = []
    for (key, item), bound in zip(wanted.items(), bounds, strict=True):
        # Items of others stay in front of what they were in front of.
        while left and left[0][0] < bound:
            result.append(copy_json(present[left.popleft()[1]]))
        result.append(merge(schema.items, present[key], item) if key in present else copy_json(item))
    return result + [copy_json(present[key]) for _, key in left]


def _bounds(places: Mapping[ItemKey, int], applied: Sequence[ItemKey]) -> list[int]:
    """Per applied item, the place in the live list that it stands at: its own, or that of the next one that has one.

    New items at the end stand behind everything.
    """
    bound = len(places)
    result = []
    for key in reversed(applied):
        bound = places.get(key, bound)
        result.append(bound)
    return result[::-1]


def remove(schema: Schema | None, value: Any, fields: Fields, owned: Fields) -> Any:
    """Remove, in place, what a set names and no owner has: the value without it.

    Args:
        schema: Schema of the value.
        value: An object or list.
        fields: What the manager owned until now, below this value.
        owned: What any manager owns from now on, below this value.
    """
    if isinstance(value, dict):
        for key in list(value):
            below = fields.get(f"f:{key}")
            if below is None:
                continue
            kept = owned.get(f"f:{key}")
            if kept is None:
                del value[key]
            elif below and kept:
                value[key] = remove(schema.child(key) if schema is not None else None, value[key], below, kept)
    elif isinstance(value, list) and schema is not None:
        keys = keys_of(schema, value)
        if keys is not None:
            return _remove_items(schema, value, keys, fields, owned)
    return value


def _remove_items(
    schema: Schema, value: list[Any], keys: Sequence[ItemKey], fields: Fields, owned: Fields
) -> list[Any]:
    result = []
    for key, item in zip(keys, value, strict=True):
        name = element(schema, key)
        below, kept = fields.get(name), owned.get(name)
        if below is not None and kept is None:
            continue
        result.append(remove(schema.items, item, below, kept) if below and kept else item)
    return result
