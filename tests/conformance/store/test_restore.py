"""A copy of the state becomes a new group, and the old group's members have no part in it."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.store.group import Group, three_members, until
from tests.integration.store.members import NAMES

BUMP = 1_000_000_000


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Group]:
    folder = tmp_path / "old"
    folder.mkdir()
    with three_members(folder) as made:
        yield made


def items(group: Group, prefix: str) -> list[dict[str, Any]]:
    return list(group.json("get", "--prefix", prefix)["kvs"])


def successor(old: Group, folder: Path) -> Group:
    """A group of the same members at the same addresses, with nothing in its data directories."""
    folder.mkdir()
    new = Group(folder, old.certificates, dict(old.configs), old.tls)
    for name in NAMES:
        new.add(name, data_dir=folder / name)
    return new


@contextlib.contextmanager
def running(group: Group) -> Iterator[None]:
    try:
        for name in NAMES:
            group.start(name)
        for name in NAMES:
            group.until_ready(name)
        yield
    except BaseException:
        group.kill(*group.processes)
        raise
    group.stop()


def save(old: Group, file: Path) -> int:
    """Some state, a copy of it, and what is written afterwards; the copy's revision."""
    for n in range(20):
        old.etcdctl("put", f"k/{n % 7}", f"value {n}")
    old.etcdctl("del", "k/3")
    lease = old.etcdctl("lease", "grant", "600").split()[1]
    old.etcdctl("put", f"--lease={lease}", "k/leased", lease)
    old.kybern("snapshot", "save", str(file))
    info = json.loads(old.kybern("snapshot", "status", str(file), "--output=json"))
    assert (info["format"] >= 2, info["keys"]) == (True, 7)
    old.etcdctl("put", "k/later", "is lost")
    return int(info["revision"])


def test_three_members_begin_anew_with_a_copy_and_old_ones_are_turned_away(old: Group, tmp_path: Path) -> None:
    file = tmp_path / "copy"
    revision = save(old, file)
    before = [kv for kv in items(old, "k/") if base64.b64decode(kv["key"]) != b"k/later"]
    old.kill(*NAMES)
    new = successor(old, tmp_path / "new")
    for name in NAMES:
        assert f"revision {revision + BUMP}, 7 keys, 1 leases" in new.kybern("snapshot", "restore", str(file), of=name)
    with running(new):
        assert items(new, "k/") == before
        (lease,) = [kv["lease"] for kv in before if "lease" in kv]
        told = new.etcdctl("lease", "timetolive", f"{lease:x}", "--keys")
        assert "granted with TTL(600s)" in told
        assert "k/leased" in told
        # Whoever watched the old group is told to begin anew, wherever it was.
        for seen in (revision, revision + 5):
            code, out, err = new.try_etcdctl("watch", "k/", f"--rev={seen}")
            assert "compacted" in out + err, (code, out, err)
        assert new.json("put", "k/new", "1")["header"]["revision"] == revision + BUMP + 1
        hashes = new.json("endpoint", "hashkv")
        assert len({row["HashKV"]["hash"] for row in hashes}) == 1
        ids = {row["id"] for row in json.loads(new.kybern("member", "list", "--output=json"))}
        assert len(ids) == 3
        # A member of the old group comes back to where it was.
        new.kill("s3")
        old.start("s3")
        until(lambda: "of another group of this cluster" in old.log("s3"), "it is turned away")
        new.etcdctl("put", "k/new", "2", endpoints=[new.clients["s1"], new.clients["s2"]])
        assert not (old.folder / "s3.ready").exists()
        assert {row["name"]: row["answers"] for row in _statuses(new)}["s3"] is False
        old.kill("s3")
        new.start("s3")
        new.until_ready("s3")
        assert new.etcdctl("get", "k/new", "--print-value-only", endpoints=[new.clients["s3"]]) == "2"


