"""JSON patch (RFC 6902), by the package `jsonpatch`."""

from __future__ import annotations

from typing import Any

import jsonpatch
import msgspec

from kybern.api.errors import Reason, StatusError, bad_request, too_large

# Kubernetes' bounds: operations in one patch, and bytes that its `copy` operations may add up to. Without the second
# a short patch of copies doubles a document again and again.
_MOST_OPERATIONS = 10_000
_MOST_COPIED = 3 * 1024 * 1024


def apply_operations(document: dict[str, Any], patch: Any) -> dict[str, Any]:
    """The document after the operations; the given one is used up.

    Raises:
        StatusError: 400 when the patch is not a list of operations, 413 when it is too large, 422 when an operation
            does not fit the document.
    """
    if not isinstance(patch, list):
        raise bad_request("a JSON patch must be a list of operations")
    if len(patch) > _MOST_OPERATIONS:
        raise too_large(f"the allowed maximum operations in a JSON patch is {_MOST_OPERATIONS}, got {len(patch)}")
    result: Any = document
    copied = 0
    for index, operation in enumerate(patch):
        where = f"operation {index} of the JSON patch"
        try:
            if isinstance(operation, dict) and operation.get("op") == "copy":
                copied += _size(result, operation)
                if copied > _MOST_COPIED:
                    raise too_large(f"the copy operations of the patch add up to more than {_MOST_COPIED} bytes")
            result = jsonpatch.JsonPatch([operation]).apply(result, in_place=True)
        # The library's own texts show whole documents, so ours take their place.
        except jsonpatch.JsonPatchTestFailed:
            raise _refused(f"{where}: testing path {operation['path']} failed: it has another value") from None
        except (jsonpatch.JsonPatchConflict, jsonpatch.JsonPointerException):
            raise _refused(f"{where}: {operation['op']} {_paths(operation)}: no such place in the object") from None
        except (jsonpatch.InvalidJsonPatch, KeyError, TypeError, AttributeError, ValueError):
            raise bad_request(
                f"{where} is not valid: it must be an object with op, path and what the op needs"
            ) from None
    if not isinstance(result, dict):
        raise _refused("the JSON patch leaves no object")
    return result


def _size(document: Any, operation: dict[str, Any]) -> int:
    """Bytes that a copy operation copies."""
    return len(msgspec.json.encode(jsonpatch.JsonPointer(operation["from"]).resolve(document)))


def _paths(operation: dict[str, Any]) -> str:
    return " to ".join(str(operation[k]) for k in ("from", "path") if k in operation)


def _refused(reason: str) -> StatusError:
    message = f"the server rejected our request due to an error in our request: {reason}"
    return StatusError(422, Reason.INVALID, message)
