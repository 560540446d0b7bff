"""Members of two versions in one group: when it rises to the newer one's level, and how the older one ends then."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kybern.clock import Clock
from kybern.config.models import StoreConfig
from kybern.daemon import StartupError
from store.raft.interface import Levels, MembershipError, MembershipReason
from store.raft.standing import Standings
from store.raft.transport import Listener
from tests.integration.store.raft.cluster import CuttableTransport, Group, changed, configurations, until
from tests.integration.store.raft.test_lost_disk import ends
from tests.integration.store.raft.test_membership import joining

OLDER, NEWER, NEWEST = Levels(), Levels(1, 2), Levels(1, 3)


@contextlib.asynccontextmanager
async def running(configs: list[StoreConfig], **software: Levels) -> AsyncIterator[Group]:
    """Members of these configurations; `software`: of those that can apply more than level 1."""
    group = Group(configs)
    group.software = dict(software)
    try:
        await group.start()
        await (await group.leader()).propose(b"first")
        yield group
    finally:
        await group.stop()


def levels(group: Group) -> set[int]:
    """Where the members that run are."""
    return {group.machines[name].level for name in group.nodes}


async def risen(group: Group, level: int) -> None:
    await until(lambda: levels(group) == {level}, f"all are at level {level}")


async def all_connected(group: Group) -> None:
    """Every member has heard every other one that runs."""
    for name, node in group.nodes.items():
        others = set(group.nodes) - {name}
        await until(lambda node=node, others=others: others <= set(node._changes.seen), "all are connected")  # type: ignore[misc]


async def upgrade(group: Group, name: str, software: Levels) -> None:
    """One member after the other, as an operator does it."""
    await group.stop(name)
    await (await group.leader()).propose(b"without %s" % name.encode())
    group.software[name] = software
    await group.start(name)
    await all_connected(group)
    await group.level()


async def a_while(group: Group, text: bytes) -> None:
    """As long as a leader would take for a rise many times over: some writes, and some of its turns."""
    leader = await group.leader()
    for number in range(5):
        await leader.propose(b"%s %d" % (text, number))
        await asyncio.sleep(group.configs["s1"].heartbeat_interval)


async def test_a_group_rises_when_its_last_member_is_upgraded(tmp_path: Path) -> None:
    async with running(configurations(tmp_path), s1=NEWER) as group:
        await all_connected(group)
        for name in ("s2", "s3"):
            await a_while(group, b"before %s" % name.encode())
            assert levels(group) == {1}
            await upgrade(group, name, NEWER)
        await risen(group, 2)
        written = await group.level()
        # Each began anew with what the log says: the rise holds where it stands in it, and for who comes later.
        await group.stop()
        await group.start()
        await (await group.leader()).propose(b"last")
        assert await group.level() == [*written, b"last"]
        assert levels(group) == {2}


async def test_a_new_group_begins_as_it_rises(tmp_path: Path) -> None:
    async with running(configurations(tmp_path), s1=NEWEST, s2=NEWER, s3=NEWEST) as group:
        await risen(group, 2)
        await upgrade(group, "s2", NEWEST)
        await risen(group, 3)
        assert b"first" in await group.level()


async def test_nobody_rises_while_a_member_is_away(tmp_path: Path) -> None:
    async with running(configurations(tmp_path), s1=NEWER, s2=NEWER) as group:
        await group.level()
        await group.stop("s3")
        group.software["s3"] = NEWER
        await a_while(group, b"two can")
        assert levels(group) == {1}
        await group.start("s3")
        await risen(group, 2)


async def test_a_learner_counts_though_it_does_not_vote(tmp_path: Path) -> None:
    configs = configurations(tmp_path, 1)
    async with running(configs) as group:
        learner = joining(tmp_path, group, "s2", "")
        await group.nodes["s1"].add_member("", learner.peer_address, "", learner=True)
        group.configs["s2"] = learner
        await group.start("s2")
        await all_connected(group)
        await group.stop("s1")
        group.software["s1"] = NEWER
        await group.start("s1")
        await all_connected(group)
        await a_while(group, b"one can")
        assert levels(group) == {1}
        await upgrade(group, "s2", NEWER)
        await risen(group, 2)


@pytest.mark.parametrize("snapshot", [False, True], ids=["log", "snapshot"])
async def test_an_older_version_does_not_start_with_what_a_newer_one_wrote(tmp_path: Path, snapshot: bool) -> None:
    often = {"snapshot_entries": 10, "snapshot_keep_entries": 0, "snapshot_log_bytes": 4096} if snapshot else {}
    configs = [changed(config, **often) for config in configurations(tmp_path)]
    async with running(configs, s1=NEWER, s2=NEWER, s3=NEWER) as group:
        await risen(group, 2)
        for number in range(40):
            await (await group.leader()).propose(b"%d " % number + b"x" * 200)
        if snapshot:
            newest = group.nodes["s3"]
            await until(lambda: newest.metrics()["snapshot_index"] > 20, "a snapshot of the level")
        await group.stop("s3")
        group.software["s3"] = OLDER
        where = tmp_path / "s3" / ("snapshot" if snapshot else "log")
        with pytest.raises(StartupError) as caught:
            await group.start("s3")
        said = str(caught.value)
        assert not caught.value.retry, "systemd must not start it again"
        for words in ("s3", str(where), "at level 2", "applies level 1.", "Install the version", "snapshot restore"):
            assert words in said
        assert group.machines["s3"].commands == []
        del group.nodes["s3"]
        await (await group.leader()).propose(b"the others go on")
        # With its own version it goes on where it was.
        group.software["s3"] = NEWER
        await group.start("s3")
        assert (await group.level())[-1] == b"the others go on"


async def test_a_member_that_joins_with_an_older_version_is_told_and_ends(tmp_path: Path) -> None:
    async with running(configurations(tmp_path), s1=NEWER, s2=NEWER, s3=NEWER) as group:
        await risen(group, 2)
        leader = await group.leader()
        late = joining(tmp_path, group, "s4", "")
        added = await leader.add_member("", late.peer_address, "", learner=False)
        group.configs["s4"] = late
        await group.start("s4")
        said = await ends(group, "s4")
        assert "the group of s" in said
        assert f"which {late.data_dir} is for, is at level 2" in said
        assert "applies level 1." in said
        assert group.machines["s4"].commands == []
        with pytest.raises(MembershipError) as caught:
            await leader.promote_member(added.id)
        assert caught.value.reason == MembershipReason.LEARNER_NOT_READY
        # What it had is as good as nothing: the right version joins with it.
        await group.stop("s4")
        group.software["s4"] = NEWER
        await group.start("s4")
        await until(lambda: not group.nodes["s4"].status().member.learner, "it votes")
        assert await group.level() == [b"first"]
        assert levels(group) == {2}


class Boasting(CuttableTransport):
    """Says that it can apply more than it can: what the checks behind the hello are for."""

    async def start(self, listener: Listener, directory_id: int, standings: Standings, level: int = 1) -> None:
        await super().start(listener, directory_id, standings, 2)


class BoastingGroup(Group):
    """Member s3's hello says level 2."""

    def _transport(self, config: StoreConfig, clock: Clock) -> CuttableTransport:
        if config.name != "s3":
            return super()._transport(config, clock)
        self.transports[config.name] = Boasting(config, clock)
        return self.transports[config.name]


