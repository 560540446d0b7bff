"""A data directory out of a file: all of it or nothing that starts."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from kybern.config.loading import dump as as_yaml
from kybern.config.models import StoreConfig, Tls
from kybern.daemon import StartupError
from kybern.snapshots import Seal
from store.mvcc.dump import dump
from store.mvcc.machine import StoreMachine
from store.ops.recover import Survivor
from store.ops.restore import Order, restore
from store.raft import failpoints
from store.raft.datadir import DataDir, Identity
from store.raft.failpoints import EXIT_STATUS
from store.raft.interface import Levels
from store.raft.snapshots import SnapshotDirectory
from tests.unit.store.driver import Driver, put, txn

MEMBERS = {"s1": "127.0.0.1:1", "s2": "127.0.0.1:2", "s3": "127.0.0.1:3"}


def filled() -> Driver:
    store = Driver()
    store.grant(5)
    for n in range(1000):
        store.do(put(b"k%d" % (n % 300), b"v%d" % n, lease=5 if n % 10 == 0 else 0))
    store.compact(400)
    store.batch(9, {1: txn(put(b"a", b"1"))})
    store.machine.alarms.activate(17, 1)
    return store


def sealed(machine: StoreMachine) -> bytes:
    seal = Seal()
    data = b"".join(dump(machine))
    seal.add(data)
    return data + seal.end()


@pytest.fixture
def order(tmp_path: Path) -> Order:
    (tmp_path / "file").write_bytes(sealed(filled().machine))
    return Order(tmp_path / "file", tmp_path / "data" / "s1", "s1", MEMBERS, cluster="test")


def config(order: Order) -> StoreConfig:
    """The member's configuration."""
    return StoreConfig(
        name=order.name,
        data_dir=order.data_dir,
        client_address="127.0.0.1:11",
        peer_address=order.members[order.name],
        members=dict(order.members),
        clients={},
        tls=Tls(cert=Path("c"), key=Path("k"), ca=Path("a")),
        cluster_name=order.cluster,
    )


def found(order: Order) -> StoreMachine:
    """The state that a member would start with."""
    survivor = Survivor.open(config(order))
    survivor.close()
    return survivor.machine


def group(order: Order) -> str:
    newest = SnapshotDirectory(order.data_dir / "snapshot").open()
    assert newest is not None
    return newest.header.configuration.group


def test_the_member_begins_with_the_files_state(order: Order) -> None:
    said = restore(order)
    original = filled().machine
    assert (said.revision, said.keys, said.leases) == (original.keys.revision, 301, 1)
    machine = found(order)
    original.alarms.replace(())
    assert b"".join(dump(machine)) == b"".join(dump(original))
    assert machine.leases.leases[5].keys == original.leases.leases[5].keys
    # A client that sends again what it does not know the fate of still has it done once.
    assert 1 in machine.sessions.sessions[9].outcomes


def test_watchers_of_revisions_that_may_be_lost_are_told_to_begin_anew(order: Order) -> None:
    revision = filled().machine.keys.revision
    assert restore(replace(order, bump=1000)).revision == revision + 1000
    keys = found(order).keys
    assert (keys.revision, keys.compacted) == (revision + 1000, revision + 1000)
    original = filled().machine.keys
    assert [(r.key, r.value, r.create, r.mod, r.version, r.lease) for r in keys.live.values()] == [
        (r.key, r.value, r.create, r.mod, r.version, r.lease) for r in original.live.values()
    ]
    assert len(keys.log) == 0


def test_members_of_one_group_are_those_that_were_given_the_same(order: Order, tmp_path: Path) -> None:
    variants = [
        replace(order, name="s2"),
        replace(order, bump=5),
        replace(order, token="again"),
        replace(order, cluster="other"),
        replace(order, members=MEMBERS | {"s3": "127.0.0.1:4"}),
        replace(order, file=tmp_path / "later"),
    ]
    later = filled()
    later.do(put(b"later"))
    (tmp_path / "later").write_bytes(sealed(later.machine))
    groups = []
    for number, variant in enumerate([order, *variants]):
        restore(made := replace(variant, data_dir=tmp_path / f"d{number}"))
        groups.append(group(made))
    assert groups[0] == groups[1]
    assert len(set(groups)) == len(groups) - 1
    ids = {name: (tmp_path / name / "id").read_text() for name in ("d0", "d1", "d3")}
    # Members of other groups have other ids, whatever their names.
    assert len(set(ids.values())) == 3


