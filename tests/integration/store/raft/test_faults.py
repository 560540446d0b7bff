"""A member's own troubles: its disk, its directory, its configuration, its clock, its machine."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kybern.clock import SystemClock
from kybern.daemon import StartupError
from store.raft.interface import Applied, NoLeader, RaftUnavailable
from store.raft.node import RaftNode
from tests.integration.store.raft.cluster import Group, Recorder, changed, configurations, until


class Disk:
    """os.pwritev of one member's journal, which fails when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.error = 0
        self.directory = directory.resolve()
        self._write = os.pwritev
        monkeypatch.setattr(os, "pwritev", self.pwritev)

    def pwritev(self, descriptor: int, parts: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        self._check(descriptor)
        return self._write(descriptor, parts, offset, flags)

    def _check(self, descriptor: int) -> None:
        if self.error and Path(f"/proc/self/fd/{descriptor}").resolve().is_relative_to(self.directory):
            raise OSError(self.error, os.strerror(self.error))


async def test_a_leader_whose_disk_is_full_lets_another_lead_and_comes_back(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = await group.leader()
    name = group.name(leader)
    await leader.propose(b"before")
    disk = Disk(monkeypatch, group.configs[name].data_dir)
    disk.error = errno.ENOSPC
    # Committed by the others, who have a disk, under another leader.
    await asyncio.gather(*(node.propose(b"full") for other, node in group.nodes.items() if other != name))
    assert group.name(await group.leader()) != name
    assert not leader.is_leader
    durable = leader.status().applied_index
    assert durable < (await group.leader()).status().applied_index
    # It can do nothing for its callers, and says so at once.
    assert leader.status().leader is None
    with pytest.raises(NoLeader, match="takes no writes"):
        await leader.propose(b"never")
    disk.error = 0
    while leader.status().trouble:  # noqa: ASYNC110 - the disk is tried again now and then
        await asyncio.sleep(0.05)
    await leader.propose(b"after")
    assert await group.level() == [b"before", b"full", b"full", b"after"]


async def test_a_member_whose_disk_fails_ends_and_says_so(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    leader = await group.leader()
    name = group.name(leader)
    disk = Disk(monkeypatch, group.configs[name].data_dir)
    disk.error = errno.EIO
    with pytest.raises(RaftUnavailable, match="this member failed"):
        await leader.propose(b"lost")
    with pytest.raises(StartupError, match="Input/output error") as caught:
        await leader.failed()
    assert caught.value.retry
    assert not leader.is_leader
    others = [node for other, node in group.nodes.items() if other != name]
    await others[0].propose(b"on")
    disk.error = 0
    await group.stop(name)
    await group.start(name)
    # What the failed member had appended was never acknowledged; it may or may not be there, but for all alike.
    assert (await group.level())[-1] == b"on"


async def test_a_directory_of_another_member_or_process_is_refused(group: Group) -> None:
    first, second = group.configs["s1"], group.configs["s2"]
    with pytest.raises(StartupError, match="another process uses the data directory"):
        await RaftNode(first).start(Recorder())
    await group.stop("s1", "s2")
    with pytest.raises(StartupError, match="belongs to member 's2'"):
        await RaftNode(changed(first, data_dir=second.data_dir)).start(Recorder())
    await group.start("s1", "s2")
    await group.level()


async def test_a_corrupt_log_is_refused_and_the_directory_is_let_go(tmp_path: Path) -> None:
    group = Group(configurations(tmp_path, 1))
    await group.start()
    await group.nodes["s1"].propose(b"x" * 100)
    await group.stop()
    (path,) = (tmp_path / "s1" / "log").iterdir()
    good = path.read_bytes()
    path.write_bytes(good.replace(b"xxx", b"xx?", 1))
    for _ in range(2):
        with pytest.raises(StartupError, match=rf"{path} is corrupt at offset \d+.*`kybern store join`"):
            await group.start()
    path.write_bytes(good)
    await group.start()
    assert await group.level() == [b"x" * 100]
    await group.stop()


async def test_configurations_that_cannot_be(tmp_path: Path) -> None:
    config = configurations(tmp_path, 1)[0]
    with pytest.raises(StartupError, match="members must name this member"):
        await RaftNode(changed(config, members={})).start(Recorder())
    with pytest.raises(StartupError, match="election_timeout_max must be longer"):
        await RaftNode(changed(config, election_timeout_max=0.2)).start(Recorder())


async def test_a_machine_that_raises_costs_its_proposer_an_error_and_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Recorder):
        def apply(self, command: bytes, applied: Applied) -> object:
            super().apply(command, applied)
            if command == b"bad":
                raise LookupError("against the contract")
            return len(self.commands)

    machine = Broken()
    node = RaftNode(configurations(tmp_path, 1)[0])
    await node.start(machine)
    good, bad, more = await asyncio.gather(
        *(node.propose(command) for command in (b"good", b"bad", b"more")), return_exceptions=True
    )
    assert (good, more) == (1, 3)
    assert isinstance(bad, LookupError)
    assert machine.commands == [b"good", b"bad", b"more"]
    assert "the state machine raised at command 2" in caplog.text
    await node.stop()


async def test_the_clock_in_the_log_never_goes_back(tmp_path: Path) -> None:
    class Jumping(SystemClock):
        moment = datetime.now(UTC).replace(microsecond=0)

        def now(self) -> datetime:
            return self.moment

    clock = Jumping()
    start_ms = int(clock.moment.timestamp() * 1000)
    config = configurations(tmp_path, 1)[0]
    machine = Recorder()
    node = RaftNode(config, clock=clock)
    await node.start(machine)
    await node.propose(b"1")
    clock.moment -= timedelta(minutes=4)
    await node.propose(b"2")
    await node.stop()
    # A new leader, whose clock is behind, goes on from the log's.
    machine = Recorder()
    node = RaftNode(config, clock=clock)
    await node.start(machine)
    await node.propose(b"3")
    clock.moment += timedelta(hours=1)
    await node.propose(b"4")
    stamps = [applied.now_ms for applied in machine.applied]
    assert stamps[0] == stamps[1] == stamps[2] == start_ms
    assert stamps[3] == start_ms + 56 * 60_000
    await node.stop()


async def test_a_caller_that_goes_away_disturbs_nobody(group: Group) -> None:
    for node in group.nodes.values():
        calls = [asyncio.create_task(node.propose(b"%d" % number)) for number in range(50)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        kept = await asyncio.gather(*calls[1::2])
        assert len(kept) == 25
        assert (await asyncio.gather(*calls[::2], return_exceptions=True)).count(None) == 0
    await group.level()


async def test_handlers_that_raise_are_logged(group: Group, caplog: pytest.LogCaptureFixture) -> None:
    leader = await group.leader()

    def broken(_leads: bool) -> None:
        raise RuntimeError("no")

    leader.on_leadership(broken)
    group.transports[group.name(leader)].cut()
    await until(lambda: "leadership handler raised" in caplog.text, "logged")
    await group.leader(but=group.name(leader))
