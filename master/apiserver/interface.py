"""What the two doors (REST and gRPC) and the in-process clients see of the API server: requests in, bytes out.

`Handlers` is implemented by `master.apiserver.handlers`. Objects leave as canonical JSON bytes with their
resourceVersion spliced in. Every method raises `kybern.api.errors.StatusError` when the request is refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kybern.api.resources import Registry, Resource
from kybern.client.interface import Fence, PatchType, WatchEvent


@dataclass(frozen=True, slots=True)
class User:
    """Who makes a request, as authentication found out."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""


# Made by the API server itself; authorized for everything.
SYSTEM_MASTERS = "system:masters"
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is about. `name` is empty for collections, `namespace` for cluster-scoped kinds and "all"."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body as it came. A missing content type is JSON; Protobuf and YAML are understood too."""

    data: bytes
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Options of every write. `field_manager` is the user agent's name when the client gave none."""

    dry_run: bool = False
    field_manager: str = ""
    # `Strict`, `Warn` or `Ignore`; empty is `Warn` (a real API server's default).
    field_validation: str = ""
    fence: Fence | None = None


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """Options of a deletion. `propagation`: Background, Foreground, Orphan, or empty for the kind's default."""

    grace_seconds: int | None = None
    propagation: str = ""
    uid: str = ""
    resource_version: str = ""
    write: WriteOptions = field(default_factory=WriteOptions)


@dataclass(frozen=True, slots=True)
class ListOptions:
    """What to list, and how fresh (KUBERNETES_API: resourceVersion semantics)."""

    labels: str = ""
    fields: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    limit: int = 0
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """What to watch. `resource_version` empty or `0`: begin with the present objects as ADDED events."""

    labels: str = ""
    fields: str = ""
    resource_version: str = ""
    bookmarks: bool = False
    # WatchList: initial events, then a bookmark annotated `k8s.io/initial-events-end: "true"`.
    send_initial_events: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of a list. `remaining` is None when it is not known or nothing remains."""

    items: Sequence[bytes]
    revision: int
    continue_token: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of a write. `warnings` are for people (REST: `Warning` headers)."""

    document: bytes
    created: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deleted:
    """The object as it was last stored, its resourceVersion the revision of this change; `gone` if it is no more."""

    document: bytes
    gone: bool


@dataclass(frozen=True, slots=True)
class PodLocation:
    """Where a pod runs, for log, exec, attach and port-forward: the node agent to speak to and what to say."""

    node: str
    # `host:port` of the node's kybern.v1.NodeAgent.
    agent_address: str
    pod_uid: str
    # The container that was asked for, or the only or default one.
    container: str


class Handlers(Protocol):
    """One per API server. Authorization happens inside, for the user that each call names."""

    @property
    def registry(self) -> Registry:
        """What is served now; custom resources come and go in it."""
        ...

    async def get(self, user: User, target: Target, *, resource_version: str = "") -> bytes:
        """One object, or the subresource `status` or `scale` of it."""
        ...

    async def list(self, user: User, target: Target, options: ListOptions) -> Listed:
        """The objects of a resource, ordered by namespace and name."""
        ...

    def watch(self, user: User, target: Target, options: WatchOptions) -> AsyncIterator[Sequence[WatchEvent]]:
        """Changes in the store's order, in batches. An object that stops matching a selector is DELETED.

        Bookmarks' `object` is a document with kind, apiVersion and metadata (resourceVersion, annotations).
        Raises Expired (410) when the revision is no longer kept; so may a watcher that is too slow be ended.
        """
        ...

    async def create(self, user: User, target: Target, body: Body, options: WriteOptions) -> Written:
        """Store a new object, or post to a subresource of the object `target.name` (binding, token, eviction)."""
        ...

    async def update(self, user: User, target: Target, body: Body, options: WriteOptions) -> Written:
        """Replace an object or its subresource."""
        ...

    async def patch(
        self, user: User, target: Target, kind: PatchType, patch: bytes, options: WriteOptions, *, force: bool = False
    ) -> Written:
        """Change a part of an object; server-side apply may create it."""
        ...

    async def delete(self, user: User, target: Target, options: DeleteOptions) -> Deleted:
        """Begin (or finish) the deletion of an object."""
        ...

    async def delete_collection(
        self, user: User, target: Target, selection: ListOptions, options: DeleteOptions
    ) -> Sequence[Deleted]:
        """Delete every object that matches."""
        ...

    async def locate(self, user: User, target: Target, container: str, *, verb: str) -> PodLocation:
        """Authorize `verb` (get, create) on a connecting subresource (log, exec, attach, portforward) and find the pod.

        Raises:
            StatusError: 404 no such pod, 400 it is not on a node yet or has no such container (the choices are named).
        """
        ...


class Authenticator(Protocol):
    """Finds out who a client is."""

    def certificate(self, der: bytes) -> User:
        """The user of a client certificate that TLS has verified already."""
        ...

    async def token(self, token: str) -> User:
        """The user of a bearer token.

        Raises:
            StatusError: 401 when it is not valid (any more).
        """
        ...


# Headers or metadata by lower-case name, as both doors hand them on.
Headers = Mapping[str, str]
