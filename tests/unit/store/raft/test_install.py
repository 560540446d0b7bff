"""A leader's snapshot takes the place of log and state, unless the log has gone beyond it meanwhile."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from kybern.config.models import StoreConfig
from store.raft import messages
from store.raft.disk import DiskWriter
from store.raft.interface import Levels, StateMachine
from store.raft.journal import Journal
from store.raft.snapshots import Header, SnapshotWriter
from store.raft.snapshotting import Owner, Snapshots
from tests.unit.store.raft.rig import HardenedRig, Time, append, elect, group


class _Machine:
    """Lets something happen while it loads; remembers whether it took the state over."""

    levels = Levels(1, 2)
    level = 1

    def __init__(self) -> None:
        self.meanwhile: Callable[[], None] = lambda: None
        self.replaced = False

    def load(self) -> _Machine:
        return self

    def feed(self, _part: bytes) -> None:
        self.meanwhile()

    def finish(self) -> None:
        self.replaced = True


class _Owner:
    def __init__(self) -> None:
        self.failed: list[Exception] = []

    def restored(self, _header: Header) -> None:
        return

    def snapshot_failed(self, error: Exception) -> None:
        self.failed.append(error)


class Follower:
    """A member without anything, which b leads in term 5."""

    def __init__(self, time: Time, folder: Path) -> None:
        self.rig = HardenedRig(time, folder / "log", disk=False)
        self.machine = _Machine()
        self.owner = _Owner()
        config = SimpleNamespace(cluster_name="test", election_timeout_max=2.5)
        (folder / "snapshot").mkdir()
        self.snapshots = Snapshots(
            cast(StoreConfig, config),
            folder / "snapshot",
            self.rig.journal,
            cast(StateMachine, self.machine),
            cast(Owner, self.owner),
        )
        self.disk = DiskWriter(
            self.rig.journal,
            patience=2.5,
            on_durable=self.rig.hardened.on_durable,
            on_unable=lambda: None,
            on_lost=lambda _: None,
        )
        self.replies: list[messages.SnapshotReply] = []
        self.snapshots.join(self.rig.hardened, self.disk, self._send)
        self.rig.deliver("b", append(5, (1, 0), [], commit=1))

    def _send(self, _peer: str, message: messages.Message) -> bool:
        assert isinstance(message, messages.SnapshotReply)
        self.replies.append(message)
        return True

    def begin(self, folder: Path, header: Header) -> None:
        """Begin to take b's snapshot."""
        data = _file(folder, header)
        part = messages.SnapshotPart(5, 1, header.index, header.term, len(data), 0, data)
        self.snapshots.on_part("b", part)

    async def take(self, folder: Path, header: Header) -> None:
        """Take b's snapshot."""
        self.begin(folder, header)
        for _ in range(500):
            if self.replies and self.replies[-1].installed:
                break
            await asyncio.sleep(0.01)
        assert self.replies[-1].installed
        await self.snapshots.stop()
        await self.disk.stop()


def _file(folder: Path, header: Header) -> bytes:
    folder.mkdir()
    writer = SnapshotWriter(folder, header)
    writer.write(b"state")
    return writer.finish().path.read_bytes()


@pytest.fixture
def follower(time: Time, tmp_path: Path) -> Follower:
    return Follower(time, tmp_path)


_HEADER = Header("test", 20, 5, 17, 5000, group("a", "b", "c"))


async def test_log_and_state_are_those_of_the_snapshot(follower: Follower, tmp_path: Path) -> None:
    await follower.take(tmp_path / "theirs", _HEADER)
    assert follower.machine.replaced
    assert (follower.rig.journal.base_index, follower.rig.journal.last_index) == (20, 20)


async def test_what_was_acknowledged_while_the_snapshot_was_loaded_stays(follower: Follower, tmp_path: Path) -> None:
    """The next leader's log goes back further, so it sends entries, and may commit them with this member."""
    rig = follower.rig

    def another_leads() -> None:
        rig.deliver("c", append(6, (1, 0), [*((i, 5) for i in range(2, 21)), (21, 6), (22, 6)], commit=1))
        rig.sync()

    follower.machine.meanwhile = another_leads
    await follower.take(tmp_path / "theirs", _HEADER)
    acknowledged = [reply["next_node_idx"] - 1 for reply in rig.replies("c", "next_node_idx") if reply["success"]]
    assert acknowledged[-1] == 22
    assert rig.log()[-1] == (22, 6)
    assert not follower.machine.replaced


