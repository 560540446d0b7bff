"""Implements `Handlers`: authorizes each request and hands it to the part that knows its subject."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from kybern.api import errors
from kybern.api.resources import Registry
from kybern.client.interface import PatchType, WatchEvent
from master.apiserver.cache.selection import Selection, select
from master.apiserver.interface import (
    Body,
    Deleted,
    DeleteOptions,
    Listed,
    ListOptions,
    PodLocation,
    Target,
    User,
    WatchOptions,
    WriteOptions,
    Written,
)
from master.apiserver.locating import Locator
from master.apiserver.machinery import Machinery
from master.apiserver.reading import Reader, check_watch
from master.apiserver.writes import bodies
from master.apiserver.writes.binding import Binder
from master.apiserver.writes.committing import Committer
from master.apiserver.writes.creating import Creator
from master.apiserver.writes.deleting import Deleter
from master.apiserver.writes.eviction import Evictor
from master.apiserver.writes.scale import Scaler
from master.apiserver.writes.tokens import TokenIssuer
from master.apiserver.writes.updating import Updater


class ApiHandlers:
    """The handlers of one API server."""

    def __init__(self, machinery: Machinery) -> None:
        self._machinery = machinery
        committer = Committer(machinery)
        self._reader = Reader(machinery)
        self._creator = Creator(machinery, committer)
        self._updater = Updater(machinery, committer, self._creator)
        self._deleter = Deleter(machinery, committer)
        self._scaler = Scaler(committer, self._updater)
        self._locator = Locator(machinery)
        self._posts = {
            "binding": Binder(machinery, committer).bind,
            "token": TokenIssuer(machinery).issue,
            "eviction": Evictor(self._deleter).evict,
        }

    @property
    def registry(self) -> Registry:
        """What is served now."""
        return self._machinery.registry

    # --- reading

    async def get(self, user: User, target: Target, *, resource_version: str = "") -> bytes:
        """As `Handlers.get`."""
        await self._machinery.authorize(user, "get", target)
        return await self._reader.get(target, resource_version)

    async def list(self, user: User, target: Target, options: ListOptions) -> Listed:
        """As `Handlers.list`."""
        selection = select(target.resource, target.namespace, options.labels, _fields(target, options.fields))
        await self._machinery.authorize(user, "list", target, selection)
        return await self._reader.list(selection, options)

    async def watch(
        self, user: User, target: Target, options: WatchOptions
    ) -> AsyncGenerator[Sequence[WatchEvent], None]:
        """As `Handlers.watch`; the first batch is empty and tells that the watch has begun."""
        selection = select(target.resource, target.namespace, options.labels, _fields(target, options.fields))
        await self._machinery.authorize(user, "watch", target, selection)
        check_watch(options)
        async with aclosing(self._reader.watch(selection, options)) as events:
            async for batch in events:
                yield batch

    async def locate(self, user: User, target: Target, container: str, *, verb: str) -> PodLocation:
        """As `Handlers.locate`."""
        await self._machinery.authorize(user, verb, target)
        return await self._locator.locate(target, container)

    # --- writing

    async def create(self, user: User, target: Target, body: Body, options: WriteOptions) -> Written:
        """As `Handlers.create`."""
        await self._machinery.authorize(user, "create", target)
        bodies.check_options(options)
        if not target.subresource:
            return await self._creator.create(user, target, body, options)
        post = self._posts.get(target.subresource)
        if post is None:
            raise errors.method_not_allowed(
                "create", f"{target.resource.plural}/{target.subresource}", target.resource.group
            )
        return await post(user, target, body, options)

    async def update(self, user: User, target: Target, body: Body, options: WriteOptions) -> Written:
        """As `Handlers.update`."""
        await self._machinery.authorize(user, "update", target)
        bodies.check_options(options)
        if target.subresource == "scale":
            return await self._scaler.update(user, target, body, options)
        return await self._updater.update(user, target, body, options)

    async def patch(
        self, user: User, target: Target, kind: PatchType, patch: bytes, options: WriteOptions, *, force: bool = False
    ) -> Written:
        """As `Handlers.patch`."""
        await self._machinery.authorize(user, "patch", target)
        bodies.check_options(options)
        if target.subresource == "scale":
            return await self._scaler.patch(user, target, kind, patch, options)
        return await self._updater.patch(user, target, kind, patch, options, force=force)

    async def delete(self, user: User, target: Target, options: DeleteOptions) -> Deleted:
        """As `Handlers.delete`."""
        await self._machinery.authorize(user, "delete", target)
        bodies.check_options(options.write)
        return await self._deleter.delete(user, target, options)

    async def delete_collection(
        self, user: User, target: Target, selection: ListOptions, options: DeleteOptions
    ) -> Sequence[Deleted]:
        """As `Handlers.delete_collection`."""
        chosen: Selection = select(target.resource, target.namespace, selection.labels, selection.fields)
        await self._machinery.authorize(user, "deletecollection", target, chosen)
        bodies.check_options(options.write)
        await self._machinery.cacher.fresh()
        return await self._deleter.delete_all(user, target, chosen, options)


def _fields(target: Target, fields: str) -> str:
    """The field selector of a request; one for a single object selects it by its name."""
    if not target.name:
        return fields
    return f"{fields},metadata.name={target.name}" if fields else f"metadata.name={target.name}"
