"""Members that come back with an older copy of their data directory, as from a virtual machine's snapshot or a backup.

What they acknowledged since is not lost with it: they vote as the members that they were, and get it again.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kybern.daemon import StartupError
from store.raft import messages
from store.raft.interface import NoLeader, RaftUnavailable
from tests.integration.store.raft.cluster import CuttableTransport, Group, configurations, until
from tests.integration.store.raft.test_lost_disk import acquainted, ends


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Group]:
    async with acquainted(configurations(tmp_path)) as group:
        yield group


async def copy_aside(group: Group, name: str) -> None:
    """Stop a member, copy its directory, and start it again."""
    await group.stop(name)
    shutil.copytree(group.configs[name].data_dir, group.configs[name].data_dir.with_name(f"{name}-copy"))
    await group.start(name)
    await group.level()


def put_back(group: Group, name: str) -> None:
    """The copy takes the place of the directory of a member that does not run."""
    directory = group.configs[name].data_dir
    shutil.rmtree(directory)
    shutil.copytree(directory.with_name(f"{name}-copy"), directory)


async def roles(group: Group) -> tuple[str, str, str]:
    """The leader, and two followers of which the first has a copy of its directory as it is now."""
    keeps, goes_back, lags = [group.name(await group.leader()), *map(group.name, await group.followers())]
    await copy_aside(group, goes_back)
    return keeps, goes_back, lags


async def test_it_elects_no_leader_without_what_it_acknowledged(group: Group) -> None:
    keeps, goes_back, lags = await roles(group)
    leader = group.nodes[keeps]
    group.transports[lags].cut()
    await leader.propose(b"acknowledged")
    await until(lambda: b"acknowledged" in group.machines[goes_back].commands, "both have it")
    await group.stop(goes_back)
    put_back(group, goes_back)
    # As long as it takes to send it a large state.
    _send_no_entries(group.transports[keeps], goes_back)
    await group.start(goes_back)
    with contextlib.suppress(TimeoutError):
        said = await ends(group, goes_back)
        assert f"is an older copy of what it was (it had the log up to entry {leader.status().commit_index}" in said
        # What it was told it keeps, although it ends before it has it again.
        await group.stop(goes_back)
        await group.start(goes_back)
    await until(lambda: group.transports[goes_back].hello(keeps) is not None, "it is let in")
    await group.stop(keeps)
    group.transports[lags].heal()
    with pytest.raises((NoLeader, RaftUnavailable)):
        await group.nodes[lags].propose(b"by two that lack it")
    assert not group.nodes[goes_back].is_leader
    await group.start(keeps)
    await (await group.leader()).propose(b"after")
    assert await group.level() == [b"before", b"acknowledged", b"after"]


def _send_no_entries(transport: CuttableTransport, to: str) -> None:
    send = transport.send

    def sending(peer: str, message: messages.Message) -> bool:
        return not (peer == to and isinstance(message, messages.Append) and message.entries) and send(peer, message)

    transport.send = sending  # type: ignore[method-assign]


async def test_it_has_everything_again_by_itself_and_stands_for_election_then(group: Group) -> None:
    keeps, goes_back, lags = await roles(group)
    for number in range(50):
        await group.nodes[keeps].propose(b"%d" % number)
    await group.level()
    await group.stop(goes_back)
    put_back(group, goes_back)
    for _ in range(3):
        # Each of the others tells it once, unless the first has told as much.
        await group.start(goes_back)
        machine, node = group.machines[goes_back], group.nodes[goes_back]
        await until(lambda m=machine, n=node: len(m.commands) == 51 or not n._running, "all or a word")  # type: ignore[misc]
        if len(machine.commands) == 51:
            break
        assert "is an older copy of what it was" in await ends(group, goes_back)
        await group.stop(goes_back)
    owed = group.configs[goes_back].data_dir / "owed"
    await until(lambda: not owed.exists(), "it owes nothing any more")
    member = next(m for m in group.nodes[keeps].status().members if m.name == goes_back)
    await (await group.leader()).transfer_leadership(member.id)
    assert group.nodes[goes_back].is_leader
    assert lags in group.nodes


async def test_one_that_was_not_set_back_is_let_in_as_ever(group: Group) -> None:
    leader = await group.leader()
    for node in await group.followers():
        name = group.name(node)
        await leader.propose(name.encode())
        await group.stop(name)
        await group.start(name)
        await group.level()
        assert not (group.configs[name].data_dir / "owed").exists()


async def test_a_vote_that_it_does_not_know_is_not_given_again(group: Group) -> None:
    """The others know whom it voted for, and in which term."""
    keeps, goes_back, _ = await roles(group)
    member = next(m for m in group.nodes[keeps].status().members if m.name == goes_back)
    before = group.nodes[keeps].term
    await group.nodes[keeps].transfer_leadership(member.id)
    await until(lambda: group.nodes[keeps].term == group.nodes[goes_back].term > before, "another term")
    term = group.nodes[goes_back].term
    pings = group.configs[keeps].election_timeout_min
    await until(
        lambda: group.nodes[keeps]._standings.of(goes_back, _directory(group, goes_back)).term == term,
        "told",
        pings * 20,
    )
    await group.stop(goes_back)
    put_back(group, goes_back)
    await group.start(goes_back)
    assert "is an older copy of what it was (it was in term" in await ends(group, goes_back)
    await group.stop(goes_back)
    await group.start(goes_back)
    assert group.nodes[goes_back].term >= term
    vote = group.nodes[goes_back]._directory
    assert vote is not None
    assert vote.load_vote().term >= term
    await group.level()


def _directory(group: Group, name: str) -> int:
    return next(m.directory_id for m in group.nodes[name].status().members if m.name == name)


async def test_what_it_owes_that_cannot_be_read_refuses_to_start(group: Group) -> None:
    name = group.name((await group.followers())[0])
    await group.stop(name)
    owed = group.configs[name].data_dir / "owed"
    owed.write_bytes(b"KYVO and something else")
    with pytest.raises(StartupError, match=f"{owed} is corrupt at offset 0"):
        await group.start(name)
    owed.unlink()
    group.nodes.pop(name)
    await group.start(name)
    await group.level()
