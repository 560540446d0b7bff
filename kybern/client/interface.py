"""What a client of the API can do, whatever is behind it.

Implementations: `kybern.client.grpc` (the API servers, over gRPC), `kybern.client.fake` (in memory, for tests), and the
API server's own, which calls its handlers without a network between. Objects are JSON documents as bytes; `Kind` pairs
a resource with the typed view that reads them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from kybern.api.resources import Resource


class EventType(StrEnum):
    """What happened to a watched object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. `object` is the document after it (before it, when deleted); empty for a bookmark."""

    type: EventType
    object: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class ListResult:
    """Objects, and the revision that all of them were read at."""

    items: Sequence[bytes]
    revision: int


class PatchType(StrEnum):
    """How a patch is read; the values are the media types of the REST API."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


class Propagation(StrEnum):
    """What happens to the dependents of a deleted object."""

    BACKGROUND = "Background"
    FOREGROUND = "Foreground"
    ORPHAN = "Orphan"


@dataclass(frozen=True, slots=True)
class Fence:
    """A reign: the Lease, and the revision at which its present holder became the holder (see objects.proto)."""

    namespace: str
    name: str
    revision: int


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Options of every write."""

    dry_run: bool = False
    field_manager: str = ""
    fence: Fence | None = None


DEFAULT_OPTIONS = WriteOptions()


class Client(Protocol):
    """Reads and writes objects. Every method raises `kybern.api.errors.StatusError` when the API refuses or fails."""

    async def get(self, resource: Resource, name: str, namespace: str = "", *, subresource: str = "") -> bytes:
        """The object as of now."""
        ...

    async def list(self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "") -> ListResult:
        """The objects that match both selectors, as of now; in every namespace when none is given."""
        ...

    def watch(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "", since: int
    ) -> AsyncIterator[Sequence[WatchEvent]]:
        """The changes after revision `since`, in order, in batches, with bookmarks at least every ten seconds.

        Ends only with an error: Expired (410) when `since` is no longer kept, a transient one when the server is gone.
        While no server can be reached it waits for one.
        """
        ...

    async def create(
        self,
        resource: Resource,
        document: Mapping[str, Any],
        namespace: str = "",
        *,
        name: str = "",
        subresource: str = "",
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> bytes:
        """Store a new object, or post to the subresource of the object `name`; returns what was stored."""
        ...

    async def update(
        self,
        resource: Resource,
        name: str,
        document: Mapping[str, Any],
        namespace: str = "",
        *,
        subresource: str = "",
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> bytes:
        """Replace an object; a metadata.resourceVersion in it is a precondition."""
        ...

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Mapping[str, Any] | Sequence[Any],
        namespace: str = "",
        *,
        type: PatchType = PatchType.MERGE,  # noqa: A002 - the API's word
        subresource: str = "",
        force: bool = False,
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> bytes:
        """Change part of an object; metadata.uid and metadata.resourceVersion in the patch are preconditions."""
        ...

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        grace_seconds: int | None = None,
        propagation: Propagation | None = None,
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> bytes:
        """Begin the deletion; returns the object, whose resourceVersion is the revision of this change."""
        ...


class _OnlyVersion(msgspec.Struct):
    resourceVersion: str = ""  # noqa: N815 - read from the wire


class _OnlyMeta(msgspec.Struct):
    metadata: _OnlyVersion = msgspec.field(default_factory=_OnlyVersion)


_only_meta = msgspec.json.Decoder(_OnlyMeta)


def revision_of(document: bytes) -> int:
    """The resource version of a document as a number; 0 when it has none."""
    return int(_only_meta.decode(document).metadata.resourceVersion or 0)
