"""API servers on a store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kybern.client.memory_store import MemoryStore
from kybern.config.models import Cluster
from master.apiserver.server import ApiServer
from tests.integration.apiserver.api import Api

KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    """A store of its own."""
    store = MemoryStore()
    yield store
    await store.close()


@asynccontextmanager
async def api_server(store: MemoryStore, *, cluster: Cluster | None = None, seed: int = 1) -> AsyncIterator[Api]:
    """An API server on a store."""
    async with ApiServer(store, cluster=cluster, signing_key=KEY, rng=Random(seed)) as server:
        yield Api(server)


@pytest.fixture
async def api(store: MemoryStore) -> AsyncIterator[Api]:
    """One API server, with the namespace `default` and its service account."""
    async with api_server(store) as api:
        await api.prepare()
        yield api
