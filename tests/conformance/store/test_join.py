"""A member that lost its disk joins anew, and a further one joins: `kybern store join`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.store.group import Group, three_members, until
from tests.conformance.store.test_members import configure

EX_CONFIG = 78


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    with three_members(tmp_path) as made:
        yield made


def members(group: Group) -> dict[str, str]:
    """Numbers of the members that vote, by name."""
    rows = json.loads(group.kybern("member", "list", "--output=json"))
    return {row["name"]: row["id"] for row in rows if not row["learner"]}


def same_everywhere(group: Group) -> None:
    group.etcdctl("put", "last", "1")
    hashes = group.json("endpoint", "hashkv")
    assert len(hashes) == len(group.configs)
    assert len({row["HashKV"]["hash"] for row in hashes}) == 1


def test_a_member_that_lost_its_disk_joins_anew(group: Group, tmp_path: Path) -> None:
    group.etcdctl("put", "before", "1")
    old = members(group)
    group.kill("s3")
    shutil.rmtree(tmp_path / "s3")
    group.start("s3")
    assert group.processes.pop("s3").wait(60) == EX_CONFIG
    last = group.log("s3").splitlines()[-1]
    assert last.startswith("kybern-store: ")
    assert "knows s3 with another data directory" in last
    assert "`kybern store join`" in last

    group.etcdctl("put", "meanwhile", "1", endpoints=[group.clients[name] for name in ("s1", "s2")])
    for typed in ("s1\n", ""):
        refused = group.try_kybern("join", of="s3", stdin=typed)
        assert (refused.returncode, "not confirmed; nothing was changed" in refused.stderr) == (1, True)
    assert members(group) == old
    said = group.kybern("join", of="s3", stdin="s3\n")
    (kept,) = (tmp_path / "s3").glob("before-joining-*")
    assert str(kept) in said
    assert (kept / "identity.json").exists()
    group.start("s3")
    group.until_ready("s3")
    until(lambda: set(members(group)) == {"s1", "s2", "s3"}, "it votes")
    new = members(group)
    assert (new["s1"], new["s2"]) == (old["s1"], old["s2"])
    assert new["s3"] != old["s3"]
    same_everywhere(group)
    # It is a member like any other: it starts again by its file, which says nothing of joining.
    assert "initial_state: new" in group.file("s3").read_text()
    group.kill("s3")
    group.start("s3")
    group.until_ready("s3")
    same_everywhere(group)


def test_a_further_member_joins(group: Group, tmp_path: Path) -> None:
    configure(group, "s4")
    group.add("s4", initial_state="new")
    assert "may join as member" in group.kybern("join", of="s4")
    # Interrupted and said again: the place that waits for it is made anew.
    assert "may join as member" in group.kybern("join", "--yes", of="s4")
    group.start("s4")
    group.until_ready("s4")
    until(lambda: set(members(group)) == {"s1", "s2", "s3", "s4"}, "it votes")
    same_everywhere(group)
    # The others' files do not name it.
    rows = json.loads(group.kybern("status", "--output=json", of="s1"))
    assert {row["name"]: row["address"] for row in rows} == group.clients
    assert group.kybern("defrag", of="s1").count("is defragmented") == 4
    group.kybern("move-leader", "s4", of="s1")
    group.kybern("move-leader", "s1", of="s1")
    # Nor does its own know that it is one no more.
    group.kybern("member", "remove", "s4", of="s1")
    assert group.processes.pop("s4").wait(60) == EX_CONFIG
    del group.configs["s4"]
    until(lambda: len(json.loads(group.try_kybern("status", "--output=json", of="s4").stdout)) == 3, "it is none")
    assert group.try_kybern("status", of="s4").returncode == 0


def test_one_that_is_emptied_before_it_joins_says_what_to_do(group: Group, tmp_path: Path) -> None:
    configure(group, "s4")
    group.add("s4", initial_state="new")
    assert "may join as member" in group.kybern("join", of="s4")
    shutil.rmtree(tmp_path / "s4")
    group.start("s4")
    assert group.processes.pop("s4").wait(60) == EX_CONFIG
    last = group.log("s4").splitlines()[-1]
    assert last.startswith("kybern-store: ")
    assert f"awaits a member that joins at {group.configs['s4'].peer_address}" in last
    assert "may join as member" in group.kybern("join", "--yes", of="s4")
    group.start("s4")
    group.until_ready("s4")
    until(lambda: set(members(group)) == {"s1", "s2", "s3", "s4"}, "it votes")
    same_everywhere(group)


def test_what_would_go_wrong_changes_nothing(group: Group, tmp_path: Path) -> None:
    before = members(group)
    # It runs.
    refused = group.try_kybern("join", "--yes", of="s3")
    assert (refused.returncode, "another process uses the data directory" in refused.stderr) == (1, True)
    # Where another one is.
    configure(group, "s4")
    group.add("s4", peer_address=group.configs["s3"].peer_address)
    refused = group.try_kybern("join", "--yes", of="s4")
    assert (refused.returncode, "the store has the member s3 at" in refused.stderr) == (1, True)
    del group.configs["s4"]
    assert members(group) == before
    # The one that is there to be asked is no majority: it may still know a leader at first.
    group.kill("s1", "s2")
    for _ in range(2):
        refused = group.try_kybern("join", "--yes", of="s1")
        assert refused.returncode == 1
        assert refused.stderr.startswith("kybern: ")
        assert not list((tmp_path / "s1").glob("before-joining-*"))
    assert "no member of the store can do this now" in refused.stderr
    # What needs no majority is done all the same.
    assert set(members(group)) == {"s1", "s2", "s3"}
    assert group.kybern("alarm", "list").split() == ["MEMBER", "ALARM"]
    status = group.try_kybern("status")
    assert f"{group.clients['s3']}: etcdserver: no leader" in status.stderr
    copy = tmp_path / "copy"
    refused = group.try_kybern("snapshot", "save", str(copy))
    assert (refused.returncode, "--without-leader saves" in refused.stderr, copy.exists()) == (1, True, False)
    assert group.clients["s3"] in group.kybern("snapshot", "save", "--without-leader", str(copy))
    group.kybern("snapshot", "verify", str(copy))
    for name in ("s1", "s2"):
        group.start(name)
    for name in ("s1", "s2"):
        group.until_ready(name)
    same_everywhere(group)
