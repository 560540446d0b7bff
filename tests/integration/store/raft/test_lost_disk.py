"""Members whose data directories were lost, and which are started as if nothing had happened.

What they acknowledged is not theirs any more, so they must not help to elect a leader that lacks it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kybern.config.models import StoreConfig
from kybern.daemon import StartupError
from store.raft.interface import NoLeader, RaftUnavailable
from tests.integration.store.raft.cluster import Group, changed, configurations, until


@contextlib.asynccontextmanager
async def acquainted(configs: list[StoreConfig]) -> AsyncIterator[Group]:
    """A group whose members have all heard of each other's data directories."""
    group = Group(configs, request_timeout=3.0)
    await group.start()
    try:
        await (await group.leader()).propose(b"before")
        await until(lambda: all(knows_all(group, name) for name in group.nodes), "the directories are known")
        yield group
    finally:
        await group.stop()


def knows_all(group: Group, name: str) -> bool:
    return all(member.directory_id for member in group.nodes[name].status().members)


async def ends(group: Group, name: str) -> str:
    """What a member says that ends by itself."""
    async with asyncio.timeout(20):
        with pytest.raises(StartupError) as caught:
            await group.nodes[name].failed()
    return str(caught.value)


async def test_it_elects_no_leader_without_what_it_acknowledged(tmp_path: Path) -> None:
    async with acquainted(configurations(tmp_path)) as group:
        leader = await group.leader()
        keeps, loses, lags = [group.name(leader), *(group.name(node) for node in await group.followers())]
        group.transports[lags].cut()
        await leader.propose(b"acknowledged")
        await until(lambda: b"acknowledged" in group.machines[loses].commands, "both have it")
        await group.stop(loses)
        shutil.rmtree(tmp_path / loses)
        await group.stop(keeps)
        group.transports[lags].heal()
        await group.start(loses)
        said = await ends(group, loses)
        assert f"{lags} knows {loses} with another data directory than {tmp_path / loses} is now" in said
        assert "kybern store join" in said
        with pytest.raises((NoLeader, RaftUnavailable)):
            await group.nodes[lags].propose(b"not by a quorum")
        # With the one that has everything they are a quorum again.
        await group.start(keeps)
        await (await group.leader()).propose(b"after")
        await group.stop(loses)
        assert await group.level() == [b"before", b"acknowledged", b"after"]


async def test_the_others_do_without_it_and_let_it_join_anew(tmp_path: Path) -> None:
    async with acquainted(configurations(tmp_path)) as group:
        gone = group.name((await group.followers())[0])
        member = next(m for m in group.nodes[gone].status().members if m.name == gone)
        await group.stop(gone)
        shutil.rmtree(tmp_path / gone)
        await group.start(gone)
        await ends(group, gone)
        await group.stop(gone)
        leader = await group.leader()
        await leader.propose(b"without it")
        await leader.remove_member(member.id)
        added = await leader.add_member("", member.peer_address, "", learner=False)
        shutil.rmtree(tmp_path / gone)
        group.configs[gone] = changed(group.configs[gone], initial_state="existing")
        await group.start(gone)
        await until(lambda: knows_all(group, gone) and not group.nodes[gone].status().member.learner, "it votes")
        assert group.nodes[gone].member_id == added.id
        assert await group.level() == [b"before", b"without it"]
        # And now it is known by the directory that it has.
        await group.stop(gone)
        await group.start(gone)
        assert await group.level() == [b"before", b"without it"]


@pytest.mark.parametrize("known", [True, False])
async def test_one_that_joined_and_lost_its_disk_ends_though_its_file_says_that_it_joins(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, known: bool
) -> None:
    """It has no id, and is told by the leader alone, which its file may not know."""
    async with acquainted(configurations(tmp_path)) as group:
        gone = group.name((await group.followers())[0])
        await group.stop(gone)
        shutil.rmtree(tmp_path / gone)
        leader = await group.leader()
        # As the file of a member that once joined has it.
        members = dict(group.configs[gone].members)
        if not known:
            del members[group.name(leader)]
        group.configs[gone] = changed(group.configs[gone], initial_state="existing", members=members)
        caplog.set_level(logging.WARNING)
        await group.start(gone)
        await until(lambda: f"{gone} comes with another data directory" in caplog.text, "it was turned away")
        await leader.propose(b"without it")
        assert f"{group.name(leader)} knows {gone} with another data directory" in await ends(group, gone)
        assert group.machines[gone].commands == []


