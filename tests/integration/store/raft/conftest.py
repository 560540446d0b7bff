from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.store.raft.cluster import Group, configurations


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Group]:
    """Three members that run and have a leader."""
    made = Group(configurations(tmp_path))
    await made.start()
    await made.leader()
    yield made
    await made.stop()
