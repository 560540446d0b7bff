"""`kybern master remove` on a store that runs, with files as `kybern init` and `kybern join` make them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kybern.cli.cluster import ClusterFile, Layout, Ports, store_config
from kybern.cli.files import configuration, read_cluster
from kybern.config.loading import load
from kybern.config.models import MasterConfig, StoreConfig
from tests.conformance.store.group import PATIENCE, until
from tests.integration.store import members
from tests.ports import free_port

EX_CONFIG = 78
_PROGRAM = "import sys; from kybern.cli.main import main; sys.exit(main())"


@dataclass
class Masters:
    """Hosts m1, m2 and m3 at 127.0.0.1 and so on, with their stores."""

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def host(self, name: str) -> Path:
        """A host's configuration folder."""
        return self.folder / name

    def run(self, *words: str, on: str = "m1", stdin: str = "") -> subprocess.CompletedProcess[str]:
        """`kybern` on a host."""
        command = [sys.executable, "-c", _PROGRAM, *words, f"--dir={self.host(on)}"]
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, timeout=PATIENCE, cwd=self.folder
        )

    def done(self, *words: str, on: str = "m1", stdin: str = "") -> str:
        """What a command says that must succeed."""
        result = self.run(*words, on=on, stdin=stdin)
        assert result.returncode == 0, (words, result.stdout, result.stderr)
        return result.stdout

    def store(self, *words: str) -> Any:
        """What `kybern store` says on m1, as JSON."""
        command = [sys.executable, "-c", _PROGRAM, "store", f"--config={self.host('m1')}/store.yaml", *words]
        return json.loads(subprocess.run([*command, "--output=json"], capture_output=True, check=True).stdout)

    def members(self) -> set[str]:
        """Names of the store's members."""
        return {row["name"] for row in self.store("member", "list")}

    def begin(self) -> None:
        """Make the cluster, its ports not those of other tests."""
        addresses = [f"--member=m{n}=127.0.0.{n}" for n in (1, 2, 3)]
        self.done("init", "--name=m1", "--address=127.0.0.1", *addresses, f"--data-dir={self.folder}/data-m1")
        file, host = read_cluster(self.host("m1")), self.host("m1")
        ports = Ports(*(free_port() for _ in range(4)))
        file = ClusterFile(file.endpoint, file.members, file.cluster, ports)
        (host / "cluster.yaml").write_bytes(configuration(file))
        layout = Layout(host, self.folder / "data-m1")
        (host / "store.yaml").write_bytes(configuration(store_config(file, "m1", layout)))
        for name in ("m2", "m3"):
            self.done("certs", "master", name, f"--out={name}.tar")
            self.done("join", "master", f"--bundle={name}.tar", f"--data-dir={self.folder}/data-{name}", on=name)

    def start(self, *names: str) -> None:
        """Start members and wait until they serve."""
        for name in names:
            with (self.folder / f"{name}.log").open("ab") as out:
                self.processes[name] = subprocess.Popen(
                    members.command(self.host(name) / "store.yaml"),
                    env=members.environment(self.folder / f"{name}.ready"),
                    stdout=out,
                    stderr=out,
                )
        for name in names:
            until((self.folder / f"{name}.ready").exists, f"{name} serves")

    def kill(self, name: str) -> None:
        """End a member without a warning."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()


@pytest.fixture
def masters(tmp_path: Path) -> Iterator[Masters]:
    made = Masters(tmp_path)
    try:
        made.begin()
        made.start("m1", "m2", "m3")
        yield made
    finally:
        for name in list(made.processes):
            made.kill(name)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.yaml")}


def named(folder: Path) -> list[set[str]]:
    """The masters that a host's files name."""
    store = load(folder / "store.yaml", StoreConfig)
    return [set(read_cluster(folder).members), set(store.members), set(store.clients)]


