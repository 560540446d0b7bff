"""`kybern master remove` where there is no store to ask: what it does to a host's files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kybern.cli.files import read_cluster
from kybern.cli.main import run
from kybern.config.loading import load
from kybern.config.models import MasterConfig, NodeConfig, StoreConfig
from tests.unit.cli.test_hosts import changed, contents, init


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """The configuration folder of a first master."""
    folder = tmp_path / "m1"
    assert init(folder) == 0
    return folder


def remove(folder: Path, name: str, *more: str) -> int:
    return run(["master", "remove", name, "--dir", str(folder), *more])


def node(first: Path, folder: Path) -> Path:
    """The configuration folder of a node, which may be a master's."""
    bundle = first.parent / "n1.tar"
    assert run(["certs", "node", "n1", "--address", "192.168.1.101", "--out", str(bundle), "--dir", str(first)]) == 0
    where = ["--dir", str(folder), "--data-dir", str(folder / "data")]
    assert run(["join", "node", "--bundle", str(bundle), *where]) == 0
    return folder


def test_all_files_of_a_host_do_without_it(first: Path) -> None:
    node(first, first)
    before = contents(first)
    assert remove(first, "m3", "--files-only") == 0
    assert changed(first, before) == ["cluster.yaml", "master.yaml", "node.yaml", "store.yaml"]
    store = load(first / "store.yaml", StoreConfig)
    assert set(store.members) == set(store.clients) == set(read_cluster(first).members) == {"m1", "m2"}
    assert load(first / "master.yaml", MasterConfig).store == ["192.168.1.11:2379", "192.168.1.12:2379"]
    assert load(first / "node.yaml", NodeConfig).masters == ["192.168.1.11:6444", "192.168.1.12:6444"]


def test_a_node_asks_no_store(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = node(first, tmp_path / "n1")
    capsys.readouterr()
    assert remove(folder, "m3", "--output", "json") == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["member"], done["files"], done["masters"]) == (None, ["node.yaml", "cluster.yaml"], ["m1", "m2"])
    assert load(folder / "node.yaml", NodeConfig).masters == ["192.168.1.11:6444", "192.168.1.12:6444"]
    before = contents(folder)
    assert remove(folder, "m3") == 0
    assert "nothing to do. There are m1, m2." in capsys.readouterr().out
    assert contents(folder) == before


def test_what_was_interrupted_goes_on(first: Path) -> None:
    """It is written last who the masters are, so that the others' addresses are still known."""
    before = contents(first)
    assert remove(first, "m3", "--files-only") == 0
    (first / "cluster.yaml").write_bytes(before["cluster.yaml"])
    (first / "master.yaml").write_bytes(before["master.yaml"])
    assert remove(first, "m3", "--files-only") == 0
    assert set(read_cluster(first).members) == {"m1", "m2"}
    assert len(load(first / "master.yaml", MasterConfig).store) == 2


def test_who_has_its_address_by_now_stays(first: Path, tmp_path: Path) -> None:
    file = (first / "cluster.yaml").read_text()
    (first / "cluster.yaml").write_text(file.replace("m3: 192.168.1.13", "m4: 192.168.1.13"))
    assert remove(first, "m3", "--files-only") == 0
    assert set(load(first / "store.yaml", StoreConfig).members) == {"m1", "m2"}
    assert "192.168.1.13:2379" in load(first / "master.yaml", MasterConfig).store


def test_what_a_kubeconfig_names_is_said_to_be_gone(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = (first / "cluster.yaml").read_text()
    (first / "cluster.yaml").write_text(file.replace("https://192.168.1.11:", "https://192.168.1.13:"))
    assert remove(first, "m3", "--files-only", "--dry-run") == 0
    assert remove(first, "m3", "--files-only") == 0
    said = capsys.readouterr().out
    assert "kubeconfigs name https://192.168.1.13:6443, which was this master" in said
    assert "2 masters survive no more losses than 1 do" in said


def test_refusals_change_nothing(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, alone = node(first, tmp_path / "n1"), tmp_path / "alone"
    where = ["--dir", str(alone), "--data-dir", str(alone / "data")]
    assert run(["init", "--name", "m1", "--address", "192.168.1.1", *where]) == 0
    node_file = folder / "node.yaml"
    lines = [
        line
        for line in node_file.read_text().splitlines()
        if line not in ("- 192.168.1.11:6444", "- 192.168.1.12:6444")
    ]
    node_file.write_text("\n".join(lines) + "\n")
    for where_from, name, says in (
        (first, "m1", "this host is the master m1"),
        (alone, "m1", "this host is the master m1"),
        (folder, "m3", "names no other master than m3"),
        (tmp_path, "m3", "belongs to no cluster"),
    ):
        before = contents(where_from)
        assert remove(where_from, name, "--files-only") == 1
        assert says in capsys.readouterr().err
        assert contents(where_from) == before


def test_a_store_that_nobody_answers_for_is_not_passed_over(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = (first / "store.yaml").read_text()
    (first / "store.yaml").write_text(store.replace("192.168.1.", "127.1.1."))
    before = contents(first)
    assert remove(first, "m3", "--yes") == 1
    said = capsys.readouterr().err
    assert "no member of the store can do this now" in said
    assert "--files-only leaves the store as it is" in said
    assert contents(first) == before
