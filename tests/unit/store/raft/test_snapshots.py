"""Snapshot files, how the log is trimmed and begins anew, and a leader whose log does not go back far enough."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.raft import failpoints
from store.raft.configuration import Configuration
from store.raft.datadir import Vote
from store.raft.interface import Member
from store.raft.journal import Journal
from store.raft.snapshots import (
    CorruptSnapshot,
    Header,
    SnapshotDirectory,
    SnapshotReader,
    SnapshotWriter,
    verify,
)
from tests.unit.store.raft.rig import HardenedRig, Time, acknowledge, append, elect, pass_time

_HEADER = Header("test", 20, 3, 17, 5000, Configuration((Member(1, "a", "127.0.0.1:1", "127.0.0.1:2"),)))


def written(directory: Path, header: Header = _HEADER) -> Path:
    writer = SnapshotWriter(directory, header)
    try:
        for part in (b"x" * 1000, b"y" * 2000):
            writer.write(part)
        return writer.finish().path
    except OSError:
        writer.abandon()
        raise


# --- files


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
    reader = SnapshotReader(written(tmp_path))
    assert reader.header == _HEADER
    assert [reader.read(), reader.read(), reader.read()] == [b"x" * 1000, b"y" * 2000, None]
    reader.close()
    found = SnapshotDirectory(tmp_path).open()
    assert found is not None
    assert (found.header, found.installed) == (_HEADER, False)


def test_a_dump_in_very_large_parts_can_be_read_again(tmp_path: Path) -> None:
    # As of many values of a megabyte; a reader takes no part above 64 MiB.
    large = bytes(65 << 20)
    writer = SnapshotWriter(tmp_path, _HEADER)
    for part in (b"x", large, b"y"):
        writer.write(part)
    reader = SnapshotReader(writer.finish().path)
    read = b"".join(iter(reader.read, None))
    reader.close()
    assert read == b"x" + large + b"y"


def test_every_byte_of_a_snapshot_counts(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(CorruptSnapshot):
            verify(path)
    for end in range(0, len(whole), 13):
        path.write_bytes(whole[:end])
        with pytest.raises(CorruptSnapshot):
            verify(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(CorruptSnapshot):
        verify(path)


@pytest.mark.parametrize("point", ["snapshot.begin", "snapshot.partial", "snapshot.written", "snapshot.synced"])
def test_an_interrupted_snapshot_leaves_the_one_before(tmp_path: Path, point: str) -> None:
    before = written(tmp_path)
    later = Header("test", 30, 3, 17, 5000, Configuration())
    with failpoints.enabled(f"{point}=raise"), pytest.raises(OSError, match=r"fail point"):
        written(tmp_path, later)
    found = SnapshotDirectory(tmp_path).open()
    assert found is not None
    assert [path.name for path in tmp_path.iterdir()] == [before.name] == [found.path.name]


# --- the log


def filled(directory: Path, count: int = 30) -> Journal:
    """Entries 2..count+1, a segment for each two."""
    directory.mkdir(exist_ok=True)
    journal = Journal(directory, segment_bytes=150)
    journal.open()
    for index in range(2, count + 2):
        journal.append(index, 1 + index // 10, b"%d" % index * 20)
        sync(journal)
    return journal


def sync(journal: Journal) -> None:
    while (batch := journal.take()) is not None:
        journal.write(batch)
        journal.done(batch)


def reopened(journal: Journal) -> Journal:
    journal.close()
    again = Journal(journal._directory, segment_bytes=150)
    again.open()
    return again


def test_what_is_trimmed_is_gone_and_the_rest_stays(tmp_path: Path) -> None:
    journal = filled(tmp_path / "log")
    files, size = len(list((tmp_path / "log").iterdir())), journal.log_bytes
    journal.trim(20)
    journal.remove()
    assert 15 < journal.base_index <= 20
    assert len(list((tmp_path / "log").iterdir())) < files
    assert journal.log_bytes < size / 2
    again = reopened(journal)
    assert (again.base_index, again.base_term, again.last_index) == (journal.base_index, journal.base_term, 31)
    assert again.log_bytes == journal.log_bytes
    for index in range(again.base_index + 1, 32):
        assert again.read(index) == b"%d" % index * 20
        assert again.term_at(index) == 1 + index // 10
    again.append(32, 9, b"on")
    sync(again)
    last = reopened(again)
    assert last.read(32) == b"on"
    last.close()


def test_a_segment_that_was_begun_after_something_cut_off_is_no_beginning(tmp_path: Path) -> None:
    journal = filled(tmp_path / "log", 9)
    journal.truncate_from(6)
    for index in range(6, 12):
        journal.append(index, 5, b"new%d" % index * 20)
        sync(journal)
    for index in range(1, 12):
        journal.trim(index)
        journal.remove()
        journal = reopened(journal)
        assert journal.base_index <= index
        assert [journal.term_at(at) for at in range(max(6, journal.base_index), 12)] == [5] * (
            12 - max(6, journal.base_index)
        )
    journal.close()


def test_the_log_does_not_begin_with_a_segment_that_is_being_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=1)
    for index in (2, 3):
        journal.append(index, 1, b"x" * 20)
        sync(journal)
    journal.append(4, 1, b"x" * 20)
    batch = journal.take()
    assert batch is not None
    assert batch.header is not None
    # A snapshot is done while the disk has not come back from the first write to a segment.
    journal.trim(3)
    journal.remove()
    crashed = Journal(tmp_path, segment_bytes=1)
    crashed.open()
    # With no log the member would not start: its snapshot is of entries that the log lacks.
    assert (crashed.base_index, crashed.last_index) == (2, 3)
    crashed.close()
    journal.write(batch)
    journal.done(batch)
    journal.trim(3)
    assert journal.base_index == 3
    journal.close()


def test_a_removal_that_failed_comes_first_the_next_time(tmp_path: Path) -> None:
    journal = filled(tmp_path / "log")
    journal.trim(10)
    with failpoints.enabled("trim.unlinked=raise@2"), pytest.raises(OSError, match="fail point"):
        journal.remove()
    journal.trim(20)
    # A process that ends before it is tried again leaves no gap either.
    again = Journal(tmp_path / "log", segment_bytes=150)
    again.open()
    again.close()
    journal.remove()
    assert reopened(journal).base_index == journal.base_index > 15


@pytest.mark.parametrize("removed", range(6))
def test_a_log_that_begins_anew_is_readable_at_every_step(tmp_path: Path, removed: int) -> None:
    journal = filled(tmp_path / "log", 12)
    journal.reset(50, 7)
    assert (journal.base_index, journal.last_index, journal.last_term, journal.durable_index) == (50, 50, 7, 50)
    with failpoints.enabled(f"trim.unlinked=raise@{removed + 1}"), pytest.raises(OSError, match="fail point"):
        journal.remove()
    interrupted = Journal(tmp_path / "log", segment_bytes=150)
    interrupted.open()
    # The beginning of what was there, so that the snapshot's entry is not in it.
    assert interrupted.base_index == 1
    assert interrupted.last_index < 13
    interrupted.close()
    journal.remove()
    journal.append(51, 7, b"after")
    sync(journal)
    again = reopened(journal)
    assert (again.base_index, again.base_term, again.read(51)) == (50, 7, b"after")
    again.close()


# --- Raft


def leading(tmp_path: Path, time: Time) -> tuple[HardenedRig, int]:
    """A leader whose log begins after entry 20 or a little before."""
    filled(tmp_path / "log").close()
    rig = HardenedRig(time, tmp_path / "log")
    rig.hardened.restored(20, 123_456)
    rig.journal.trim(20)
    rig.journal.remove()
    term = elect(rig)
    return rig, term


def test_a_follower_behind_the_log_gets_heartbeats_until_it_has_a_snapshot(tmp_path: Path, time: Time) -> None:
    rig, term = leading(tmp_path, time)
    base = rig.journal.base_index
    rig.deliver("b", acknowledge(term, 5, success=False, reset=True))
    rig.out.clear()
    pass_time(time, rig, 0.5)
    assert rig.hardened.behind == {"b"}
    beats = rig.replies("b", "append_entries")
    assert beats
    assert all(not beat["entries"] and beat["prevLogIdx"] == base for beat in beats)
    # It goes on saying that it lacks them, and nothing is sent for that.
    count = len(rig.replies("b", "append_entries"))
    rig.deliver("b", acknowledge(term, 5, sequence=beats[-1]["sequence"], success=False, reset=True))
    assert len(rig.replies("b", "append_entries")) == count
    rig.hardened.snapshot_installed("b", 25)
    rig.tick()
    assert rig.hardened.behind == set()
    following = rig.replies("b", "append_entries")[count:]
    assert following[0]["entries"][0][1] == 26
    rig.journal.close()


def test_an_append_from_before_the_log_is_compared_from_where_it_begins(tmp_path: Path, time: Time) -> None:
    filled(tmp_path / "log", 20).close()
    rig = HardenedRig(time, tmp_path / "log")
    rig.hardened.restored(21, 0)
    rig.journal.trim(15)
    base = rig.journal.base_index
    assert base > 10
    entries = [(index, 1 + index // 10) for index in range(6, 22)]
    rig.deliver("b", append(9, (5, 1), [*entries, (22, 9)], 22, sequence=1))
    rig.deliver("b", append(9, (3, 1), [(4, 1), (5, 1)], 22, sequence=2))
    first, second = rig.replies("b", "next_node_idx")
    assert (first["success"], first["next_node_idx"]) == (True, 23)
    assert (second["success"], second["next_node_idx"]) == (True, 6)
    assert rig.journal.last_index == 22
    rig.tick()
    assert [index for index, _ in rig.applied] == [22]
    rig.journal.close()


def test_a_leader_does_not_set_its_clock_behind_the_snapshot(tmp_path: Path, time: Time) -> None:
    (tmp_path / "log").mkdir()
    rig = HardenedRig(time, tmp_path / "log", vote=Vote(3))
    rig.journal.reset(40, 3)
    rig.hardened.restored(40, 123_456)
    elect(rig)
    assert rig.hardened._last_clock_ms == 123_456
    assert rig.hardened.applied_index == 40
    rig.journal.close()
