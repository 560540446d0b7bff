"""A node agent's server over the fake runtime, and clients with certificates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kybern.clock import SystemClock
from node.runtime.fake import FakeRuntime
from tests.integration.node_agent.serving import Agent, serve


@pytest.fixture
async def runtime() -> FakeRuntime:
    return FakeRuntime(SystemClock(), 0.0, images=["busybox"])


@pytest.fixture
async def agent(runtime: FakeRuntime, tmp_path: Path) -> AsyncIterator[Agent]:
    async with serve(runtime, tmp_path) as made:
        yield made
