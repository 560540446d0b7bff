"""Sets of fields in the form that Kubernetes stores them in (FieldsV1): tries of nested objects.

Keys are path elements: `f:NAME` a field, `k:{"name":"x"}` the list item with those keys, `v:"x"` the list item of that
value.
A node without content is a member of the set; a node with content is a member when it has the key `.`. So

    {"f:spec": {"f:replicas": {}, "f:template": {".": {}, "f:spec": {}}}}

holds `.spec.replicas`, `.spec.template` and `.spec.template.spec`. The root is never a member, and the empty set is {}.

The functions change nothing and share what stays the same: a result that equals the first argument is that argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# A node of a set.
Fields = dict[str, Any]

_SELF = "."
MEMBER: Fields = {}


def is_member(node: Fields) -> bool:
    """Whether the path that leads to a node belongs to the set."""
    return not node or _SELF in node


def union(left: Fields, right: Fields) -> Fields:
    """What is in either set."""
    result: Fields | None = None
    for key, node in right.items():
        present = left.get(key)
        if present is None:
            merged = node
        elif present is node or present == node:
            continue
        else:
            merged = _union(present, node)
            if merged is present:
                continue
        if result is None:
            result = dict(left)
        result[key] = merged
    return left if result is None else result


def _union(left: Fields, right: Fields) -> Fields:
    if not right:
        return left if is_member(left) else {_SELF: {}, **left}
    if not left:
        return right if _SELF in right else {_SELF: {}, **right}
    return union(left, right)


def difference(left: Fields, right: Fields) -> Fields:
    """What is in the first set and not in the second; members below a member stay."""
    result: Fields | None = None
    for key, node in right.items():
        present = left.get(key)
        if present is None:
            continue
        rest = _difference(present, node)
        if rest is present:
            continue
        if result is None:
            result = dict(left)
        if rest is None:
            del result[key]
        else:
            result[key] = rest
    return left if result is None else result


def _difference(left: Fields, right: Fields) -> Fields | None:
    """The rest of a node; None when nothing is left of it."""
    if not left:
        return None if is_member(right) else left
    rest = difference(left, right)
    if not right and _SELF in left:
        rest = {k: v for k, v in left.items() if k != _SELF}
    # A node that has lost all of its content must not look like a member.
    return rest or None


def without_subtrees(fields: Fields, roots: Fields) -> Fields:
    """The set without the members of another one, and without everything below them."""
    result: Fields | None = None
    for key, node in roots.items():
        present = fields.get(key)
        if present is None or key == _SELF:
            continue
        rest: Fields | None
        if is_member(node):
            rest = None
        elif not present:
            continue
        else:
            rest = without_subtrees(present, node) or None
            if rest is present:
                continue
        if result is None:
            result = dict(fields)
        if rest is None:
            del result[key]
        else:
            result[key] = rest
    return fields if result is None else result


def intersection(left: Fields, right: Fields) -> Fields:
    """What is in both sets."""
    result: Fields = {}
    for key, node in left.items():
        other = right.get(key)
        if other is None:
            continue
        both = _intersection(node, other)
        if both is not None:
            result[key] = both
    return result


def _intersection(left: Fields, right: Fields) -> Fields | None:
    member = is_member(left) and is_member(right)
    below = intersection(left, right) if left and right else {}
    below.pop(_SELF, None)
    if not below:
        return {} if member else None
    return {_SELF: {}, **below} if member else below


def members(fields: Fields, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of a set, as tuples of path elements, in order."""
    for key in sorted(fields):
        if key == _SELF:
            continue
        path = (*prefix, key)
        if is_member(fields[key]):
            yield path
        yield from members(fields[key], path)


def from_paths(paths: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> Fields:
    """The set of some paths."""
    result: Fields = {}
    for path in paths:
        result = union(result, _single(path))
    return result


def _single(path: tuple[str, ...]) -> Fields:
    node: Fields = {}
    for element in reversed(path):
        node = {element: node}
    return node


def valid(fields: Any) -> bool:
    """Whether a value is a set: nothing but objects, and known kinds of path elements."""
    if not isinstance(fields, dict):
        return False
    return all((key == _SELF or key[:2] in ("f:", "k:", "v:", "i:")) and valid(node) for key, node in fields.items())
