"""Copies that a member writes by itself: whole or not there, as many as are to stay, none when something is wrong."""

from __future__ import annotations

import asyncio
import itertools
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest

from kybern import snapshots
from kybern.clock import SystemClock, run_virtual
from kybern.pb.v1.store_pipe_pb2 import StoreCommand
from kybern.snapshots import Seal
from store.mvcc.dump import dump, load
from store.mvcc.machine import StoreMachine
from store.mvcc.outcomes import PutOutcome
from store.ops.state import read_file
from store.raft import failpoints
from store.raft.interface import Member
from store.raft.local import LocalRaft
from store.server import backups
from store.server.backups import Backups, Schedule, first_wait
from store.server.core import Core
from tests.unit.store.driver import put

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


class Clock:
    """Says what it was told to."""

    def __init__(self) -> None:
        self.time = NOON

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()


class Member1:
    """A member, its clock, and where it writes to."""

    def __init__(self, folder: Path, *, keep: int = 3) -> None:
        self.raft = LocalRaft(Member(1, "s1", "", ""), SystemClock())
        self.core = Core(self.raft, StoreMachine(), "test")
        self.clock = Clock()
        self.folder = folder
        self.backups = Backups(self.core, self.clock, Schedule(folder, "s1", 3600.0, keep))

    async def write(self, *keys: bytes) -> None:
        for key in keys:
            await self.core.propose(StoreCommand(put=put(key, b"v" * 1000)), PutOutcome)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
async def member(tmp_path: Path) -> Member1:
    made = Member1(tmp_path / "copies")
    await made.raft.start(made.core.machine)
    await made.write(b"a", b"b")
    return made


async def test_a_copy_is_whole_private_and_says_what_it_is(member: Member1) -> None:
    assert await member.backups.attempt()
    assert member.names() == ["store-s1-20260504T120000Z-3.snapshot"]
    (found,) = snapshots.backups(member.folder)
    path = Path(found.file)
    assert mode(path) == 0o600
    assert (found.member, found.time, found.revision) == ("s1", NOON, 3)
    machine, _ = read_file(path, check=True)
    assert b"".join(dump(machine)) == b"".join(dump(member.core.machine))
    figures = member.backups.figures
    assert (figures.succeeded, figures.revision, figures.size) == (NOON.timestamp(), 3, found.size)
    assert (figures.taken, figures.failures, figures.failing) == (1, 0, False)


async def test_so_many_of_its_own_stay_and_all_of_others(member: Member1) -> None:
    member.folder.mkdir()
    others = ["store-s1-b-20260101T000000Z-9.snapshot", "store-s1-20269901T000000Z-9.snapshot", "notes.txt"]
    for name in others:
        (member.folder / name).write_text("not to be touched")
    # What a crash has left.
    (member.folder / ".store-s1-20260101T000000Z-9.snapshot.part").write_text("half")
    for hour in range(5):
        member.clock.time = NOON + timedelta(hours=hour)
        assert await member.backups.attempt()
    mine = [f"store-s1-20260504T{hour}0000Z-3.snapshot" for hour in (14, 15, 16)]
    assert member.names() == sorted(others + mine)
    # The clock is set back: what was just written is not what is oldest.
    member.clock.time = NOON - timedelta(days=1)
    assert await member.backups.attempt()
    assert member.names() == sorted([*others, "store-s1-20260503T120000Z-3.snapshot", *mine[1:]])


async def test_without_a_quorum_there_is_no_copy_of_what_may_be_old(member: Member1) -> None:
    member.raft.set_leader(False)
    assert not await member.backups.attempt()
    assert not member.folder.exists()
    assert member.backups.figures.failing
    member.raft.set_leader(True)
    assert await member.backups.attempt()
    assert not member.backups.figures.failing


@pytest.mark.parametrize("where", ["backup.partial=full", "backup.written=raise"])
async def test_what_could_not_be_written_is_not_there_and_nothing_else_is_lost(member: Member1, where: str) -> None:
    assert await member.backups.attempt()
    held = member.names()
    member.clock.time += timedelta(hours=1)
    with failpoints.enabled(where):
        assert not await member.backups.attempt()
    assert member.names() == held
    assert (member.backups.figures.failures, member.backups.figures.failing) == (1, True)
    assert member.backups.figures.succeeded == NOON.timestamp()
    assert await member.backups.attempt()
    assert len(member.names()) == 2


