"""Snapshots in a real group: followers that are caught up by one, and members killed at every step of it under load."""

from __future__ import annotations

import asyncio
import collections
import shutil
from pathlib import Path

import pytest

from kybern.daemon import StartupError
from store.raft.failpoints import EXIT_STATUS, VARIABLE
from store.raft.node import RaftNode
from tests.integration.store.raft.cluster import Group, Recorder, changed, configurations, until
from tests.integration.store.raft.processes import Processes

# A snapshot every 20 entries, and segments of one batch each: everything happens all the time.
_OFTEN = {"snapshot_entries": 20, "snapshot_keep_entries": 5, "snapshot_log_bytes": 4096}
_WORKERS = 4


async def _propose(node: RaftNode, name: str, count: int) -> None:
    for number in range(count):
        await node.propose(b"%s-%d %s" % (name.encode(), number, b"x" * 100))


async def test_followers_that_the_log_does_not_reach_get_a_snapshot(tmp_path: Path) -> None:
    group = Group([changed(config, **_OFTEN) for config in configurations(tmp_path)])
    await group.start()
    leader = await group.leader()
    await _propose(leader, "first", 30)
    late = group.name((await group.followers())[0])
    await group.stop(late)
    leader = await group.leader()
    await _propose(leader, "second", 200)
    assert leader.metrics()["snapshots_taken"] > 3
    assert leader.metrics()["log_bytes"] < 100 * 120
    await group.start(late)
    await _propose(leader, "third", 30)
    commands = await group.level()
    assert len(commands) == 260
    assert group.nodes[late].metrics()["snapshots_installed"] == 1
    indices = [applied.index for applied in group.machines[late].applied]
    assert indices == list(range(1, 261))
    assert group.machines[late].applied == group.machines[group.name(leader)].applied

    # One that has lost everything and joins anew, and then all of them from what they have on disk.
    own = group.nodes[late].status().member
    await group.stop(late)
    shutil.rmtree(tmp_path / late)
    await (await group.leader()).remove_member(own.id)
    await (await group.leader()).add_member(late, own.peer_address, own.client_address, learner=False)
    group.configs[late] = changed(group.configs[late], initial_state="existing")
    await group.start(late)
    await until(lambda: not group.nodes[late].status().member.learner, "it votes")
    assert await group.level() == commands
    await group.stop()
    await group.start()
    await _propose(await group.leader(), "fourth", 5)
    assert (await group.level())[:260] == commands
    for machine in group.machines.values():
        assert [applied.index for applied in machine.applied] == list(range(1, 266))
    await group.stop()


async def test_a_member_that_stops_leaves_little_to_be_applied_again(tmp_path: Path) -> None:
    group = Group([changed(config, snapshot_log_bytes=64 << 10) for config in configurations(tmp_path)])
    await group.start()
    await _propose(await group.leader(), "few", 20)
    await group.level()
    await group.stop()
    folders = [tmp_path / name / "snapshot" for name in group.configs]
    assert [len(list(folder.glob("*.snap"))) for folder in folders] == [0, 0, 0], "not worth it"
    await group.start()
    # Above a quarter of what makes a snapshot due while the member runs.
    await _propose(await group.leader(), "more", 200)
    commands = await group.level()
    assert all(node.metrics()["snapshots_taken"] == 0 for node in group.nodes.values())
    await group.stop()
    assert [len(list(folder.glob("*.snap"))) for folder in folders] == [1, 1, 1]
    await group.start()
    await _propose(await group.leader(), "last", 1)
    assert (await group.level())[:220] == commands
    for node in group.nodes.values():
        assert node.metrics()["commands_applied"] <= 20
    await group.stop()


