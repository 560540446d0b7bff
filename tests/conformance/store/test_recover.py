"""The majority is lost for good: a survivor goes on alone with what it has, and becomes a group of three again."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.store.group import Group, three_members, until


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    with three_members(tmp_path) as made:
        yield made


def keys(group: Group, *names: str) -> set[str]:
    """What these members say is there, whether or not they know a leader."""
    endpoints = [group.clients[name] for name in names]
    found = group.etcdctl("get", "--prefix", "w/", "--keys-only", "--consistency=s", endpoints=endpoints)
    return set(found.split())


class Writer(threading.Thread):
    """Writes one key after the other, each once: what is there is a beginning of what it wrote."""

    def __init__(self, group: Group) -> None:
        super().__init__()
        self._group = group
        self._ended = threading.Event()
        self.written: list[str] = []
        self.acknowledged: list[str] = []

    def run(self) -> None:
        while not self._ended.is_set():
            key = f"w/{len(self.written)}"
            self.written.append(key)
            if self._group.try_etcdctl("put", key, "1", "--command-timeout=2s")[0] == 0:
                self.acknowledged.append(key)

    def end(self) -> None:
        self._ended.set()
        self.join()


def test_a_survivor_goes_on_alone_and_grows_again(group: Group, tmp_path: Path) -> None:
    lease = group.etcdctl("lease", "grant", "600").split()[1]
    group.etcdctl("put", f"--lease={lease}", "leased", "1")
    writer = Writer(group)
    writer.start()
    try:
        until(lambda: len(writer.acknowledged) > 20, "there is load")
        assert "another process uses" in group.try_kybern("recover", "--yes", of="s3").stderr
        seen = keys(group, "s3")
        group.kill("s1", "s2")
    finally:
        writer.end()
    shutil.rmtree(tmp_path / "s1")
    (tmp_path / "s2").rename(tmp_path / "lost-s2")
    had = keys(group, "s3")
    assert seen <= had <= set(writer.written)
    # Nothing is missing in between: what it has is all that was written up to some moment.
    assert had == set(writer.written[: len(had)])
    group.kill("s3")

    assert "others      s1 (" in group.kybern("recover", "--dry-run", of="s3")
    before = contents(tmp_path / "s3")
    done = group.try_kybern("recover", of="s3", stdin="s1\n")
    assert (done.returncode, "not confirmed; nothing was changed" in done.stderr) == (1, True)
    assert "LOST: writes that s1 and s2 acknowledged without this member" in done.stdout
    assert contents(tmp_path / "s3") == before
    said = group.kybern("recover", of="s3", stdin="s3\n")
    (kept,) = (tmp_path / "s3").glob("before-recovery-*")
    assert str(kept) in said
    assert contents(kept) == {name: data for name, data in before.items() if name != "lock"}

    group.start("s3")
    group.until_ready("s3")
    rows = json.loads(group.kybern("member", "list", "--output=json"))
    assert [(row["name"], row["learner"]) for row in rows] == [("s3", False)]
    alone = [group.clients["s3"]]
    assert had <= keys(group, "s3")
    assert keys(group, "s3") <= set(writer.written)
    assert "leased" in group.etcdctl("lease", "timetolive", lease, "--keys", endpoints=alone)
    group.etcdctl("put", "after", "1", endpoints=alone)
    assert "the only member of its group already" in stopped(group, "recover", "--yes").stderr

    # An old member comes back to where a new one is to be.
    group.add("s2", data_dir=tmp_path / "lost-s2")
    group.start("s2")
    until(lambda: "of another group of this cluster" in group.log("s2") + group.log("s3"), "it is turned away")
    assert not (tmp_path / "s2.ready").exists()
    group.kill("s2")
    # By hand, and as one is told to.
    group.add("s1", data_dir=tmp_path / "new-s1", initial_state="existing")
    group.kybern("member", "add", group.configs["s1"].peer_address, of="s3")
    for name in ("s1", "s2"):
        if name == "s2":
            assert "before-joining" in group.kybern("join", of="s2")
        group.start(name)
        group.until_ready(name)
    until(lambda: group.try_kybern("status").returncode == 0, "all are well")
    until(lambda: not any(r["learner"] for r in json.loads(group.kybern("member", "list", "-ojson"))), "all vote")
    hashes = group.json("endpoint", "hashkv")
    assert len({row["HashKV"]["hash"] for row in hashes}) == 1
    for name in ("s1", "s2", "s3"):
        assert had <= keys(group, name)
    # Three that are a group: one of them may go.
    group.kill("s3")
    group.etcdctl("put", "after", "2", endpoints=[group.clients[name] for name in ("s1", "s2")])
    group.start("s3")
    group.until_ready("s3")


def stopped(group: Group, *words: str) -> subprocess.CompletedProcess[str]:
    """A command while the survivor does not run."""
    group.kill("s3")
    try:
        return group.try_kybern(*words, of="s3")
    finally:
        group.start("s3")
        group.until_ready("s3")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
