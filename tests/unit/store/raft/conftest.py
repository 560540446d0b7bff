from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pysyncobj import syncobj as stock

from tests.unit.store.raft.rig import HardenedRig, Rig, StockRig, Time


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """A clock that moves when the test says so."""
    clock = Time()
    monkeypatch.setattr(stock, "monotonicTime", clock)
    return clock


@pytest.fixture
def rig(time: Time, tmp_path: Path) -> Iterator[HardenedRig]:
    """The hardened class on a disk that is quick."""
    made = HardenedRig(time, tmp_path)
    yield made
    made.journal.close()


@pytest.fixture
def slow_rig(time: Time, tmp_path: Path) -> Iterator[HardenedRig]:
    """The hardened class on a disk that works when told to."""
    made = HardenedRig(time, tmp_path, disk=False)
    yield made
    made.journal.close()


@pytest.fixture(params=["stock", "hardened"])
def either(request: pytest.FixtureRequest, time: Time, tmp_path: Path) -> Iterator[Rig]:
    """Both classes in turn: a test says which of them shows the fault."""
    if request.param == "stock":
        yield StockRig(time)
        return
    hardened = HardenedRig(time, tmp_path)
    yield hardened
    hardened.journal.close()
