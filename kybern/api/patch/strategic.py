"""Kubernetes' strategic merge patch: a merge patch that knows by which key the items of a list are told apart.

What the directives of a patch mean:

- `$patch: replace` in an object (or as an item of a list) puts the patch's content in place of what is there;
  `$patch: delete` empties the object, or removes the list item with the same key;
- `$setElementOrder/FIELD` gives the order of the items of a list; items that it does not name keep their place
  relative to their old neighbours;
- `$deleteFromPrimitiveList/FIELD` names values to remove from a list of scalars;
- `$retainKeys` names the only keys that may stay in an object (a volume whose source changes, a strategy).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from kybern.api.errors import Reason, StatusError, bad_request
from kybern.api.schema import Schema

_PATCH = "$patch"
_RETAIN_KEYS = "$retainKeys"
_DELETE_FROM = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"

# Values that list keys have when an item does not say.
KEY_DEFAULTS = {"protocol": "TCP"}


def merge_strategically(schema: Schema | None, target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Merge a patch into a document, in place where possible; both are used up.

    Raises:
        StatusError: 400 when a directive is not of its form, 422 when an item has no key to merge by.
    """
    directive = patch.pop(_PATCH, None)
    if directive == "replace":
        return _without_directives(schema, patch)
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(f"unknown patch type {directive!r} in {_PATCH}: must be replace, delete or merge")
    _retain(target, patch)
    orders = _take(patch, _ORDER)
    deletions = _take(patch, _DELETE_FROM)
    for field, values in deletions.items():
        if isinstance(target.get(field), list):
            target[field] = [item for item in target[field] if item not in values]
    for key, value in patch.items():
        child = schema.child(key) if schema is not None else None
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            target[key] = _merge_object(child, target.get(key), value)
        elif isinstance(value, list) and child is not None and "merge" in child.patch_strategy:
            target[key] = _merge_list(child, target.get(key), value, orders.get(key))
        else:
            target[key] = value
    for field, order in orders.items():
        if field not in patch and isinstance(target.get(field), list):
            child = schema.child(field) if schema is not None else None
            target[field] = _ordered(_keys_of(child, order), target[field], target[field], order)
    return target


def _take(patch: dict[str, Any], prefix: str) -> dict[str, list[Any]]:
    """Remove the directives with a prefix from a patch; their lists by field."""
    found = [key for key in patch if key.startswith(prefix)]
    result = {}
    for key in found:
        value = patch.pop(key)
        if not isinstance(value, list):
            raise bad_request(f"invalid patch format: {key} must be a list")
        result[key.removeprefix(prefix)] = value
    return result


def _retain(target: dict[str, Any], patch: dict[str, Any]) -> None:
    keep = patch.pop(_RETAIN_KEYS, None)
    if keep is None:
        return
    if not isinstance(keep, list):
        raise bad_request(f"invalid patch format: {_RETAIN_KEYS} must be a list of keys")
    for key, value in patch.items():
        if value is not None and not key.startswith("$") and key not in keep:
            raise bad_request(f"invalid patch format: {_RETAIN_KEYS} does not name {key!r}, which the patch sets")
    for key in [k for k in target if k not in keep]:
        del target[key]


def _merge_object(schema: Schema | None, present: Any, value: dict[str, Any]) -> dict[str, Any]:
    if schema is not None and "replace" in schema.patch_strategy:
        return _without_directives(schema, value)
    return merge_strategically(schema, present if isinstance(present, dict) else {}, value)


def _without_directives(schema: Schema | None, patch: dict[str, Any]) -> dict[str, Any]:
    """The content of a patch, with nothing to merge it into."""
    return merge_strategically(schema, {}, {k: v for k, v in patch.items() if k not in (_PATCH, _RETAIN_KEYS)})


# --- lists


def _merge_list(schema: Schema, present: Any, patch: list[Any], order: list[Any] | None) -> list[Any]:
    before: list[Any] = present if isinstance(present, list) else []
    if not schema.patch_merge_key:
        merged = [*before, *(item for item in dict.fromkeys(patch) if item not in before)]
        return merged if order is None else _ordered(lambda item: item, merged, before, order)
    merger = _ItemMerger(schema, list(before), order)
    merged = merger.merge(patch)
    if order is None or merger.replaced:
        return merged
    return _ordered(merger.key, merged, before, order)


