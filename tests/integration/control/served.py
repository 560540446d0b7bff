"""A cluster whose API is the real one: an API server on a store in memory, all on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from kybern.api.resources import NODES, Resource
from kybern.client.fake import Document
from kybern.client.memory_store import MemoryStore
from kybern.clock import LoopClock
from kybern.config.models import Cluster
from master.apiserver.bootstrap import Bootstrap
from master.apiserver.local_client import LocalClient
from master.apiserver.server import ApiServer
from master.auth import users
from master.leading import Leading
from tests.unit.master.cluster import CA, Agents, World, node

SIGNING_KEY = ec.generate_private_key(ec.SECP256R1())


class ServedClient(LocalClient):
    """An administrator; reads for assertions come straight from the server's cache."""

    def __init__(self, server: ApiServer) -> None:
        super().__init__(server.handlers, users.APISERVER)
        self._server = server

    def read(self, resource: Resource, name: str, namespace: str = "") -> Document | None:
        """The object, or None."""
        entry = self._server.cacher.of(resource).get(namespace, name)
        return None if entry is None else entry.document()

    def all(self, resource: Resource) -> list[Document]:
        """Every object of a resource."""
        return [e.document() for e in self._server.cacher.of(resource).entries.values()]


class ServedWorld(World):
    """As `World`, on an API server. Use it through `serving`."""

    client: ServedClient  # type: ignore[assignment]

    def __init__(self, server: ApiServer, cluster: Cluster, clock: LoopClock, **agents: float) -> None:
        self.clock = clock
        self.client = ServedClient(server)
        self.server = server
        self.cluster = cluster
        self.agents = Agents(self.client, clock, **agents)

    async def join(self, name: str, **more: Any) -> None:
        """A node registers."""
        await self.client.create(NODES, node(name, self.clock.now(), **more))

    @contextlib.asynccontextmanager
    async def reign(self, identity: str) -> AsyncIterator[None]:
        """A master that takes part in the election."""
        leading = Leading(
            ("scheduler", "controllers"),
            identity,
            scheduler=LocalClient(self.server.handlers, users.SCHEDULER),
            controllers=LocalClient(self.server.handlers, users.CONTROLLERS),
            cluster=self.cluster,
            clock=self.clock,
            ca_pem=CA,
        )
        task = asyncio.create_task(leading.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def serving(nodes: int = 2, **agents: float) -> AsyncIterator[ServedWorld]:
    """An API server with nodes whose agents run; nobody leads yet."""
    clock, store, cluster = LoopClock(), MemoryStore(), Cluster(default_toleration_seconds=5)
    async with ApiServer(store, cluster=cluster, signing_key=SIGNING_KEY, clock=clock, rng=random.Random(1)) as server:
        world = ServedWorld(server, cluster, clock, **agents)
        await Bootstrap(world.client, store, cluster).make()
        for number in range(1, nodes + 1):
            await world.join(f"n{number}")
        async with world.agents_running():
            yield world
    await store.close()