async def test_one_that_joins_waits_while_followers_alone_know_another_of_its_name(tmp_path: Path) -> None:
    """They may have missed that the name was given to it."""
    async with acquainted(configurations(tmp_path, 5)) as group:
        leader = await group.leader()
        gone, lags, *others = (group.name(node) for node in await group.followers())
        member = next(m for m in leader.status().members if m.name == gone)
        await group.stop(gone)
        shutil.rmtree(tmp_path / gone)
        group.transports[lags].cut()
        await leader.remove_member(member.id)
        await leader.add_member("", member.peer_address, "", learner=False)
        # Nobody can tell it more than the one that has missed all this.
        await group.stop(group.name(leader), *others)
        group.transports[lags].heal()
        group.configs[gone] = changed(group.configs[gone], initial_state="existing")
        await group.start(gone)
        failed = asyncio.create_task(group.nodes[gone].failed())
        done, _ = await asyncio.wait([failed], timeout=4 * group.configs[gone].election_timeout_max)
        failed.cancel()
        assert not done
        await group.start(*others)
        joins = group.nodes[gone]
        await until(lambda: joins.member_id != member.id and not joins.status().member.learner, "it votes")


async def test_one_that_was_emptied_before_it_was_heard_of_ends(tmp_path: Path) -> None:
    """What `kybern store join` left in the data directory is gone, so it takes itself for a founder."""
    *founders, config = configurations(tmp_path, 4)
    members = {founder.name: founder.peer_address for founder in founders}
    async with acquainted([changed(founder, members=members) for founder in founders]) as group:
        await (await group.leader()).add_member("", config.peer_address, "", learner=False)
        group.configs["s4"] = config
        await group.start("s4")
        said = await ends(group, "s4")
        assert f"awaits a member that joins at {config.peer_address}, but {tmp_path / 's4'} does not say that" in said
        assert "kybern store join" in said
        # As it is prepared then.
        await group.stop("s4")
        shutil.rmtree(tmp_path / "s4")
        group.configs["s4"] = changed(config, initial_state="existing")
        await group.start("s4")
        joins = group.nodes["s4"]
        await until(lambda: joins.status().applied_index > 1 and not joins.status().member.learner, "it votes")


async def test_one_that_joined_and_whose_file_does_not_say_so_ends_too(tmp_path: Path) -> None:
    """`kybern store join` says it in the data directory, which is lost."""
    *founders, config = configurations(tmp_path, 4)
    members = {founder.name: founder.peer_address for founder in founders}
    async with acquainted([changed(founder, members=members) for founder in founders]) as group:
        group.configs["s4"] = changed(config, initial_state="existing")
        await (await group.leader()).add_member("", config.peer_address, "", learner=False)
        await group.start("s4")
        joins = group.nodes["s4"]
        await until(lambda: joins.status().applied_index > 1 and knows_all(group, "s4"), "it has joined")
        await until(lambda: not joins.status().member.learner, "it votes")
        await group.level()
        await group.stop("s4")
        shutil.rmtree(tmp_path / "s4")
        group.configs["s4"] = config
        await group.start("s4")
        assert "knows s4 with another data directory" in await ends(group, "s4")


async def test_two_of_three_that_lost_theirs_are_no_new_group(tmp_path: Path) -> None:
    async with acquainted(configurations(tmp_path)) as group:
        kept, *lost = group.configs
        await group.stop()
        for name in lost:
            shutil.rmtree(tmp_path / name)
        await group.start(kept)
        await group.start(*lost)
        for name in lost:
            assert f"{kept} knows {name} with another data directory" in await ends(group, name)
        assert not any(node.is_leader for node in group.nodes.values())
        await group.stop(*lost)


async def test_a_directory_that_was_moved_is_the_same(tmp_path: Path) -> None:
    async with acquainted(configurations(tmp_path)) as group:
        await group.stop("s2")
        (tmp_path / "s2").rename(tmp_path / "elsewhere")
        group.configs["s2"] = changed(group.configs["s2"], data_dir=tmp_path / "elsewhere")
        await group.start("s2")
        await (await group.leader()).propose(b"all the same")
        assert await group.level() == [b"before", b"all the same"]


async def test_one_that_founded_the_group_alone_founds_no_other_for_long(tmp_path: Path) -> None:
    """Its file names nobody else, so it elects itself; the others find it, and tell it."""
    alone, other = configurations(tmp_path, 2)
    founder = changed(alone, members={"s1": alone.peer_address})
    async with acquainted([founder]) as group:
        leader = await group.leader()
        group.configs["s2"] = changed(other, initial_state="existing")
        await leader.add_member("", other.peer_address, "", learner=True)
        await group.start("s2")
        joins = group.nodes["s2"]
        await until(lambda: joins.status().applied_index > 1 and knows_all(group, "s2"), "the other has joined")
        await group.stop("s1")
        shutil.rmtree(tmp_path / "s1")
        await group.start("s1")
        assert "s2 knows s1 with another data directory" in await ends(group, "s1")
