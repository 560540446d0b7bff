"""The client of components that run in the API server's own process: its handlers, without a network between."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from kybern.api.resources import Resource
from kybern.client.interface import (
    DEFAULT_OPTIONS,
    ListResult,
    PatchType,
    Propagation,
    WatchEvent,
    WriteOptions,
)
from master.apiserver import interface
from master.apiserver.handlers import ApiHandlers
from master.apiserver.interface import Body, DeleteOptions, ListOptions, Target, User, WatchOptions

_encode = msgspec.json.encode


class LocalClient:
    """Implements `kybern.client.interface.Client` for one user."""

    def __init__(self, handlers: ApiHandlers, user: User) -> None:
        self._handlers = handlers
        self._user = user

    async def get(self, resource: Resource, name: str, namespace: str = "", *, subresource: str = "") -> bytes:
        """As `Client.get`."""
        return await self._handlers.get(self._user, Target(resource, namespace, name, subresource))

    async def list(self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "") -> ListResult:
        """As `Client.list`."""
        options = ListOptions(labels=labels, fields=fields)
        listed = await self._handlers.list(self._user, Target(resource, namespace), options)
        return ListResult(listed.items, listed.revision)

    async def watch(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "", since: int
    ) -> AsyncGenerator[Sequence[WatchEvent], None]:
        """As `Client.watch`."""
        options = WatchOptions(labels=labels, fields=fields, resource_version=str(since), bookmarks=True)
        # Closed here, not whenever the garbage collector comes by: an abandoned watch would be filled until then.
        async with aclosing(self._handlers.watch(self._user, Target(resource, namespace), options)) as batches:
            async for events in batches:
                yield events

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
        """As `Client.create`."""
        target = Target(resource, namespace, name, subresource)
        written = await self._handlers.create(self._user, target, Body(_encode(document)), _options(options))
        return written.document

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
        """As `Client.update`."""
        target = Target(resource, namespace, name, subresource)
        written = await self._handlers.update(self._user, target, Body(_encode(document)), _options(options))
        return written.document

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
        """As `Client.patch`."""
        target = Target(resource, namespace, name, subresource)
        written = await self._handlers.patch(self._user, target, type, _encode(patch), _options(options), force=force)
        return written.document

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
        """As `Client.delete`."""
        asked = DeleteOptions(grace_seconds, propagation or "", uid, resource_version, _options(options))
        deleted = await self._handlers.delete(self._user, Target(resource, namespace, name), asked)
        return deleted.document


def _options(options: WriteOptions) -> interface.WriteOptions:
    return interface.WriteOptions(options.dry_run, options.field_manager, fence=options.fence)
