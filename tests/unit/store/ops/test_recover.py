"""A member goes on alone: with all that its log has, and either as before or wholly so, whatever interrupts it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kybern.config.loading import dump as as_yaml
from kybern.config.models import StoreConfig
from kybern.daemon import StartupError
from kybern.pb.etcd.maintenance_pb2 import NOSPACE, AlarmRequest
from kybern.pb.v1.store_pipe_pb2 import StoreCommand
from store.mvcc.dump import dump
from store.ops import commands
from store.ops.recover import Survey, Survivor
from store.ops.restore import Order, restore
from store.raft import failpoints
from store.raft.configuration import Configuration, encode
from store.raft.datadir import DataDir, Identity, Vote
from store.raft.entries import Run, encode_group, encode_level
from store.raft.failpoints import EXIT_STATUS
from store.raft.journal import Journal
from store.raft.snapshots import SnapshotDirectory
from tests.unit.store.driver import put
from tests.unit.store.ops.test_restore import MEMBERS, at_level, config, filled, sealed

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
ENTRIES = 20


def write(order: Order, *entries: tuple[int, bytes]) -> None:
    """Entries (term, payload) at the end of the log, on disk as a member would have them that just died."""
    directory = DataDir.open(order.data_dir, Identity(order.cluster, order.name))
    journal = Journal(directory.log_path)
    journal.open()
    newest = SnapshotDirectory(order.data_dir / "snapshot").open()
    if newest is not None and journal.last_index < newest.header.index:
        journal.reset(newest.header.index, newest.header.term)
    for term, payload in entries:
        journal.append(journal.last_index + 1, term, payload)
    batch = journal.take()
    assert batch is not None
    journal.write(batch)
    journal.done(batch)
    journal.close()
    directory.close()


def command(number: int) -> bytes:
    encoded = StoreCommand(put=put(b"new%d" % number, b"v")).SerializeToString()
    return encode_group(10_000 + number, [Run(7, number, [encoded])])


@pytest.fixture
def order(tmp_path: Path) -> Order:
    """A member of three, with a snapshot and entries after it that it does not know to be committed."""
    (tmp_path / "file").write_bytes(sealed(filled().machine))
    made = Order(tmp_path / "file", tmp_path / "s1", "s1", MEMBERS, cluster="test")
    restore(made)
    write(made, *((2, command(n)) for n in range(ENTRIES)))
    directory = DataDir.open(made.data_dir, Identity("test", "s1"))
    directory.save_vote(Vote(9, "s2"))
    directory.close()
    (tmp_path / "store.yaml").write_text(as_yaml(config(made)))
    return made


def survey(order: Order) -> Survey:
    survivor = Survivor.open(config(order))
    survivor.close()
    return survivor.survey()


def recover(order: Order, bump: int = 0) -> tuple[Path, int]:
    survivor = Survivor.open(config(order))
    try:
        return survivor.recover(NOW, bump)
    finally:
        survivor.close()


def state(order: Order) -> bytes:
    survivor = Survivor.open(config(order))
    survivor.close()
    return b"".join(dump(survivor.machine))


def group(order: Order) -> Configuration:
    newest = SnapshotDirectory(order.data_dir / "snapshot").open()
    assert newest is not None
    return newest.header.configuration


def test_all_that_the_log_has_is_kept_and_the_others_are_gone(order: Order) -> None:
    before, was, known = state(order), survey(order), group(order)
    assert (was.belongs, was.last_index, was.last_term, was.term) == (True, 2 + ENTRIES, 2, 9)
    assert [member.name for member in was.others] == ["s2", "s3"]
    assert was.keys == 301 + ENTRIES
    kept, revision = recover(order)
    assert revision == was.revision
    now, after = survey(order), group(order)
    assert state(order) == before
    assert (now.revision, now.keys, now.leases) == (was.revision, was.keys, was.leases)
    assert now.others == []
    # In a term that nobody has voted or led in, after everything that it had.
    assert (now.last_index, now.last_term) == (was.last_index + 1, 10)
    assert after.group != known.group
    assert after.voters == {"s1"}
    assert set(after.removed) == {member.id for member in was.others}
    # What was is as it was.
    old = replace(order, data_dir=kept)
    (kept / "lock").touch()
    assert (state(old), survey(old)) == (before, was)


def test_an_alarm_of_the_old_group_is_not_taken_along(order: Order) -> None:
    raised = StoreCommand(alarm=AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=5, alarm=NOSPACE))
    write(order, (2, encode_group(20_000, [Run(7, 99, [raised.SerializeToString()])])))
    survivor = Survivor.open(config(order))
    assert survivor.machine.alarms.no_space
    survivor.recover(NOW, 0)
    survivor.close()
    again = Survivor.open(config(order))
    again.close()
    assert not again.machine.alarms.no_space


def test_watchers_may_be_told_to_begin_anew(order: Order) -> None:
    was = survey(order)
    _, revision = recover(order, bump=1000)
    assert revision == was.revision + 1000 == survey(order).revision


def test_the_newest_configuration_in_the_log_says_who_the_others_are(order: Order) -> None:
    known = group(order)
    smaller = Configuration(known.members[:2], removed=(known.members[2].id,), group=known.group)
    write(order, (2, encode(smaller)))
    assert [member.name for member in survey(order).others] == ["s2"]
    recover(order)
    assert set(group(order).removed) == {member.id for member in known.members[1:]}


def test_a_member_that_was_removed_says_so(order: Order) -> None:
    known = group(order)
    write(order, (2, encode(Configuration(known.members[1:], removed=(known.members[0].id,), group=known.group))))
    found = survey(order)
    assert not found.belongs
    assert "was removed" in commands.described(config(order), found)
    recover(order)
    assert group(order).voters == {"s1"}


STEPS = (
    "recover.begin",
    "recover.kept",
    "snapshot.begin",
    "snapshot.partial",
    "snapshot.written",
    "snapshot.synced",
    "snapshot.renamed",
    "snapshot.done",
    "trim.unlinked",
)


def run(order: Order, *words: str, point: str = "", stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`kybern-store recover`."""
    file = order.file.with_name("store.yaml")
    return subprocess.run(
        [sys.executable, "-m", "store.main", "recover", f"--config={file}", *words],
        env=os.environ | ({"KYBERN_FAILPOINTS": f"{point}=exit"} if point else {}),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("point", STEPS)
def test_whatever_interrupts_it_the_directory_is_the_old_or_the_new_one(order: Order, point: str) -> None:
    was, before = survey(order), state(order)
    assert run(order, "--yes", "--bump-revision=7", point=point).returncode == EXIT_STATUS
    now = survey(order)
    if now.others:
        assert point not in ("snapshot.renamed", "snapshot.done", "trim.unlinked")
        assert (now, state(order)) == (was, before)
        recover(order, bump=7)
        now = survey(order)
    else:
        assert point in ("snapshot.renamed", "snapshot.done", "trim.unlinked")
    assert (now.others, now.revision, now.keys) == ([], was.revision + 7, was.keys)


def test_a_full_disk_leaves_all_as_it_was(order: Order) -> None:
    was, before = survey(order), state(order)
    with failpoints.enabled("snapshot.partial=full"), pytest.raises(StartupError, match="nothing was changed"):
        recover(order)
    assert (survey(order), state(order)) == (was, before)


def test_it_asks_and_says_what_may_be_lost(order: Order) -> None:
    was, before = survey(order), state(order)
    for stdin in ("", "yes\n", "s2\n"):
        done = run(order, stdin=stdin)
        assert done.returncode != 0
        assert "not confirmed; nothing was changed" in done.stderr
        assert "LOST: writes that s2 and s3 acknowledged without this member" in done.stdout
        assert "Traceback" not in done.stderr
    assert (survey(order), state(order)) == (was, before)
    assert "is alone in a new group now" in run(order, stdin="s1\n").stdout
    again = run(order, "--yes")
    assert again.returncode != 0
    assert "is the only member of its group already; nothing was changed" in again.stderr


def test_ctrl_c_at_the_question_changes_nothing(
    order: Order, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(prompt: str) -> str:
        raise KeyboardInterrupt

    was, before = survey(order), state(order)
    monkeypatch.setattr("builtins.input", interrupted)
    assert commands.main("kybern-store", ["recover", f"--config={order.file.parent / 'store.yaml'}"]) == 130
    assert capsys.readouterr().err.endswith(" ...\n\nkybern-store: interrupted\n")
    assert (survey(order), state(order)) == (was, before)


def test_a_directory_that_cannot_be_looked_into_is_said_to_be_one(order: Order, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot use the data directory"):
        Survivor.open(config(replace(order, data_dir=tmp_path / ("x" * 300))))


def test_what_is_no_members_directory_is_left_alone(order: Order, tmp_path: Path) -> None:
    shutil.move(order.data_dir, tmp_path / "away")
    assert "is not the data directory of a member" in run(order, "--yes").stderr
    assert not order.data_dir.exists()
    shutil.move(tmp_path / "away", order.data_dir)
    other: StoreConfig = config(replace(order, name="s2"))
    with pytest.raises(StartupError, match="belongs to member 's1'"):
        Survivor.open(other)
    segment = next((order.data_dir / "log").iterdir())
    data = bytearray(segment.read_bytes())
    data[len(data.rstrip(b"\0")) // 2] ^= 1
    segment.write_bytes(data)
    done = run(order, "--yes")
    assert "is corrupt at offset" in done.stderr
    assert segment.read_bytes() == bytes(data)


def test_a_rise_in_the_log_is_kept(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    write(order, (2, encode_level(2)), (2, command(ENTRIES)))
    with pytest.raises(StartupError, match=r"log, from entry .* at level 2 .* applies level 1"):
        survey(order)
    at_level(monkeypatch, 2)
    recover(order)
    newest = SnapshotDirectory(order.data_dir / "snapshot").open()
    assert newest is not None
    assert newest.header.level == 2
    survivor = Survivor.open(config(order))
    survivor.close()
    assert survivor.machine.level == 2


def test_a_command_of_another_version_changes_nothing(order: Order) -> None:
    write(order, (2, encode_group(10_100, [Run(7, 99, [b"\xfa\x07\x00"])])))
    with pytest.raises(StartupError, match=r"the log of .* cannot be used: command .* of a kind"):
        recover(order)
