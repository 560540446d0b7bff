"""Server-side apply: a manager says what it wants, whole, and gets just that."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kybern.api.errors import Cause, CauseType, Reason, StatusError, bad_request
from kybern.api.managed_fields import entries, merging, sets
from kybern.api.managed_fields.comparing import Comparison, compare, fields_of
from kybern.api.managed_fields.elements import shown
from kybern.api.managed_fields.entries import APPLY, UPDATE, Entry, Manager
from kybern.api.managed_fields.sets import Fields
from kybern.api.managed_fields.tracking import ignored_fields
from kybern.api.metadata import copy_json
from kybern.api.schema import Schema
from kybern.clock import rfc3339

# Owner of what an object had before anybody's ownership was recorded.
_BEFORE_FIRST_APPLY = "before-first-apply"


def apply(
    schema: Schema,
    live: dict[str, Any] | None,
    applied: dict[str, Any],
    *,
    manager: str,
    api_version: str,
    subresource: str,
    force: bool,
    now: datetime,
    status_isolated: bool = True,
) -> dict[str, Any]:
    """The object after a manager has applied its configuration; the arguments are not changed.

    What the manager applied before and leaves out now is removed, unless somebody else owns it too. Setting a field
    that another manager owns to another value is a conflict; with `force` the field changes hands.

    Args:
        schema: Schema of the object.
        live: The stored object; None when there is none.
        applied: The configuration, pruned (`kybern.api.pruning.conform` with `partial`); it need not be complete.
        manager: Name of the field manager.
        api_version: API version of the configuration.
        subresource: Subresource that is applied to; empty for the object itself.
        force: Whether to take over fields that others own.
        now: Time of the write.
        status_isolated: Whether the object has a `status` subresource.

    Raises:
        StatusError: 400 when the configuration sets managedFields, or has list items that cannot be told apart; 409
            when it conflicts with other managers.
    """
    if (applied.get("metadata") or {}).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    ignored = ignored_fields(subresource, status_isolated=status_isolated)
    wanted = {k: v for k, v in applied.items() if k not in ignored}
    try:
        merging.check(schema, wanted)
    except merging.NotMergeableError as error:
        raise bad_request(f"failed to create typed patch object: {error}") from None
    own = Manager(manager, APPLY, "", subresource)
    fields = fields_of(schema, wanted)
    if live is None:
        result: dict[str, Any] = copy_json(wanted)
        entries.store(result, [entries.make(own, api_version, fields, now)])
        return result
    listed = _listed(schema, live, api_version, now)
    last = next((e for e in listed if entries.manager_of(e) == own), None)
    others = [e for e in listed if e is not last]
    result = _merged(schema, live, wanted, last, fields, others)
    compared = compare(schema, live, result, ignored)
    others = _others_after(others, compared, force=force)
    entries.store(result, [*others, _own_entry(own, api_version, fields, last, compared, now)])
    return result


def _listed(schema: Schema, live: dict[str, Any], api_version: str, now: datetime) -> list[Entry]:
    present = (live.get("metadata") or {}).get("managedFields") or []
    if present:
        return list(present) if entries.valid(present) else []
    fields = compare(schema, {}, live, frozenset()).changed
    return [entries.make(Manager(_BEFORE_FIRST_APPLY, UPDATE, api_version, ""), api_version, fields, now)]


def _merged(
    schema: Schema,
    live: Mapping[str, Any],
    applied: Mapping[str, Any],
    last: Entry | None,
    fields: Fields,
    others: list[Entry],
) -> dict[str, Any]:
    """The live object with the configuration merged in, and without what the manager does not apply any more."""
    result: dict[str, Any] = merging.merge(schema, live, applied)
    if last is not None:
        # The object is named in metadata, which therefore stays.
        owned = sets.union(fields, {"f:metadata": {"f:name": {}}})
        for entry in others:
            owned = sets.union(owned, entry.get("fieldsV1") or {})
        merging.remove(schema, result, last.get("fieldsV1") or {}, owned)
    return result


def _others_after(others: list[Entry], compared: Comparison, *, force: bool) -> list[Entry]:
    """The entries of the other managers after the change.

    Raises:
        StatusError: 409 when fields of theirs are changed without `force`.
    """
    taken = [(e, sets.intersection(e.get("fieldsV1") or {}, compared.changed)) for e in others]
    if not force:
        conflicts = [(entries.manager_of(e), shown(path)) for e, common in taken for path in sets.members(common)]
        if conflicts:
            raise conflict(conflicts)
    return [_without(entry, common, compared.removed) for entry, common in taken]


def _without(entry: Entry, taken: Fields, removed: Fields) -> Entry:
    before = entry.get("fieldsV1") or {}
    after = sets.without_subtrees(sets.difference(before, taken), removed)
    return entry if after is before else {**entry, "fieldsV1": after}


def _own_entry(
    own: Manager, api_version: str, fields: Fields, last: Entry | None, compared: Comparison, now: datetime
) -> Entry:
    entry = entries.make(own, api_version, fields, now)
    unchanged = last is not None and last.get("fieldsV1") == fields and last.get("apiVersion") == api_version
    if last is not None and unchanged and not compared.changed and not compared.removed:
        entry["time"] = last.get("time") or rfc3339(now)
    return entry


def conflict(conflicts: list[tuple[Manager, str]]) -> StatusError:
    """409: fields that an apply would change belong to other managers."""
    causes = [
        Cause(path, f"conflict with {manager.shown}", CauseType.FIELD_MANAGER_CONFLICT) for manager, path in conflicts
    ]
    return StatusError(409, Reason.CONFLICT, _message(conflicts), causes=tuple(causes))


def _message(conflicts: list[tuple[Manager, str]]) -> str:
    if len(conflicts) == 1:
        manager, path = conflicts[0]
        return f"Apply failed with 1 conflict: conflict with {manager.shown}: {path}"
    lines = []
    for manager in sorted({m for m, _ in conflicts}):
        lines.append(f"conflicts with {manager.shown}:")
        lines += [f"- {path}" for other, path in conflicts if other == manager]
    return f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)
