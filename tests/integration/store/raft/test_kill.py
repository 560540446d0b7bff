"""kill -9 and SIGSTOP under load: nothing acknowledged is lost or applied twice, all apply the same sequence."""

from __future__ import annotations

import asyncio
import collections
from pathlib import Path

from tests.integration.store.raft.cluster import configurations
from tests.integration.store.raft.processes import Processes

_WORKERS = 8


async def test_killed_and_stopped_members_lose_nothing(tmp_path: Path) -> None:
    async with Processes(tmp_path, configurations(tmp_path)) as group:
        for name in group.names:
            await group.start(name)
        await group.leader()
        for name in group.names:
            await group.ask(name, f"load {_WORKERS}")
        await _progress(group)

        leader = await group.leader()
        await group.kill(leader)
        await _progress(group)
        await _restart(group, leader)

        leader = await group.leader()
        follower = next(name for name in group.names if name != leader)
        await group.kill(follower)
        await _progress(group)
        await _restart(group, follower)

        leader = await group.leader()
        group.pause(leader)
        awake = {name: process for name, process in group.running.items() if name != leader}
        stopped = group.running.pop(leader)
        successor = await group.leader()
        assert successor in awake
        await _progress(group)
        group.running[leader] = stopped
        group.wake(leader)
        await _progress(group)

        for name in group.names:
            await group.kill(name)
        for name in group.names:
            await group.start(name)
        await _check(group)


async def test_all_killed_at_once_again_and_again(tmp_path: Path) -> None:
    async with Processes(tmp_path, configurations(tmp_path)) as group:
        for _ in range(3):
            await asyncio.gather(*(group.start(name) for name in group.names))
            await group.leader()
            for name in group.names:
                await group.ask(name, f"load {_WORKERS}")
            await _progress(group)
            await asyncio.gather(*(group.kill(name) for name in group.names))
        await asyncio.gather(*(group.start(name) for name in group.names))
        await _check(group)


async def _restart(group: Processes, name: str) -> None:
    await group.start(name)
    await group.ask(name, f"load {_WORKERS}")


async def _progress(group: Processes, commands: int = 2000) -> None:
    """Wait until so many more commands have been acknowledged."""
    goal = len(group.acked()) + commands
    for _ in range(600):
        if len(group.acked()) >= goal:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"only {len(group.acked())} of {goal} commands were acknowledged")


async def _check(group: Processes) -> None:
    await group.leader()
    sequences = await group.sequences()
    first = sequences[group.names[0]]
    assert all(sequence == first for sequence in sequences.values())
    assert group.acked() <= set(first)
    assert [command for command, count in collections.Counter(first).items() if count > 1] == []
