"""Members that come and go while the group runs, with real certificates and disks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kybern.config.models import StoreConfig
from kybern.daemon import StartupError
from store.raft import messages
from store.raft.configuration import Configuration
from store.raft.interface import Member, MembershipError, MembershipReason, RaftUnavailable
from store.raft.node import RaftNode
from store.raft.standing import Standings
from store.raft.transport import Listener
from tests.integration.store.raft.cluster import Group, Recorder, changed, configurations, issue, until
from tests.ports import free_ports


class Load:
    """Proposes all the while through every member that runs; knows what was acknowledged."""

    def __init__(self, group: Group, workers: int = 4) -> None:
        self.group = group
        self.acknowledged: list[bytes] = []
        self.failed = 0
        self._resting = False
        self._tasks = [asyncio.create_task(self._work(number)) for number in range(workers)]

    async def _work(self, worker: int) -> None:
        number = 0
        while not self._resting:
            number += 1
            command = b"%d/%d" % (worker, number)
            names = sorted(self.group.nodes)
            try:
                await self.group.nodes[names[number % len(names)]].propose(command)
            except RaftUnavailable:
                self.failed += 1
                await asyncio.sleep(0.01)
            else:
                self.acknowledged.append(command)

    async def more(self, count: int = 50) -> None:
        """Wait until so many more were acknowledged: everything goes on."""
        target = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= target, f"{count} more writes")

    async def rest(self) -> None:
        self._resting = True
        await asyncio.gather(*self._tasks)


@contextlib.asynccontextmanager
async def running(configs: list[StoreConfig]) -> AsyncIterator[Group]:
    group = Group(configs)
    try:
        await group.start()
        await group.leader()
        yield group
    finally:
        await group.stop()


def joining(directory: Path, group: Group, name: str, disk: str) -> StoreConfig:
    """The configuration of a member that joins: it knows the others, and is not to make a group of its own."""
    some = next(iter(group.configs.values()))
    members = {config.name: config.peer_address for config in group.configs.values()}
    members[name] = f"127.0.0.1:{free_ports(1)[0]}"
    return changed(
        some,
        name=name,
        data_dir=directory / (disk or name),
        peer_address=members[name],
        members=members,
        tls=issue(directory / "pki", name),
        initial_state="existing",
    )


async def join(directory: Path, group: Group, name: str, *, learner: bool = False, disk: str = "") -> Member:
    """Add a member through any other one, start it and wait until it takes part."""
    config = joining(directory, group, name, disk)
    asked = next(iter(group.nodes.values()))
    added = await asked.add_member("", config.peer_address, "", learner=learner)
    group.configs[name] = config
    await group.start(name)
    await until(lambda: member_of(group, name) is not None, f"{name} knows who it is")
    if not learner:
        await until(lambda: not member_of(group, name, expected=True).learner, f"{name} votes")
    return added


def member_of(group: Group, name: str, *, expected: bool = False) -> Member:
    """What the member itself knows of itself."""
    found = next((member for member in group.nodes[name].status().members if member.name == name), None)
    assert found is not None or not expected
    return found  # type: ignore[return-value]


async def refused(call: object) -> MembershipReason:
    with pytest.raises(MembershipError) as caught:
        await call  # type: ignore[misc]
    return caught.value.reason


class Deaf:
    """A transport that writes down what the member says."""

    def __init__(self) -> None:
        self.sent: list[messages.Message] = []

    async def start(self, listener: Listener, directory_id: int, standings: Standings, level: int = 1) -> None:
        """Nobody is there."""

    async def stop(self) -> None:
        """Nobody was there."""

    def send(self, peer: str, message: messages.Message) -> bool:
        self.sent.append(message)
        return True

    def configure(
        self,
        own_id: int,
        *configurations: Configuration,
        behind: bool = False,
        leads: bool = False,
        level: int = 1,
    ) -> None:
        """It hears whom the test says."""

    def hello(self, peer: str) -> messages.Hello | None:
        return None


@pytest.mark.parametrize(("state", "votes"), [("new", 2), ("existing", 0)])
async def test_a_member_that_joins_votes_for_nobody_before_it_knows_its_group(
    tmp_path: Path, state: str, votes: int
) -> None:
    config = changed(configurations(tmp_path)[0], initial_state=state)
    transport = Deaf()
    node = RaftNode(config, transport=lambda config, clock: transport)
    await node.start(Recorder())
    try:
        # A member of a group that was lost, to which one of the same name belonged.
        for trial in (True, False):
            node.on_message("s2", messages.VoteRequest(9, last_index=1000, last_term=8, trial=trial))
        granted = [m for m in transport.sent if isinstance(m, messages.VoteReply) and m.granted]
        assert len(granted) == votes
        assert node.status().term == (9 if votes else 0)
    finally:
        await node.stop()


async def test_a_group_grows_from_one_to_five_while_it_is_written_to(tmp_path: Path) -> None:
    async with running(configurations(tmp_path, 1)) as group:
        load = Load(group)
        await load.more()
        for name in ("s2", "s3", "s0", "s5"):
            await join(tmp_path, group, name)
            await load.more()
        await load.rest()
        applied = await group.level()
        assert set(load.acknowledged) <= set(applied)
        assert len(applied) == len(set(applied))
        for node in group.nodes.values():
            status = node.status()
            assert sorted(m.name for m in status.members if not m.learner) == ["s0", "s1", "s2", "s3", "s5"]
            assert all(member.client_address == "127.0.0.1:1" for member in status.members)
        # Any two of five may be away.
        leader = group.name(await group.leader())
        away = [name for name in group.nodes if name != leader][:1]
        await group.stop(leader, *away)
        await (await group.leader()).propose(b"three of five")


async def test_a_member_is_replaced_under_load(tmp_path: Path) -> None:
    async with running(configurations(tmp_path)) as group:
        load = Load(group)
        await load.more()
        leader = await group.leader()
        victim = next(name for name in group.nodes if name != group.name(leader))
        gone = member_of(group, victim)
        # Its disk is lost.
        lost = group.nodes.pop(victim)
        await lost.stop()
        await leader.remove_member(gone.id)
        await load.more()
        del group.configs[victim]
        added = await join(tmp_path, group, "s4")
        await load.more()
        await load.rest()
        assert added.id != gone.id
        applied = await group.level()
        assert set(load.acknowledged) <= set(applied)
        assert len(applied) == len(set(applied))


async def test_a_removed_member_ends_and_stays_out(tmp_path: Path) -> None:
    async with running(configurations(tmp_path)) as group:
        leader = await group.leader()
        victim = next(name for name in group.nodes if name != group.name(leader))
        gone = member_of(group, victim)
        # Through the very member that is removed.
        await group.nodes[victim].remove_member(gone.id)
        with pytest.raises(StartupError, match=r"was removed from the store's group"):
            await asyncio.wait_for(group.nodes[victim].failed(), 10)
        await group.stop(victim)
        await leader.propose(b"without it")
        # Once more, with its old disk: it is told again.
        again = RaftNode(group.configs[victim])
        await again.start(group.machines[victim])
        with pytest.raises(StartupError, match=r"was removed from the store's group .* `kybern store join`"):
            await asyncio.wait_for(again.failed(), 20)
        await again.stop()
        # Under its old name with an empty disk, it is another member.
        del group.configs[victim]
        added = await join(tmp_path, group, victim, disk="new")
        assert added.id != gone.id
        assert member_of(group, victim, expected=True).id == added.id
        await group.stop(victim)
        await group.start(victim)
        await group.nodes[victim].read_barrier()
        assert group.nodes[victim].status().member.id == added.id
        assert b"without it" in await group.level()


async def test_the_leader_is_removed_under_load(tmp_path: Path) -> None:
    async with running(configurations(tmp_path)) as group:
        load = Load(group)
        await load.more()
        leader = await group.leader()
        name = group.name(leader)
        await leader.remove_member(member_of(group, name).id)
        with pytest.raises(StartupError, match=r"was removed"):
            await asyncio.wait_for(leader.failed(), 10)
        await group.stop(name)
        await load.more()
        await load.rest()
        applied = await group.level()
        assert set(load.acknowledged) <= set(applied)
        assert sorted(m.name for m in (await group.leader()).status().members) == sorted(set(group.configs) - {name})


async def test_leadership_is_handed_over_under_load(tmp_path: Path) -> None:
    async with running(configurations(tmp_path)) as group:
        load = Load(group)
        for _ in range(5):
            await load.more()
            leader = await group.leader()
            target = next(name for name in sorted(group.nodes) if name != group.name(leader))
            await leader.transfer_leadership(member_of(group, target).id)
            assert group.nodes[target].is_leader
            assert await refused(leader.transfer_leadership(member_of(group, target).id)) == MembershipReason.NOT_LEADER
        await load.rest()
        assert load.failed == 0
        applied = await group.level()
        assert set(load.acknowledged) <= set(applied)
        assert len(applied) == len(set(applied))


async def test_a_leader_goes_on_when_nobody_takes_over(tmp_path: Path) -> None:
    async with running(configurations(tmp_path)) as group:
        leader = await group.leader()
        target = next(name for name in group.nodes if name != group.name(leader))
        identity = member_of(group, target).id
        group.transports[target].cut()
        await until(lambda: leader._raft is not None and target not in leader._raft.active(), "it is away")
        assert await refused(leader.transfer_leadership(identity)) == MembershipReason.TRANSFER_TIMEOUT
        assert await refused(leader.transfer_leadership(7)) == MembershipReason.BAD_TRANSFEREE
        await leader.propose(b"still here")
        assert leader.is_leader


async def test_changes_that_are_not_allowed(tmp_path: Path) -> None:
    async with running(configurations(tmp_path)) as group:
        leader = await group.leader()
        first, second = (name for name in group.nodes if name != group.name(leader))
        asked = group.nodes[first]
        address = member_of(group, second).peer_address
        assert await refused(asked.add_member("", address, "", learner=True)) == MembershipReason.ADDRESS_EXISTS
        assert await refused(asked.add_member(second, "127.0.0.1:2", "", learner=True)) == MembershipReason.ID_EXISTS
        assert await refused(asked.remove_member(7)) == MembershipReason.NOT_FOUND
        assert await refused(asked.promote_member(member_of(group, second).id)) == MembershipReason.NOT_LEARNER
        new = await asked.add_member("s8", "127.0.0.1:2", "", learner=True)
        assert await refused(asked.promote_member(new.id)) == MembershipReason.LEARNER_NOT_READY
        await asked.add_member("s9", "127.0.0.1:3", "", learner=True)
        many = await refused(asked.add_member("", "127.0.0.1:4", "", learner=True))
        assert many == MembershipReason.TOO_MANY_LEARNERS
        assert (await asked.update_member(new.id, "127.0.0.1:5")).peer_address == "127.0.0.1:5"
        group.transports[second].cut()
        await until(lambda: leader._raft is not None and second not in leader._raft.active(), "it is away")
        # Of the two that would be left, one is away.
        assert await refused(leader.remove_member(member_of(group, first).id)) == MembershipReason.UNHEALTHY
        await leader.remove_member(member_of(group, second).id)
    async with running(configurations(tmp_path / "alone", 1)) as group:
        leader = await group.leader()
        assert await refused(leader.remove_member(leader.status().member.id)) == MembershipReason.NOT_ENOUGH_STARTED


async def test_a_learner_follows_without_a_vote_until_it_is_promoted(tmp_path: Path) -> None:
    async with running(configurations(tmp_path, 1)) as group:
        added = await join(tmp_path, group, "s2", learner=True)
        await group.nodes["s2"].propose(b"through the learner")
        # One vote is a quorum of one: the learner may be away.
        await group.stop("s2")
        await group.nodes["s1"].propose(b"without the learner")
        await group.start("s2")
        await group.nodes["s2"].read_barrier()
        assert group.nodes["s2"].status().member.learner
        promoted = await group.nodes["s2"].promote_member(added.id)
        assert (promoted.id, promoted.learner) == (added.id, False)
        await group.nodes["s1"].transfer_leadership(added.id)
        assert group.nodes["s2"].is_leader
        assert await group.level() == [b"through the learner", b"without the learner"]


async def test_a_change_that_was_not_committed_is_forgotten(tmp_path: Path) -> None:
    async with running(configurations(tmp_path)) as group:
        leader = await group.leader()
        name = group.name(leader)
        await leader.propose(b"before")
        raft = leader._raft
        assert raft is not None
        # The first leader puts the members into the log, and that change comes first.
        await until(lambda: raft.configurations.index > 0 and raft.may_change, "a change may be made")
        group.transports[name].cut()
        # It leads yet as far as it knows, and appends a change that no other member sees.
        adding = asyncio.create_task(leader.add_member("s9", "127.0.0.1:2", "", learner=True))
        await until(lambda: len(leader.status().members) == 4, "the change holds where it was appended")
        other = await group.leader(but=name)
        await other.propose(b"after")
        assert len(other.status().members) == 3
        group.transports[name].heal()
        await until(lambda: len(leader.status().members) == 3, "the change is gone")
        with pytest.raises(RaftUnavailable):
            await adding
        assert await group.level() == [b"before", b"after"]
        # Members know it from their logs, whatever their files say.
        await other.add_member("s8", "127.0.0.1:2", "", learner=True)
        await group.stop()
        await group.start()
        await group.level()
        assert all(len(node.status().members) == 4 for node in group.nodes.values())


async def test_who_was_away_finds_a_group_of_others(tmp_path: Path) -> None:
    async with running(configurations(tmp_path)) as group:
        await group.nodes["s1"].propose(b"before")
        await group.stop("s3")
        away = group.configs.pop("s3")
        for name in ("s4", "s5"):
            await join(tmp_path, group, name)
        for name in ("s1", "s2"):
            await group.nodes["s4"].remove_member(member_of(group, name).id)
            await group.stop(name)
        await group.nodes["s4"].propose(b"by others")
        # Its log knows none of those who are there now, and none of their addresses: they come to it.
        group.configs["s3"] = away
        await group.start("s3")
        await until(lambda: group.machines["s3"].commands == [b"before", b"by others"], "it has everything")
        await group.stop("s5")
        await group.nodes["s3"].propose(b"together")
        assert await group.level() == [b"before", b"by others", b"together"]