def _statuses(group: Group) -> list[dict[str, Any]]:
    done = group.try_kybern("status", "--output=json")
    rows = json.loads(done.stdout)
    return [{"name": name, "answers": any(r["name"] == name and r["knows_leader"] for r in rows)} for name in NAMES]


def test_what_cannot_be_restored_changes_nothing(old: Group, tmp_path: Path) -> None:
    file = tmp_path / "copy"
    save(old, file)
    held = sorted(p.name for p in (old.folder / "s1").iterdir())
    done = old.try_kybern("snapshot", "restore", str(file))
    assert (done.returncode, "is not empty" in done.stderr) == (1, True)
    assert sorted(p.name for p in (old.folder / "s1").iterdir()) == held
    new = successor(old, tmp_path / "new")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = tmp_path / "damaged"
    damaged.write_bytes(data)
    done = new.try_kybern("snapshot", "restore", str(damaged))
    assert done.returncode == 1
    assert "was changed" in done.stderr
    assert "must not be restored" in done.stderr
    assert "Traceback" not in done.stderr
    for words, reason in (
        (["--bump-revision=0", "--mark-compacted"], "needs a --bump-revision"),
        (["--bump-revision=-1"], "must be from 0"),
        (["--member=s1"], "must be NAME=HOST:PORT"),
        ([f"--member=s2={new.configs['s2'].peer_address}"], "must name this one"),
    ):
        done = new.try_kybern("snapshot", "restore", str(file), *words)
        assert (done.returncode, reason in done.stderr) == (1, True), done.stderr
    assert not (new.folder / "s1").exists()


def test_members_with_different_files_do_not_find_each_other(old: Group, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    save(old, one)
    old.kybern("snapshot", "save", str(other))
    old.kill(*NAMES)
    new = successor(old, tmp_path / "new")
    for name, file in zip(NAMES, (one, one, other), strict=True):
        # Nothing but options: no configuration is needed.
        members = [f"--member={n}={c.peer_address}" for n, c in new.configs.items()]
        where = [f"--data-dir={new.configs[name].data_dir}", f"--name={name}", *members]
        new.kybern("snapshot", "restore", str(file), *where, "--bump-revision=0", of="absent")
    try:
        for name in NAMES:
            new.start(name)
        for name in ("s1", "s2"):
            new.until_ready(name)
        until(lambda: "of another group of this cluster" in new.log("s3"), "it is not let in")
        both = [new.clients["s1"], new.clients["s2"]]
        assert "later" not in new.etcdctl("get", "--prefix", "k/", "--keys-only", endpoints=both)
        assert not (new.folder / "s3.ready").exists()
    finally:
        new.stop()


def test_copies_of_the_schedule_are_listed_and_restored(old: Group, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    save(old, tmp_path / "unused")
    # Two members on one folder.
    for name in ("s1", "s2"):
        old.kill(name)
        old.add(name, backup_directory=folder, backup_interval_seconds=1.0, backup_keep=2)
        old.start(name)
        old.until_ready(name)

    def listed() -> list[dict[str, Any]]:
        return list(json.loads(old.kybern("snapshot", "list", "--output=json"))) if folder.exists() else []

    until(lambda: sum(row["member"] == "s1" for row in listed()) == 2, "s1 has two")
    (first, *_) = listed()
    until(lambda: first not in listed(), "old ones are removed")
    until(lambda: sorted(row["member"] for row in listed()) == ["s1", "s1", "s2", "s2"], "two of each stay")
    table = old.kybern("snapshot", "list").splitlines()
    assert table[0].split() == ["TIME", "MEMBER", "REVISION", "SIZE", "FILE"]
    old.kill(*NAMES)
    newest = listed()[-1]
    info = json.loads(old.kybern("snapshot", "status", newest["file"], "--output=json"))
    assert (info["revision"], info["keys"]) == (newest["revision"], 8)
    new = successor(old, tmp_path / "new")
    for name in NAMES:
        new.kybern("snapshot", "restore", newest["file"], of=name)
    with running(new):
        assert new.etcdctl("get", "k/later", "--print-value-only") == "is lost"
