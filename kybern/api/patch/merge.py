"""JSON merge patch (RFC 7386)."""

from __future__ import annotations

from typing import Any


def merge(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Merge a patch into a document, in place; null deletes, objects merge, everything else replaces."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            present = target.get(key)
            target[key] = merge(present if isinstance(present, dict) else {}, value)
        else:
            target[key] = value
    return target
