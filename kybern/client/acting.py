"""A client that acts for one component: names the field manager, carries the fence, remembers its last writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kybern.api.errors import Reason, StatusError
from kybern.api.resources import Resource
from kybern.client.interface import (
    DEFAULT_OPTIONS,
    Client,
    Fence,
    ListResult,
    PatchType,
    Propagation,
    WatchEvent,
    WriteOptions,
    revision_of,
)


class LeadershipLost(StatusError):  # noqa: N818 - a StatusError like any other to those who catch it
    """A write was not sent because this process no longer leads."""

    def __init__(self) -> None:
        super().__init__(409, Reason.CONFLICT, "this process no longer leads")


class ActingClient:
    """Wraps a client; `fence` is asked before every write and raises `LeadershipLost` when there is none to give.

    `written` maps a resource to the revision of the last write to it, so that a controller can wait until its caches
    have seen its own writes.
    """

    def __init__(self, client: Client, manager: str, fence: Callable[[], Fence] | None = None) -> None:
        self._client = client
        self._manager = manager
        self._fence = fence
        self.written: dict[Resource, int] = {}

    async def get(self, resource: Resource, name: str, namespace: str = "", *, subresource: str = "") -> bytes:
        """As `Client.get`."""
        return await self._client.get(resource, name, namespace, subresource=subresource)

    async def list(self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "") -> ListResult:
        """As `Client.list`."""
        return await self._client.list(resource, namespace, labels=labels, fields=fields)

    def watch(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "", since: int
    ) -> AsyncIterator[Sequence[WatchEvent]]:
        """As `Client.watch`."""
        return self._client.watch(resource, namespace, labels=labels, fields=fields, since=since)

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
        """As `Client.create`, fenced."""
        return self._note(
            resource,
            await self._client.create(
                resource, document, namespace, name=name, subresource=subresource, options=self._options(options)
            ),
        )

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
        """As `Client.update`, fenced."""
        return self._note(
            resource,
            await self._client.update(
                resource, name, document, namespace, subresource=subresource, options=self._options(options)
            ),
        )

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
        """As `Client.patch`, fenced."""
        return self._note(
            resource,
            await self._client.patch(
                resource,
                name,
                patch,
                namespace,
                type=type,
                subresource=subresource,
                force=force,
                options=self._options(options),
            ),
        )

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
        """As `Client.delete`, fenced."""
        return self._note(
            resource,
            await self._client.delete(
                resource,
                name,
                namespace,
                uid=uid,
                resource_version=resource_version,
                grace_seconds=grace_seconds,
                propagation=propagation,
                options=self._options(options),
            ),
        )

    def _options(self, options: WriteOptions) -> WriteOptions:
        fence = self._fence() if self._fence is not None else options.fence
        return replace(options, field_manager=options.field_manager or self._manager, fence=fence)

    def _note(self, resource: Resource, document: bytes) -> bytes:
        self.written[resource] = max(self.written.get(resource, 0), revision_of(document))
        return document
