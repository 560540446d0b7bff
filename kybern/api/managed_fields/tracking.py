"""Keeps `metadata.managedFields` when objects are created, replaced or patched (everything but server-side apply)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kybern.api.managed_fields import entries, sets
from kybern.api.managed_fields.comparing import Comparison, compare
from kybern.api.managed_fields.entries import UPDATE, Entry, Manager
from kybern.api.schema import Schema
from kybern.clock import rfc3339

# Written through its subresource alone, so writes of the object itself own nothing of it.
_STATUS = frozenset({"status"})
_NONE: frozenset[str] = frozenset()


def ignored_fields(subresource: str, *, status_isolated: bool) -> frozenset[str]:
    """Top-level fields that a write does not touch, whatever is in the document."""
    return _STATUS if not subresource and status_isolated else _NONE


def track_update(
    schema: Schema,
    old: dict[str, Any] | None,
    new: dict[str, Any],
    *,
    manager: str,
    api_version: str,
    subresource: str,
    now: datetime,
    status_isolated: bool = True,
) -> None:
    """Record in a new state of an object which fields its writer has changed, in place.

    The writer owns what it has set or changed; nobody else owns that any more, and nobody owns what is gone. A write
    that changes no field changes no entry.

    Args:
        schema: Schema of the object.
        old: The object before; None when it is new. It is not changed, but the result shares entries with it.
        new: The object after the write, defaulted.
        manager: Name of the field manager.
        api_version: API version of the request.
        subresource: Subresource that was written to; empty for the object itself.
        now: Time of the write.
        status_isolated: Whether the object has a `status` subresource.
    """
    listed = entries.current(old, new, subresource)
    ignored = ignored_fields(subresource, status_isolated=status_isolated)
    compared = compare(schema, old or {}, new, ignored)
    if compared.changed or compared.removed:
        own = Manager(manager, UPDATE, api_version, subresource)
        listed = [_after(entry, compared) for entry in listed]
        if compared.changed:
            listed = _take(listed, own, compared.changed, now)
    entries.store(new, listed)


def _after(entry: Entry, compared: Comparison) -> Entry:
    """An entry without what somebody else has changed or removed."""
    before = entry.get("fieldsV1") or {}
    after = sets.difference(before, compared.changed) if compared.changed else before
    if compared.removed:
        after = sets.without_subtrees(after, compared.removed)
    return entry if after is before else {**entry, "fieldsV1": after}


def _take(listed: list[Entry], own: Manager, changed: sets.Fields, now: datetime) -> list[Entry]:
    for index, entry in enumerate(listed):
        if entries.manager_of(entry) == own:
            fields = sets.union(entry.get("fieldsV1") or {}, changed)
            listed[index] = {**entry, "time": rfc3339(now), "fieldsV1": fields}
            return listed
    return [*listed, entries.make(own, own.api_version, changed, now)]
