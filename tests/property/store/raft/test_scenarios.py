"""What chance found once, or hardly ever would, made on purpose on simulated hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.property.store.raft.test_hosts import Cluster, end, make

# Seconds of virtual time.
_LONG = 60


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return make(tmp_path, 0, monkeypatch)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, or fail saying what did not happen."""
    for _ in range(_LONG * 10):
        if condition():
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"not within {_LONG} s: {what}")


async def found(world: Cluster, *founders: str) -> None:
    """A group that has a leader."""
    for name in founders:
        world.configs[name] = world.configure(name, founders)
    for name in founders:
        world.start(name)
    await until(lambda: leader(world) != "", "a leader")


def leader(world: Cluster) -> str:
    """Who leads."""
    return next((name for name, life in world.lives.items() if life.node.is_leader), "")


async def votes(world: Cluster, name: str) -> None:
    """Wait until a member votes, and knows it."""
    await until(lambda: name in world.lives[name].node._configurations.current.voters, f"{name} votes")


async def add(world: Cluster, name: str) -> None:
    """Have the leader await a member at its address."""
    asked = leader(world)
    address = world.configs[name].peer_address
    world.ask(asked, world.change("add", world.lives[asked].node.add_member("", address, "", learner=False)))
    await until(lambda: world.counts["add"] > 0, "the member is awaited")
    world.counts["add"] = 0


def run(world: Cluster, scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it to its end, and end everybody."""
    end(world, scenario())
    assert not world.wrong


def test_one_that_joins_is_found_by_a_leader_that_its_file_does_not_name(world: Cluster) -> None:
    async def scenario() -> None:
        await found(world, "a", "b")
        # Their files are of the same time, and neither names the other.
        for name in ("m1", "m2"):
            world.configure(name, ("a", "b"), joins=True)
            world.start(name)
        await add(world, "m1")
        await votes(world, "m1")
        asked = leader(world)
        world.ask(
            asked,
            world.change("transfer", world.lives[asked].node.transfer_leadership(world.lives["m1"].node.member_id)),
        )
        await until(lambda: leader(world) == "m1", "m1 leads")
        await add(world, "m2")
        # The founders know it, and only the leader can tell the group its name.
        await votes(world, "m2")

    run(world, scenario)
