"""Short ways to say what the tests ask of an API server, and the objects that they use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec

from kybern.api import resources
from kybern.api.resources import Resource
from kybern.client.interface import EventType, PatchType, WatchEvent
from master.apiserver.interface import (
    Body,
    Deleted,
    DeleteOptions,
    Listed,
    ListOptions,
    Target,
    User,
    WatchOptions,
    WriteOptions,
)
from master.apiserver.server import ApiServer

Document = dict[str, Any]

ADMIN = User("kubernetes-admin", ("system:masters",))


class Api:
    """An API server as one user sees it."""

    def __init__(self, server: ApiServer, user: User = ADMIN) -> None:
        self.server = server
        self.handlers = server.handlers
        self.user = user

    def as_user(self, user: User) -> Api:
        """The same server, asked by somebody else."""
        return Api(self.server, user)

    async def prepare(self) -> None:
        """The namespace `default`, with the service account that pods need."""
        await self.create(resources.NAMESPACES, namespace("default"), "")
        await self.create(resources.SERVICE_ACCOUNTS, {"metadata": {"name": "default"}})

    async def create(
        self, resource: Resource, document: Mapping[str, Any], namespace: str = "default", **options: Any
    ) -> Document:
        body = Body(msgspec.json.encode(document))
        written = await self.handlers.create(
            self.user, Target(resource, _scope(resource, namespace)), body, WriteOptions(**options)
        )
        assert written.created
        return read(written.document)

    async def post(
        self, resource: Resource, name: str, subresource: str, document: Mapping[str, Any], namespace: str = "default"
    ) -> Document:
        target = Target(resource, _scope(resource, namespace), name, subresource)
        written = await self.handlers.create(self.user, target, Body(msgspec.json.encode(document)), WriteOptions())
        return read(written.document)

    async def get(
        self, resource: Resource, name: str, namespace: str = "default", *, sub: str = "", version: str = ""
    ) -> Document:
        target = Target(resource, _scope(resource, namespace), name, sub)
        return read(await self.handlers.get(self.user, target, resource_version=version))

    async def list(self, resource: Resource, namespace: str = "default", **options: Any) -> Listed:
        target = Target(resource, _scope(resource, namespace))
        return await self.handlers.list(self.user, target, ListOptions(**options))

    async def names(self, resource: Resource, namespace: str = "default", **options: Any) -> Sequence[str]:
        listed = await self.list(resource, namespace, **options)
        return [read(i)["metadata"]["name"] for i in listed.items]

    async def update(
        self, resource: Resource, document: Mapping[str, Any], namespace: str = "default", *, sub: str = "",
        **options: Any,
    ) -> Document:  # fmt: skip
        target = Target(resource, _scope(resource, namespace), document["metadata"]["name"], sub)
        body = Body(msgspec.json.encode(document))
        return read((await self.handlers.update(self.user, target, body, WriteOptions(**options))).document)

    async def patch(
        self, resource: Resource, name: str, patch: Any, namespace: str = "default", *, sub: str = "",
        kind: PatchType = PatchType.MERGE, force: bool = False, **options: Any,
    ) -> Document:  # fmt: skip
        target = Target(resource, _scope(resource, namespace), name, sub)
        body = msgspec.json.encode(patch)
        written = await self.handlers.patch(self.user, target, kind, body, WriteOptions(**options), force=force)
        return read(written.document)

    async def delete(
        self, resource: Resource, name: str, namespace: str = "default", **options: Any
    ) -> tuple[Document, bool]:
        target = Target(resource, _scope(resource, namespace), name)
        deleted: Deleted = await self.handlers.delete(self.user, target, DeleteOptions(**options))
        return read(deleted.document), deleted.gone

    @asynccontextmanager
    async def watch(self, resource: Resource, namespace: str = "default", **options: Any) -> AsyncIterator[Watching]:
        target = Target(resource, _scope(resource, namespace))
        async with aclosing(self.handlers.watch(self.user, target, WatchOptions(**options))) as batches:
            assert list(await anext(batches)) == []
            yield Watching(batches)


class Watching:
    """An open watch."""

    def __init__(self, batches: AsyncIterator[Sequence[WatchEvent]]) -> None:
        self._batches = batches
        self._events: list[WatchEvent] = []

    async def event(self) -> WatchEvent:
        """The next event."""
        async with asyncio.timeout(30):
            while not self._events:
                self._events += await anext(self._batches)
        return self._events.pop(0)

    async def next(self) -> tuple[str, str]:
        """Type and name of the next event that is not a bookmark."""
        while True:
            event = await self.event()
            if event.type is not EventType.BOOKMARK:
                return str(event.type), read(event.object)["metadata"]["name"]


def _scope(resource: Resource, namespace: str) -> str:
    return namespace if resource.namespaced else ""


def read(document: bytes) -> Document:
    decoded: Document = msgspec.json.decode(document)
    return decoded


def namespace(name: str) -> Document:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def config_map(name: str, **data: str) -> Document:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str, **spec: Any) -> Document:
    containers = [{"name": "c", "image": "busybox"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers, **spec}}


def deployment(name: str, replicas: int = 1) -> Document:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]},
    }
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def service(name: str, **spec: Any) -> Document:
    ports = [{"port": 80}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": ports, **spec}}


def node(name: str, **spec: Any) -> Document:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec}