async def test_a_disk_with_too_little_room_is_not_filled(
    member: Member1, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backups, "_SPARE_BYTES", 1 << 60)
    assert not await member.backups.attempt()
    assert member.names() == []
    assert "MiB are needed" in caplog.text


async def test_a_copy_of_two_states_is_none(member: Member1, monkeypatch: pytest.MonkeyPatch) -> None:
    await member.write(*(b"%d" % n for n in range(1000)))
    other = b"".join(dump(StoreMachine()))
    written: list[bytes] = []

    def add(file: BinaryIO, seal: Seal, portion: bytes, sync: bool) -> None:
        if not written:
            # As when a leader's snapshot comes.
            load(member.core.machine, [other])
        written.append(portion)

    monkeypatch.setattr(backups, "_add", add)
    assert not await member.backups.attempt()
    assert len(written) == 1
    assert member.names() == []


async def test_a_folder_that_hangs_holds_nothing_up(member: Member1, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = threading.Event()

    def add(file: BinaryIO, seal: Seal, portion: bytes, sync: bool) -> None:
        hanging.wait()

    monkeypatch.setattr(backups, "_add", add)
    monkeypatch.setattr(backups, "_LONGEST", 0.05)
    assert not await member.backups.attempt()
    # Compactions take out what the copy would have needed.
    await member.write(b"a")
    keys = member.core.machine.keys
    keys.compact(keys.revision)
    assert len(keys.log) == 1
    hanging.set()
    monkeypatch.undo()
    assert await member.backups.attempt()
    assert member.names() == ["store-s1-20260504T120000Z-4.snapshot"]


async def test_what_is_read_back_wrong_is_removed(member: Member1, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(file: BinaryIO, seal: Seal, portion: bytes, sync: bool) -> None:
        seal.add(portion)
        file.write(bytes(len(portion)))

    monkeypatch.setattr(backups, "_add", add)
    assert not await member.backups.attempt()
    assert member.names() == []


def test_after_failures_it_waits_longer_and_longer_but_no_longer_than_its_interval(tmp_path: Path) -> None:
    async def scenario() -> None:
        member = Member1(tmp_path)
        times: list[float] = []
        outcomes = [True, False, False, False, False, True, True]

        async def attempt() -> bool:
            times.append(asyncio.get_running_loop().time())
            return outcomes[len(times) - 1] if len(times) < len(outcomes) else True

        member.backups.attempt = attempt  # type: ignore[method-assign] # what is tested is around it
        running = asyncio.create_task(member.backups.run())
        while len(times) < 8:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(1)
        running.cancel()
        waits = [after - before for before, after in itertools.pairwise(times)]
        assert [round(wait) for wait in (waits[0], *waits[5:7])] == [3600] * 3
        for wait, longest in zip(waits[1:5], (15, 30, 60, 120), strict=True):
            assert longest * 0.8 <= wait <= longest

    run_virtual(scenario())


def test_the_schedule_goes_on_after_a_restart() -> None:
    hour = 3600.0
    assert first_wait(NOON, NOON - timedelta(minutes=20), hour) == 2400.0
    assert first_wait(NOON, NOON - timedelta(days=20), hour) == 0.0
    assert first_wait(NOON, NOON + timedelta(days=20), hour) == hour


async def test_a_restart_knows_what_was_written_last(member: Member1) -> None:
    assert await member.backups.attempt()
    again = Member1(member.folder)
    again.clock.time = NOON + timedelta(minutes=59)
    running = asyncio.create_task(again.backups.run())
    while not again.backups.figures.succeeded:  # noqa: ASYNC110 - it says so nowhere else
        await asyncio.sleep(0.001)
    running.cancel()
    assert (again.backups.figures.succeeded, again.backups.figures.revision) == (NOON.timestamp(), 3)
    (found,) = snapshots.backups(member.folder)
    assert (again.backups.figures.taken, again.backups.figures.size) == (0, found.size)


def test_names_sort_by_time_and_are_read_back(tmp_path: Path) -> None:
    names = [snapshots.backup_name("a-1", NOON + timedelta(days=n), 10 - n) for n in range(3)]
    for name in names:
        (tmp_path / name).write_bytes(b"12345")
    found = snapshots.backups(tmp_path)
    assert [Path(backup.file).name for backup in found] == names == sorted(names)
    assert [(b.member, b.time, b.revision, b.size) for b in found[:1]] == [("a-1", NOON, 10, 5)]
    assert snapshots.backups(tmp_path, "a") == []
