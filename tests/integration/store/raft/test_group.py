"""Three members in one process, over loopback with real certificates."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from store.raft.interface import RaftUnavailable
from tests.integration.store.raft.cluster import Group, configurations, until


async def test_any_member_proposes_and_all_apply_the_same(group: Group) -> None:
    async def propose(name: str, count: int) -> list[object]:
        return [await group.nodes[name].propose(f"{name}-{number}".encode()) for number in range(count)]

    results = await asyncio.gather(*(propose(name, 200) for name in group.nodes))
    commands = await group.level()
    assert len(commands) == 600
    # Each proposer got its own command's result: the machine answers with the index.
    for name, indices in zip(group.nodes, results, strict=True):
        assert [commands[int(str(index)) - 1] for index in indices] == [f"{name}-{n}".encode() for n in range(200)]


async def test_what_goes_with_a_command_is_the_same_everywhere(group: Group) -> None:
    await asyncio.gather(*(node.propose(b"x") for node in group.nodes.values() for _ in range(50)))
    await group.level()
    first, *others = [machine.applied for machine in group.machines.values()]
    assert all(other == first for other in others)
    assert [applied.index for applied in first] == list(range(1, 151))
    stamps = [applied.now_ms for applied in first]
    assert stamps == sorted(stamps)
    assert abs(stamps[-1] / 1000 - time.time()) < 60
    assert all(machine.batches for machine in group.machines.values())


async def test_many_commands_share_an_entry(group: Group) -> None:
    leader = await group.leader()
    before = leader.metrics()
    await asyncio.gather(*(leader.propose(b"x" * 100) for _ in range(1000)))
    after = leader.metrics()
    assert after["groups"] - before["groups"] <= 20
    assert after["commands_applied"] - before["commands_applied"] == 1000


async def test_a_read_after_a_write_elsewhere_sees_it(group: Group) -> None:
    names = list(group.nodes)
    for number in range(60):
        writer, reader = names[number % 3], names[(number + 1) % 3]
        command = f"w{number}".encode()
        await group.nodes[writer].propose(command)
        await group.nodes[reader].read_barrier()
        assert group.machines[reader].commands[-1] == command


async def test_readers_that_wait_together_share_rounds(group: Group) -> None:
    for node in group.nodes.values():
        before = node.metrics()
        await asyncio.gather(*(node.read_barrier() for _ in range(500)))
        after = node.metrics()
        assert after["reads"] - before["reads"] == 500
        assert after["read_rounds"] - before["read_rounds"] <= 10


async def test_status_names_the_leader_on_all(group: Group) -> None:
    await group.level()
    leader = group.name(await group.leader())
    await until(
        lambda: all((s := n.status()).leader and s.leader.name == leader for n in group.nodes.values()), "leader"
    )

    def agreed() -> bool:
        """By and by: what the members say of themselves is entries, too."""
        statuses = [node.status() for node in group.nodes.values()]
        return {status.applied_index for status in statuses} == {statuses[0].commit_index}

    await until(agreed, "all have applied the same")
    found = [node.status() for node in group.nodes.values()]
    assert {status.term for status in found} == {found[0].term}
    assert [member.name for member in found[0].members] == ["s1", "s2", "s3"]
    assert all(0 < member.id < 1 << 64 for member in found[0].members)
    assert {node.is_leader for name, node in group.nodes.items() if name != leader} == {False}


async def test_large_commands(tmp_path: Path) -> None:
    # Three members encrypt, check and write them all in one process, which may have little of a machine.
    group = Group(configurations(tmp_path), request_timeout=20.0)
    await group.start()
    commands = [bytes([number]) * (3 << 20) for number in range(4)]
    follower = (await group.followers())[0]
    await asyncio.gather(*(follower.propose(command) for command in commands))
    assert sorted(await group.level()) == commands
    with pytest.raises(ValueError, match="larger than"):
        await follower.propose(b"x" * (9 << 20))
    await group.stop()


async def test_a_leader_that_stops_hands_over(group: Group) -> None:
    leader = group.name(await group.leader())
    told: list[bool] = []
    group.nodes[leader].on_leadership(told.append)
    await group.nodes[leader].propose(b"before")
    await group.stop(leader)
    assert told == [False]
    other = next(iter(group.nodes.values()))
    await other.propose(b"after")
    assert await group.level() == [b"before", b"after"]
    await group.start(leader)
    assert await group.level() == [b"before", b"after"]


async def test_all_stop_and_start_again(group: Group) -> None:
    await asyncio.gather(*(node.propose(b"%d" % i) for i, node in enumerate(list(group.nodes.values()) * 30)))
    commands = await group.level()
    term = (await group.leader()).status().term
    await group.stop()
    await group.start()
    assert await group.level() == commands
    assert (await group.leader()).status().term > term


async def test_a_member_that_was_away_catches_up(group: Group) -> None:
    follower = group.name((await group.followers())[0])
    await group.stop(follower)
    leader = await group.leader()
    # More than a connection's buffer takes at once.
    await asyncio.gather(*(leader.propose(b"%03d" % number + bytes(50_000)) for number in range(400)))
    await group.start(follower)
    assert len(await group.level()) == 400


async def test_a_leader_that_is_cut_off_answers_nothing(group: Group) -> None:
    leader = await group.leader()
    name = group.name(leader)
    await leader.propose(b"before")
    told: list[bool] = []
    leader.on_leadership(told.append)
    group.transports[name].cut()
    # It does not know yet that it is cut off, and must not answer all the same.
    assert leader.is_leader
    read = asyncio.create_task(leader.read_barrier())
    write = asyncio.create_task(leader.propose(b"cut off"))
    successor = await group.leader(but=name)
    await successor.propose(b"meanwhile")
    await until(lambda: not leader.is_leader, "the old leader steps down")
    assert leader.status().leader is None
    # Handlers run in a turn of the loop of their own.
    await until(lambda: told == [False], "the handler is told")
    assert not read.done()
    assert not write.done()
    group.transports[name].heal()
    await asyncio.gather(read, write)
    # What the old leader had appended for its client was lost with its term, and was proposed again, once.
    assert await group.level() == [b"before", b"meanwhile", b"cut off"]


async def test_a_member_that_is_cut_off_does_not_disturb_the_others(group: Group) -> None:
    follower = group.name((await group.followers())[0])
    leader = await group.leader()
    term = leader.status().term
    group.transports[follower].cut()
    await asyncio.sleep(3 * group.configs[follower].election_timeout_max)
    await leader.propose(b"meanwhile")
    group.transports[follower].heal()
    await group.nodes[follower].read_barrier()
    assert await group.level() == [b"meanwhile"]
    assert leader.is_leader
    assert leader.status().term == term


async def test_without_a_quorum_calls_end_with_unavailable(tmp_path: Path) -> None:
    group = Group(configurations(tmp_path), request_timeout=1.5)
    await group.start("s1")
    node = group.nodes["s1"]
    for call in (node.propose(b"x"), node.read_barrier()):
        with pytest.raises(RaftUnavailable, match="in time"):
            await call
    assert node.status().leader is None
    await group.stop()
    with pytest.raises(RaftUnavailable, match="does not run"):
        await node.propose(b"x")


async def test_a_single_member(tmp_path: Path) -> None:
    group = Group(configurations(tmp_path, 1))
    await group.start()
    await asyncio.gather(*(group.nodes["s1"].propose(b"%d" % number) for number in range(300)))
    await group.nodes["s1"].read_barrier()
    await group.stop()
    await group.start()
    await group.nodes["s1"].read_barrier()
    assert group.machines["s1"].commands == [b"%d" % number for number in range(300)]
    await group.stop()