async def test_what_no_disk_has_gives_way_to_the_snapshot(follower: Follower, tmp_path: Path) -> None:
    rig = follower.rig
    rig.deliver("b", append(5, (1, 0), [(index, 5) for index in range(2, 23)], commit=22))
    await follower.take(tmp_path / "theirs", _HEADER)
    assert follower.machine.replaced
    assert rig.log() == [(20, 5)]
    # It comes again, and contradicts nothing, although it was known to be committed before.
    rig.deliver("b", append(5, (20, 5), [(21, 5), (22, 5)], commit=22, sequence=2))
    assert (rig.journal.last_index, rig.hardened.commit_index) == (22, 22)
    assert not any(reply["success"] and reply["next_node_idx"] > 2 for reply in rig.replies("b", "next_node_idx"))


async def test_entries_that_contradict_the_snapshot_give_way_to_it(follower: Follower, tmp_path: Path) -> None:
    rig = follower.rig
    rig.deliver("b", append(5, (1, 0), [(index, 4) for index in range(2, 23)], commit=1))
    rig.sync()
    await follower.take(tmp_path / "theirs", _HEADER)
    assert follower.machine.replaced
    assert rig.log() == [(20, 5)]


async def test_a_member_that_leads_meanwhile_keeps_its_log(follower: Follower, tmp_path: Path) -> None:
    """It was sent more by another leader, and elected: all of that before its disk had any of it."""
    rig = follower.rig

    def leads() -> None:
        rig.deliver("c", append(6, (1, 0), [*((i, 5) for i in range(2, 21)), (21, 6)], commit=1))
        elect(rig)

    follower.machine.meanwhile = leads
    await follower.take(tmp_path / "theirs", _HEADER)
    assert rig.hardened.leads
    assert rig.log()[-2:] == [(21, 6), (22, 7)]
    assert not follower.machine.replaced


async def test_a_candidate_that_installs_is_none_any_more(follower: Follower, tmp_path: Path) -> None:
    rig = follower.rig

    def stands() -> None:
        rig.raft._SyncObj__raftElectionDeadline = 0.0
        rig.tick()
        rig.deliver("c", {"type": "response_vote", "trial": True, "term": 6, "granted": True, "voter_term": 5})
        rig.tick()
        assert rig.replies("c", "request_vote")[-1]["term"] == 6

    follower.machine.meanwhile = stands
    await follower.take(tmp_path / "theirs", _HEADER)
    rig.deliver("c", {"type": "response_vote", "term": 6, "granted": True, "voter_term": 6})
    assert not rig.hardened.leads
    assert rig.log() == [(20, 5)]


@pytest.mark.parametrize("stops", [False, True])
async def test_nothing_is_written_after_a_log_that_is_not_gone(
    follower: Follower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    """Removing the old segments fails, or the member is stopped meanwhile, and more was appended already.

    A new segment would stand after a hole, and the member would refuse to start.
    """
    rig, journal = follower.rig, follower.rig.journal
    rig.deliver("b", append(5, (1, 0), [(2, 4), (3, 4)], commit=1))
    rig.sync()
    removing, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def remove() -> None:
        loop.call_soon_threadsafe(removing.set)
        go_on.wait(10)
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(journal, "remove", remove)
    follower.begin(tmp_path / "theirs", _HEADER)
    await removing.wait()
    rig.deliver("b", append(5, (20, 5), [(21, 5), (22, 5)], commit=20, sequence=2))
    stopping = asyncio.create_task(follower.snapshots.stop()) if stops else None
    await asyncio.sleep(0.05)
    go_on.set()
    for _ in range(500):
        if stops or follower.owner.failed:
            break
        await asyncio.sleep(0.01)
    await (stopping or follower.snapshots.stop())
    await follower.disk.stop()
    journal.close()
    assert stops or follower.owner.failed
    # The next start finds the old log, and the snapshot that takes its place.
    opened = Journal(tmp_path / "log")
    opened.open()
    opened.close()
    assert opened.last_index == 3
    assert (tmp_path / "snapshot" / f"{20:020d}.installed").exists()