async def test_who_meets_the_rise_in_the_log_ends_before_it_applies_anything_of_it(tmp_path: Path) -> None:
    group = BoastingGroup(configurations(tmp_path))
    group.software = {"s1": NEWER, "s2": NEWER}
    await group.start("s1", "s2")
    try:
        await (await group.leader()).propose(b"before")
        await group.start("s3")
        said = await ends(group, "s3")
        assert f"the log in {tmp_path / 's3' / 'log'}, from entry" in said
        assert "is at level 2" in said
        await (await group.leader(but="s3")).propose(b"after")
        assert group.machines["s3"].commands == [b"before"]
        assert group.machines["s3"].level == 1
        assert group.nodes["s3"].metrics()["commands_applied"] == 1
        await group.stop("s3")
        await group.level()
        assert levels(group) == {2}
    finally:
        await group.stop()


async def test_who_is_sent_a_snapshot_of_the_level_ends_and_installs_nothing(tmp_path: Path) -> None:
    often = {"snapshot_entries": 10, "snapshot_keep_entries": 0, "snapshot_log_bytes": 4096}
    group = BoastingGroup([changed(config, **often) for config in configurations(tmp_path)])
    group.software = dict.fromkeys(group.configs, NEWER)
    await group.start()
    try:
        await risen(group, 2)
        await group.stop("s3")
        leader = await group.leader()
        own = next(member for member in leader.status().members if member.name == "s3")
        for number in range(60):
            await leader.propose(b"%d " % number + b"x" * 200)
        await until(lambda: leader.metrics()["snapshot_index"] > 30, "a snapshot")
        # One that joins anew has nothing yet that it could refuse to start with.
        shutil.rmtree(tmp_path / "s3")
        await leader.remove_member(own.id)
        await leader.add_member("s3", own.peer_address, own.client_address, learner=False)
        group.configs["s3"] = changed(group.configs["s3"], initial_state="existing")
        group.software["s3"] = OLDER
        await group.start("s3")
        said = await ends(group, "s3")
        assert "the leader's snapshot up to entry" in said
        assert f"for {tmp_path / 's3'}, is at level 2" in said
        assert group.machines["s3"].commands == []
        await group.stop("s3")
        assert not list((tmp_path / "s3" / "snapshot").glob("*.installed"))
    finally:
        await group.stop()


async def test_a_version_that_no_longer_knows_the_groups_level_applies_nothing(tmp_path: Path) -> None:
    async with running(configurations(tmp_path, 1)) as group:
        await group.stop()
        group.software["s1"] = Levels(2, 3)
        await group.start()
        said = await ends(group, "s1")
        assert "is at level 1" in said
        assert "applies levels 2 to 3" in said
        assert "a version in between" in said
        assert group.machines["s1"].commands == []