def test_a_damaged_file_changes_nothing(order: Order) -> None:
    data = order.file.read_bytes()
    for at in range(0, len(data), len(data) // 40):
        order.file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(StartupError, match="was changed"):
            restore(order)
        order.file.write_bytes(data[:at])
        with pytest.raises(StartupError):
            restore(order)
    order.file.unlink()
    with pytest.raises(StartupError, match="cannot read"):
        restore(order)
    assert not order.data_dir.parent.exists()


def test_a_file_without_its_checksum_is_restored_when_that_is_asked_for(order: Order) -> None:
    data = order.file.read_bytes()
    order.file.write_bytes(data[:-32])
    with pytest.raises(StartupError, match="not a whole snapshot"):
        restore(order)
    order.file.write_bytes(data[: len(data) // 2])
    with pytest.raises(StartupError, match="the dump ends early"):
        restore(replace(order, check=False))
    order.file.write_bytes(data[:-32])
    assert restore(replace(order, check=False)).keys == 301


def test_a_directory_that_is_used_is_left_alone(order: Order) -> None:
    order.data_dir.mkdir(parents=True)
    (order.data_dir / "mine").write_text("mine")
    with pytest.raises(StartupError, match="is not empty"):
        restore(order)
    assert [path.name for path in order.data_dir.iterdir()] == ["mine"]
    (order.data_dir / "mine").unlink()
    (order.data_dir / "lost+found").mkdir()
    restore(order)
    with pytest.raises(StartupError, match="is not empty"):
        restore(order)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "s4"}, "must name this one"),
        ({"members": {"s1": "127.0.0.1:1", "s2": "127.0.0.1:1"}}, "the same peer address"),
        ({"members": {"s1": "host:1"}}, "HOST:PORT"),
        ({"members": {"s1": "127.0.0.1"}}, "HOST:PORT"),
        ({"members": {"s1": "127.0.0.1:99999"}}, "HOST:PORT"),
    ],
)
def test_members_that_cannot_be_are_refused(order: Order, change: dict[str, object], words: str) -> None:
    with pytest.raises(StartupError, match=words):
        restore(replace(order, **change))  # type: ignore[arg-type] # what a change holds goes by its name


STEPS = (
    "restore.marked",
    "vote.written@1",
    "vote.done@3",
    "snapshot.begin",
    "snapshot.partial@1",
    "snapshot.synced",
    "snapshot.renamed",
    "restore.written",
    "restore.unmarked",
)


def run(order: Order, point: str) -> int:
    """`kybern-store restore`, which ends at a step."""
    name, _, times = point.partition("@")
    file = order.file.with_name("store.yaml")
    file.write_text(as_yaml(config(order)))
    done = subprocess.run(
        [sys.executable, "-m", "store.main", "restore", f"--config={file}", "--bump-revision=7", str(order.file)],
        env={**os.environ, "KYBERN_FAILPOINTS": f"{name}=exit" + (f"@{times}" if times else "")},
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode


@pytest.mark.parametrize("point", STEPS)
def test_whatever_interrupts_it_nothing_half_made_starts(order: Order, point: str) -> None:
    assert run(order, point) == EXIT_STATUS
    whole = replace(order, bump=7)
    identity = Identity(order.cluster, order.name)
    if point == "restore.unmarked":
        assert found(whole).keys.revision == filled().machine.keys.revision + 7
        return
    with pytest.raises(StartupError, match="was interrupted"):
        DataDir.open(order.data_dir, identity)
    # It can be done again, and then it is whole.
    restore(whole)
    assert found(whole).keys.revision == filled().machine.keys.revision + 7
    names = {path.name for path in order.data_dir.iterdir()}
    assert names == {"id", "identity.json", "lock", "log", "snapshot", "vote"}


def test_an_unfinished_directory_of_a_full_disk_is_emptied(order: Order) -> None:
    with failpoints.enabled("snapshot.partial=full"), pytest.raises(StartupError, match="nothing of it counts"):
        restore(order)
    assert {path.name for path in order.data_dir.iterdir()} == {"lock"}
    restore(order)
    assert msgspec.json.decode((order.data_dir / "identity.json").read_bytes())["member"] == "s1"


def at_level(monkeypatch: pytest.MonkeyPatch, level: int) -> Driver:
    """A state of a group that has risen, in a version that can apply it."""
    monkeypatch.setattr("store.ops.state.StoreMachine", lambda: StoreMachine(Levels(1, level)))
    monkeypatch.setattr("store.ops.recover.StoreMachine", lambda: StoreMachine(Levels(1, level)))
    store = filled()
    store.machine.rise(level)
    return store


def test_a_restored_group_is_at_the_level_of_the_file(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    order.file.write_bytes(sealed(at_level(monkeypatch, 3).machine))
    restore(order)
    newest = SnapshotDirectory(order.data_dir / "snapshot").open()
    assert newest is not None
    assert (newest.header.level, found(order).level) == (3, 3)


def test_a_version_that_cannot_apply_the_level_restores_nothing(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        order.file.write_bytes(sealed(at_level(later, 2).machine))
    with pytest.raises(StartupError, match=r"file is not a snapshot that this version can restore: .* of level 2"):
        restore(order)
    assert not order.data_dir.exists()
