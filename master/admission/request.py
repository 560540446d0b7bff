"""What admission sees of a write."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kybern.api.resources import Resource
from master.apiserver.interface import User

Document = dict[str, Any]


class Verb(StrEnum):
    """The kinds of writes, as admission tells them apart: a patch is an update, or a create."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(slots=True)
class Admission:
    """One write. Plugins may change `document` (None when something is deleted) and add guards.

    Guards are keys, with their revisions, that must not have changed when the write takes effect: what a plugin has
    concluded from another object then still holds in the same transaction.
    """

    user: User
    verb: Verb
    resource: Resource
    namespace: str
    name: str
    subresource: str = ""
    document: Document | None = None
    old: Document | None = None
    guards: list[tuple[bytes, int]] = field(default_factory=list)
