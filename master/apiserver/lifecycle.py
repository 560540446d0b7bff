"""How objects end: grace, finalizers, propagation. Pure decisions on documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kybern.api import resources
from kybern.api.metadata import copy_json
from kybern.api.resources import Resource
from kybern.clock import rfc3339

Document = dict[str, Any]

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
DEFAULT_GRACE = 30


def removable(resource: Resource, document: Mapping[str, Any]) -> bool:
    """Whether an object that is being deleted has nothing left to wait for."""
    metadata = document["metadata"]
    if "deletionTimestamp" not in metadata or metadata.get("finalizers"):
        return False
    if resource == resources.NAMESPACES and (document.get("spec") or {}).get("finalizers"):
        return False
    return not metadata.get("deletionGracePeriodSeconds")


@dataclass(frozen=True, slots=True)
class Ending:
    """What a deletion makes of an object: its next document, whether it is gone, whether anything changes."""

    document: Document
    gone: bool
    changed: bool = True


def begin(resource: Resource, old: Document, *, grace: int | None, propagation: str, now: datetime) -> Ending:
    """The next step of deleting an object.

    Args:
        resource: Its resource.
        old: The object as it is.
        grace: Seconds that the request gives it; None for the object's own.
        propagation: Background, Foreground, Orphan, or empty for the kind's default.
        now: The time.
    """
    new: Document = copy_json(old)
    _set_finalizers(new, propagation)
    seconds = _grace(resource, old, grace)
    metadata = new["metadata"]
    if "deletionTimestamp" in metadata:
        seconds = _shorten(metadata, seconds, grace)
    else:
        metadata["deletionTimestamp"] = rfc3339(now + timedelta(seconds=seconds))
        metadata["deletionGracePeriodSeconds"] = seconds
        if metadata.get("generation"):
            metadata["generation"] += 1
    if resource == resources.NAMESPACES:
        new.setdefault("status", {})["phase"] = "Terminating"
    gone = removable(resource, new)
    if gone:
        return Ending(old, True)
    return Ending(new, False, changed=new != old)


def _grace(resource: Resource, document: Mapping[str, Any], asked: int | None) -> int:
    """Seconds that the object may still take."""
    if not resource.graceful:
        return 0
    spec, status = document.get("spec") or {}, document.get("status") or {}
    # Nobody has to stop what does not run.
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    seconds = int(spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE) if asked is None else asked)
    # Negative: the deprecated way to say "at once, but let the node know".
    return seconds if seconds >= 0 else 1


def _shorten(metadata: dict[str, Any], seconds: int, asked: int | None) -> int:
    """A second deletion may shorten the time that the first one gave, never lengthen it."""
    before = int(metadata.get("deletionGracePeriodSeconds") or 0)
    if (asked is None and seconds) or seconds >= before:
        return before
    ends = datetime.fromisoformat(metadata["deletionTimestamp"]).astimezone(UTC)
    metadata["deletionTimestamp"] = rfc3339(ends - timedelta(seconds=before - seconds))
    metadata["deletionGracePeriodSeconds"] = seconds
    return seconds


def _set_finalizers(document: Document, propagation: str) -> None:
    """Finalizers tell the garbage collector what to do with the dependents before the object goes."""
    if not propagation:
        return
    metadata = document["metadata"]
    kept = [f for f in metadata.get("finalizers") or () if f not in (FOREGROUND, ORPHAN)]
    wanted = {"Foreground": [FOREGROUND], "Orphan": [ORPHAN]}.get(propagation, [])
    finalizers = [*kept, *wanted]
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
