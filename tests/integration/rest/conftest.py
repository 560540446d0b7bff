"""A REST server on the handlers' double, a node agent's double behind it, and kubectl before it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.rest.agent import FakeAgent, start_agent
from tests.integration.rest.double import DoubleAuthenticator, DoubleHandlers
from tests.integration.rest.serving import Kubectl, Served, find_kubectl, serve, tls
from tests.ports import free_port


@pytest.fixture
def handlers() -> DoubleHandlers:
    """The handlers behind the server."""
    return DoubleHandlers()


@pytest.fixture
async def served(handlers: DoubleHandlers, tmp_path: Path) -> AsyncIterator[Served]:
    """The server."""
    async with serve(handlers, DoubleAuthenticator(), tmp_path) as running:
        yield running


@pytest.fixture
async def agent(handlers: DoubleHandlers, served: Served) -> AsyncIterator[FakeAgent]:
    """The agent of the node that every pod is on."""
    handlers.agent_address = f"127.0.0.1:{free_port()}"
    fake = FakeAgent()
    server = await start_agent(fake, handlers.agent_address, tls(served.folder, "node"))
    yield fake
    await server.stop(0)


@pytest.fixture
def kubectl(served: Served) -> Kubectl:
    """kubectl with the administrator's certificate."""
    program = find_kubectl()
    assert program is not None, "no kubectl: set KYBERN_KUBECTL, or run `make up` once"
    return Kubectl(program, served)
