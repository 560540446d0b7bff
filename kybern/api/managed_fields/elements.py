"""Path elements: how list items are named in a set, and how paths are shown to people."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from kybern.api.schema import ListType, Schema

# Keys of list items that Kubernetes fills in before it tells items apart.
_KEY_DEFAULTS: Mapping[str, Any] = {"protocol": "TCP"}

ItemKey = tuple[Any, ...]


class MissingKeyError(ValueError):
    """An item of a keyed list has no value for one of the keys."""


def keys_of(schema: Schema, items: Sequence[Any]) -> list[ItemKey] | None:
    """What tells the items of a list apart; None when the list is owned as a whole.

    Lists are owned as a whole when the schema says so, and when their items cannot be told apart.
    """
    try:
        keys = strict_keys_of(schema, items)
    except MissingKeyError:
        return None
    return keys if keys is not None and len(set(keys)) == len(keys) else None


def strict_keys_of(schema: Schema, items: Sequence[Any]) -> list[ItemKey] | None:
    """As `keys_of`, but items without a key are an error, and items of equal keys are not looked for.

    Raises:
        MissingKeyError: when an item lacks a key; the text names the key.
    """
    if schema.list_type is ListType.MAP:
        names = schema.list_map_keys
        return [_item_key(names, item) for item in items]
    if schema.list_type is ListType.SET:
        if not all(isinstance(item, Hashable) for item in items):
            return None
        # True == 1 in Python, but not in JSON.
        return [(item, type(item) is bool) for item in items]
    return None


def _item_key(names: tuple[str, ...], item: Any) -> ItemKey:
    if not isinstance(item, dict):
        raise MissingKeyError(f'an item that is not an object has no key field "{names[0]}"')
    key = []
    for name in names:
        value = item.get(name)
        if value is None:
            value = _KEY_DEFAULTS.get(name)
            if value is None:
                raise MissingKeyError(f'associative list with keys has an element that omits key field "{name}"')
        if isinstance(value, dict | list):
            raise MissingKeyError(f'key field "{name}" must be a scalar')
        key.append(value)
    return tuple(key)


# Longer keys must not fill the caches.
_MOST_CACHED = 256


def element(schema: Schema, key: ItemKey) -> str:
    """The path element of a list item."""
    if schema.list_type is ListType.SET:
        return _value_element(key) if _is_short(key[0]) else _written_value(key)
    names = schema.list_map_keys
    if len(key) == 1 and _is_short(key[0]):
        return _key_element(names, key, (type(key[0]),))
    return _key_element(names, key, tuple(map(type, key))) if all(map(_is_short, key)) else _written_key(names, key)


def _is_short(value: Any) -> bool:
    return not isinstance(value, str) or len(value) <= _MOST_CACHED


@lru_cache(maxsize=8192)
def _key_element(names: tuple[str, ...], key: ItemKey, types: tuple[type, ...]) -> str:
    del types  # part of the cache's key: 1, 1.0 and True are equal in Python
    return _written_key(names, key)


def _written_key(names: tuple[str, ...], key: ItemKey) -> str:
    fields = dict(sorted(zip(names, key, strict=True)))
    return "k:" + msgspec.json.encode(fields).decode()


def _written_value(key: ItemKey) -> str:
    return "v:" + msgspec.json.encode(key[0]).decode()


_value_element = lru_cache(maxsize=2048)(_written_value)


def shown(path: Sequence[str]) -> str:
    """A path as Kubernetes shows it: `.spec.containers[name="web"].image`."""
    return "".join(_shown(e) for e in path)


def _shown(path_element: str) -> str:
    kind, text = path_element[:2], path_element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "k:":
        keys = msgspec.json.decode(text)
        return "[" + ",".join(f"{name}={msgspec.json.encode(value).decode()}" for name, value in keys.items()) + "]"
    if kind == "v:":
        return f"[={text}]"
    return f"[{text}]"
