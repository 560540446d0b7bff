"""Random requests over etcd's gRPC, to our store and to Debian's etcd beside it: the answers are the same.

`KYBERN_SEEDS=500` looks further than CI does. What fails prints its seed, and the smallest sequence that was found to
show the difference. What may differ is in `docs/design/store.md`, and where `differential/` calls it known.
"""

from __future__ import annotations

import os

import pytest

from store.mvcc import keyspace, walks
from store.server import reading
from store.server import watch as watch_service
from store.watch import hub
from tests.integration.store.differential.play import Player
from tests.integration.store.differential.side import side
from tests.integration.store.differential.steps import Maker
from tests.integration.store.serving import Endpoint

_SEEDS = int(os.environ.get("KYBERN_SEEDS", "2"))
_SEQUENCES = 100


def use_small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what is few keys in the ways that are meant for many."""
    monkeypatch.setattr(reading, "_AT_ONCE", 2)
    monkeypatch.setattr(reading, "_PORTION", 2)
    monkeypatch.setattr(walks, "_PORTION", 2)
    monkeypatch.setattr(walks, "_SORTED", 2)
    monkeypatch.setattr(keyspace, "_TOGETHER", 2)
    monkeypatch.setattr(keyspace, "_TRIM", 2)
    monkeypatch.setattr(hub, "CHUNK", 2)
    monkeypatch.setattr(hub, "MAX_PENDING", 3)
    monkeypatch.setattr(watch_service, "_RESPONSE", 1)


@pytest.mark.parametrize("seed", range(_SEEDS))
async def test_answers_are_those_of_etcd(
    seed: int, ours: Endpoint, etcd: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seed % 2:
        use_small_portions(monkeypatch)
    maker = Maker(seed)
    async with side("ours", ours) as mine, side("etcd", etcd) as theirs:
        player = Player(mine, theirs)
        for number in range(_SEQUENCES):
            found = await player.find(maker.sequence())
            assert found is None, f"seed {seed}, sequence {number}\n{found}"