class _ItemMerger:
    """Merges items of a list of objects by their key."""

    def __init__(self, schema: Schema, items: list[Any], order: list[Any] | None) -> None:
        self._schema = schema.items
        self._merge_key = schema.patch_merge_key
        self._all_keys = schema.list_map_keys or (schema.patch_merge_key,)
        self._items = items
        self._order = order
        self.replaced = False

    def key(self, item: Any) -> Hashable:
        value = item.get(self._merge_key) if isinstance(item, dict) else None
        if value is None or isinstance(value, dict | list):
            message = f"map: {item} does not contain declared merge key: {self._merge_key}"
            raise StatusError(422, Reason.INVALID, message)
        kept: Hashable = value
        return kept

    def merge(self, patch: list[Any]) -> list[Any]:
        plain = []
        for item in patch:
            directive = item.pop(_PATCH, None) if isinstance(item, dict) else None
            if directive is None:
                plain.append(item)
            elif directive == "delete":
                self._delete(item)
            elif directive == "replace":
                self.replaced = True
                plain += [item] if item else []
            else:
                raise bad_request(f"unknown patch type {directive!r} in an item of a list: must be replace or delete")
        if self.replaced:
            self._items = []
        self._check_order(plain)
        for item in plain:
            self._merge_one(item, plain)
        return self._items

    def _delete(self, item: dict[str, Any]) -> None:
        self.key(item)
        self._items = [kept for kept in self._items if any(kept.get(k) != v for k, v in item.items())]

    def _check_order(self, plain: list[Any]) -> None:
        if self._order is None:
            return
        named = {self.key(entry) for entry in self._order}
        for item in plain:
            if self.key(item) not in named:
                raise bad_request(
                    f"the item with {self._merge_key}={item[self._merge_key]} is not in $setElementOrder of its list"
                )

    def _merge_one(self, item: dict[str, Any], plain: list[Any]) -> None:
        at = self._find(item, plain)
        if at is None:
            self._items.append(_without_directives(self._schema, item))
        else:
            self._items[at] = merge_strategically(self._schema, self._items[at], item)

    def _find(self, item: dict[str, Any], plain: list[Any]) -> int | None:
        """Where the item is that a patch item means.

        Ports are told apart by two fields, port and protocol, but clients merge by the port alone. So an item is met
        by its merge key as long as that says which one; only when the patch or the list holds several of that key do
        the other fields decide.
        """
        key = self.key(item)
        candidates = [i for i, kept in enumerate(self._items) if isinstance(kept, dict) and self.key(kept) == key]
        if not candidates:
            return None
        several = len(candidates) > 1 or self._count(plain, key) > 1 or self._count(self._order or (), key) > 1
        if len(self._all_keys) == 1 or not several:
            return candidates[0]
        full = self._full_key(item)
        exact = next((i for i in candidates if self._full_key(self._items[i]) == full), None)
        if exact is None and all(k in item for k in self._all_keys):
            return None
        return exact if exact is not None else candidates[0]

    def _count(self, items: Sequence[Any], key: Hashable) -> int:
        return sum(1 for item in items if self.key(item) == key)

    def _full_key(self, item: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(item.get(k, KEY_DEFAULTS.get(k)) for k in self._all_keys)


def _keys_of(schema: Schema | None, order: list[Any]) -> Callable[[Any], Hashable]:
    """How the items of a list are told apart; by what the order names when the schema does not say."""
    if schema is not None and schema.patch_merge_key:
        merge_key = schema.patch_merge_key
    elif order and isinstance(order[0], dict) and len(order[0]) == 1:
        merge_key = next(iter(order[0]))
    else:
        return _frozen
    return lambda item: _frozen(item.get(merge_key) if isinstance(item, dict) else item)


def _frozen(value: Any) -> Hashable:
    return value if isinstance(value, Hashable) else repr(value)


def _ordered(key: Callable[[Any], Hashable], merged: list[Any], before: list[Any], order: list[Any]) -> list[Any]:
    """The merged items: those that `order` names in its order, the others where they were relative to the old ones."""
    wanted = {key(entry): place for place, entry in reversed(list(enumerate(order)))}
    old = {key(item): place for place, item in reversed(list(enumerate(before)))}
    named = sorted((item for item in merged if key(item) in wanted), key=lambda item: wanted[key(item)])
    others = [item for item in merged if key(item) not in wanted]
    result: list[Any] = []
    at = 0
    for item in named:
        here = old.get(key(item))
        while at < len(others) and here is not None and key(others[at]) in old and old[key(others[at])] < here:
            result.append(others[at])
            at += 1
        result.append(item)
    return result + others[at:]
