"""The list `metadata.managedFields`: one entry per manager, operation, API version and subresource."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from kybern.api.managed_fields import sets
from kybern.api.managed_fields.sets import Fields
from kybern.clock import rfc3339

APPLY = "Apply"
UPDATE = "Update"

# So many managers may have updated an object; when there are more, the oldest are taken together.
_MOST_UPDATERS = 10
_ANCIENT = "ancient-changes"

Entry = dict[str, Any]


class Manager(NamedTuple):
    """Who owns fields, by what. Appliers are the same whatever API version they use."""

    name: str
    operation: str
    api_version: str
    subresource: str

    @property
    def shown(self) -> str:
        """The manager as error messages show it."""
        text = f'"{self.name}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == UPDATE else text


def manager_of(entry: Mapping[str, Any]) -> Manager:
    """The manager of an entry."""
    operation = entry.get("operation") or UPDATE
    version = entry.get("apiVersion") or ""
    return Manager(
        entry.get("manager") or "", operation, "" if operation == APPLY else version, entry.get("subresource") or ""
    )


def current(live: Mapping[str, Any] | None, new: Mapping[str, Any], subresource: str) -> list[Entry]:
    """The entries to go on from: those that a client sent, if they are in order, else those of the live object.

    A client may set them, on the object itself; `[{}]` forgets all of them. Clients that know nothing of them, and
    leave them out or send an empty list, change nothing.
    """
    sent = (new.get("metadata") or {}).get("managedFields")
    kept = ((live or {}).get("metadata") or {}).get("managedFields") or []
    # Compared first: most writes bring back what they read.
    if subresource or not sent or sent == kept:
        return list(kept)
    if sent == [{}]:
        return []
    return list(sent) if valid(sent) else list(kept)


def valid(entries: Any) -> bool:
    """Whether a list of entries can be worked with."""
    return isinstance(entries, list) and all(
        isinstance(e, dict)
        and e.get("operation") in (APPLY, UPDATE)
        and e.get("fieldsType", "FieldsV1") == "FieldsV1"
        and sets.valid(e.get("fieldsV1") or {})
        for e in entries
    )


def make(manager: Manager, api_version: str, fields: Fields, now: datetime) -> Entry:
    """An entry."""
    entry: Entry = {
        "manager": manager.name,
        "operation": manager.operation,
        "apiVersion": api_version,
        "time": rfc3339(now),
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    if manager.subresource:
        entry["subresource"] = manager.subresource
    return entry


def store(document: dict[str, Any], entries: Sequence[Entry]) -> None:
    """Put entries into a document, in place: in Kubernetes' order, those without fields left out."""
    kept = _capped([e for e in entries if e.get("fieldsV1")])
    metadata = document.setdefault("metadata", {})
    if kept:
        metadata["managedFields"] = sorted(kept, key=_order)
    else:
        metadata.pop("managedFields", None)


def _order(entry: Entry) -> tuple[str, ...]:
    return tuple(str(entry.get(k) or "") for k in ("operation", "time", "manager", "apiVersion", "subresource"))


def _capped(entries: list[Entry]) -> list[Entry]:
    updates = sorted((e for e in entries if e.get("operation") == UPDATE), key=_order)
    surplus = len(updates) - _MOST_UPDATERS
    if surplus <= 0:
        return entries
    # One more, for the entry that they become; one entry per API version, since sets are written for one.
    merged: dict[str, Entry] = {}
    old = updates[: surplus + 1]
    for entry in old:
        version = str(entry.get("apiVersion") or "")
        known = merged.get(version)
        if known is None:
            merged[version] = {k: v for k, v in entry.items() if k != "subresource"} | {"manager": _ANCIENT}
        else:
            known["fieldsV1"] = sets.union(known["fieldsV1"], entry["fieldsV1"])
            known["time"] = max(str(known.get("time") or ""), str(entry.get("time") or ""))
    return [e for e in entries if not any(e is o for o in old)] + list(merged.values())