async def test_a_corrupt_snapshot_refuses_to_start(tmp_path: Path) -> None:
    [config] = configurations(tmp_path, count=1)
    group = Group([changed(config, **_OFTEN)])
    await group.start()
    leader = await group.leader()
    await _propose(leader, "x", 100)
    await until(lambda: leader.metrics()["snapshot_index"] > 40, "a snapshot")
    await group.stop()
    *older, path = sorted((tmp_path / config.name / "snapshot").iterdir())
    for one in older:
        one.unlink()
    whole = path.read_bytes()
    for at in (3, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(StartupError, match=r"snap is corrupt at offset \d+: .*`kybern store join`"):
            await RaftNode(changed(config, **_OFTEN)).start(Recorder())
    path.unlink()
    with pytest.raises(StartupError, match="there is no snapshot of what was before"):
        await RaftNode(changed(config, **_OFTEN)).start(Recorder())
    path.write_bytes(whole)
    await group.start()
    assert len(await group.level()) == 100
    await group.stop()


async def test_a_full_disk_costs_a_snapshot_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "snapshot.written=full@1;snapshot.renamed=raise@1;trim.unlinked=raise@1")
    monkeypatch.setattr("store.raft.snapshotting._RETRY", 0.0)
    monkeypatch.setattr("store.raft.failpoints._active", {})
    [config] = configurations(tmp_path, count=1)
    group = Group([changed(config, **_OFTEN)])
    await group.start()
    leader = await group.leader()
    await _propose(leader, "x", 200)
    # How many fall due while the commands are proposed depends on the disk; a failed one is tried again without any.
    await until(lambda: leader.metrics()["snapshot_failures"] == 3, "all three to fail")
    await until(lambda: leader.metrics()["snapshot_index"] > 100, "a snapshot")
    await group.stop()
    await group.start()
    assert len(await group.level()) == 200
    await group.stop()


# Where each of the three members ends itself in a round, at the n-th time.
_ROUNDS = [
    ("snapshot.begin@3", "snapshot.partial@4", "snapshot.written@3"),
    ("snapshot.synced@2", "snapshot.renamed@2", "snapshot.done@2"),
    ("trim.begin@3", "trim.unlinked@5", "trim.done@2"),
]


async def test_all_killed_during_compaction_again_and_again(tmp_path: Path) -> None:
    configs = [changed(config, **_OFTEN) for config in configurations(tmp_path)]
    async with Processes(tmp_path, configs) as group:
        for points in _ROUNDS:
            for name, point in zip(group.names, points, strict=True):
                where, _, nth = point.partition("@")
                await group.start(name, {VARIABLE: f"{where}=exit@{nth}"})
                await group.tell(name, f"load {_WORKERS}")
            # Two of them can only stop together: without a quorum there is nothing to take a snapshot of.
            await group.ended(2)
            await asyncio.gather(*(group.kill(name) for name in list(group.running)))
        await asyncio.gather(*(group.start(name) for name in group.names))
        await group.leader()
        sequences = await group.sequences()
        first = sequences[group.names[0]]
        assert all(sequence == first for sequence in sequences.values())
        assert group.acked() <= set(first)
        assert len(group.acked()) > 200
        assert max(collections.Counter(first).values()) == 1


async def test_a_follower_killed_while_it_takes_a_snapshot_is_caught_up_after_all(tmp_path: Path) -> None:
    configs = [changed(config, **_OFTEN) for config in configurations(tmp_path)]
    async with Processes(tmp_path, configs) as group:
        for name in group.names:
            await group.start(name)
        leader = await group.leader()
        late = next(name for name in group.names if name != leader)
        await group.kill(late)
        await group.ask(leader, f"load {_WORKERS}")
        for point in ("begin", "partial", "synced", "verified", "renamed", "loaded", "done"):
            await group.progress(300)
            await group.start(late, {VARIABLE: f"install.{point}=exit"})
            assert await group.ended(1) == {late: EXIT_STATUS}
        await group.ask(leader, "rest")
        await group.start(late)
        sequences = await group.sequences()
        assert all(sequence == sequences[leader] for sequence in sequences.values())
        assert group.acked() <= set(sequences[leader])