def test_a_master_is_taken_out_of_the_store_and_of_the_files(masters: Masters) -> None:
    first, second = masters.host("m1"), masters.host("m2")
    before = contents(first)
    would = json.loads(masters.done("master", "remove", "m3", "--dry-run", "--output=json"))
    assert (would["name"], would["address"], would["dry_run"]) == ("m3", "127.0.0.3", True)
    assert would["member"]["name"] == "m3"
    assert (would["files"], would["masters"]) == (["store.yaml", "master.yaml", "cluster.yaml"], ["m1", "m2"])
    for typed in ("m2\n", ""):
        refused = masters.run("master", "remove", "m3", stdin=typed)
        assert (refused.returncode, "not confirmed; nothing was changed" in refused.stderr) == (1, True)
    assert contents(first) == before
    assert masters.members() == {"m1", "m2", "m3"}

    said = masters.done("master", "remove", "m3", stdin="m3\n")
    assert f"its member {would['member']['id']} was removed from the store" in said
    assert "on every other host of the cluster: kybern master remove m3" in said
    assert masters.processes.pop("m3").wait(60) == EX_CONFIG
    assert masters.members() == {"m1", "m2"}
    assert named(first) == [{"m1", "m2"}] * 3
    assert load(first / "master.yaml", MasterConfig).store == ["127.0.0.1:2379", "127.0.0.2:2379"]
    # What does not concern it is as it was.
    assert load(first / "store.yaml", StoreConfig).data_dir == masters.folder / "data-m1" / "store"

    after = contents(first)
    assert "nothing to do. There are m1, m2." in masters.done("master", "remove", "m3")
    assert contents(first) == after
    # The other host's files are its own.
    assert named(second) == [{"m1", "m2", "m3"}] * 3
    said = masters.done("master", "remove", "m3", on="m2")
    assert "from the store" not in said
    assert named(second) == [{"m1", "m2"}] * 3


def test_one_that_never_came_is_none_of_a_store_that_is_restored(masters: Masters) -> None:
    first = masters.host("m1")
    copy = masters.folder / "copy"
    program = [sys.executable, "-c", _PROGRAM, "store", f"--config={first}/store.yaml", "snapshot"]
    subprocess.run([*program, "save", str(copy)], check=True, capture_output=True)
    masters.done("certs", "master", "m4", "--address=127.0.0.4", "--out=m4.tar")
    assert named(first) == [{"m1", "m2", "m3", "m4"}] * 3

    def restored(name: str) -> str:
        words = ["restore", f"--data-dir={masters.folder}/{name}", str(copy)]
        return subprocess.run([*program, *words], check=True, capture_output=True, text=True).stdout

    said = restored("four")
    assert f"Its members are those of {first}/store.yaml; 3 of 4 must run:" in said
    assert f"  m4  127.0.0.4:{read_cluster(first).ports.peers}\n" in said
    assert f"kybern master remove NAME --files-only` takes it out of {first}/store.yaml" in said
    assert f"empty {masters.folder}/four" in said

    said = masters.done("master", "remove", "m4")
    assert "from the store" not in said
    assert named(first) == [{"m1", "m2", "m3"}] * 3
    assert masters.members() == {"m1", "m2", "m3"}
    said = restored("three")
    assert "2 of 3 must run" in said
    assert "m4" not in said


def test_what_would_go_wrong_changes_nothing(masters: Masters) -> None:
    first = masters.host("m1")
    before = contents(first)
    refused = masters.run("master", "remove", "m1", "--yes")
    assert (refused.returncode, "this host is the master m1" in refused.stderr) == (1, True)
    # The two that are left would be one that answers: no majority.
    masters.kill("m2")
    # It may have led.
    until(lambda: masters.run("master", "remove", "m3", "--dry-run").returncode == 0, "the others have a leader")
    refused = masters.run("master", "remove", "m3", "--yes")
    assert refused.returncode == 1, refused.stdout
    assert "this host's files were not changed" in refused.stderr
    assert "too few of the members that vote answer" in refused.stderr
    assert masters.members() == {"m1", "m2", "m3"}
    # There is nobody to ask.
    masters.kill("m3")
    refused = masters.run("master", "remove", "m3", "--yes")
    assert refused.returncode == 1
    assert "nothing was changed" in refused.stderr
    assert "--files-only leaves the store as it is" in refused.stderr
    assert contents(first) == before
    masters.done("master", "remove", "m3", "--files-only")
    assert named(first) == [{"m1", "m2"}] * 3
