"""Patches: JSON patch, merge patch and strategic merge patch, applied to a document.

Server-side apply is not a patch in this sense: `kybern.api.managed_fields.apply`.
"""

from __future__ import annotations

from typing import Any

from kybern.api.errors import bad_request
from kybern.api.metadata import copy_json
from kybern.api.patch.merge import merge
from kybern.api.patch.operations import apply_operations
from kybern.api.patch.strategic import merge_strategically
from kybern.api.schema import Schema
from kybern.client.interface import PatchType

__all__ = ["apply_patch"]


def apply_patch(schema: Schema, current: dict[str, Any], patch: Any, type: PatchType) -> dict[str, Any]:  # noqa: A002
    """The document that a patch makes of `current`; neither is changed, and the result shares nothing with them.

    `schema` is that of the document; only strategic merge patches ask it which lists to merge, and by what.

    Raises:
        StatusError: 400 when the patch is not of its type's form; 413 when it is too large; 422 when it does not fit
            the document.
    """
    try:
        return _apply(schema, current, patch, type)
    except RecursionError:
        raise bad_request("the patch is nested too deep") from None


def _apply(schema: Schema, current: dict[str, Any], patch: Any, type: PatchType) -> dict[str, Any]:  # noqa: A002
    if type is PatchType.JSON:
        return apply_operations(copy_json(current), copy_json(patch))
    if not isinstance(patch, dict):
        raise bad_request("the patch must be a JSON object")
    if type is PatchType.MERGE:
        return merge(copy_json(current), copy_json(patch))
    if type is PatchType.STRATEGIC:
        return merge_strategically(schema, copy_json(current), copy_json(patch))
    raise ValueError(f"{type} is not applied to a document")
