"""The lab's hosts: links, engines, faults, and that nothing stays behind. Kybern's daemons have stand-ins here."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import names, network, state
from lab.engine import Engine
from lab.processes import Process
from tests.lab.labs import LabCommand

pytestmark = pytest.mark.lab


def reaches(lab: LabCommand, host: str, address: str) -> bool:
    """Whether a host gets an answer from an address."""
    return lab.run("exec", host, "--", "busybox", "ping", "-c", "1", "-W", "1", address).returncode == 0


def address(lab: LabCommand, host: str) -> str:
    return next(str(one["address"]) for (name, _), one in lab.status().items() if name == host)


def docker_socket(lab: LabCommand, host: str) -> Path:
    return state.run_folder(names.Names(lab.name)) / host / "docker.sock"


def run_container(lab: LabCommand, host: str) -> str:
    """A container that goes on, and its id."""
    command = ["docker", "-H", f"unix://{docker_socket(lab, host)}", "run", "--detach", "--network=none"]
    command += ["kybern/busybox:1", "sleep", "100000"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_everything_that_was_asked_for_runs(hosts: LabCommand) -> None:
    found = hosts.status()
    expected = {("machine", "balancer"), ("m1", "store"), ("m1", "master")}
    expected |= {(n, d) for n in ("n1", "n2") for d in ("containerd", "docker", "node")}
    assert set(found) == expected
    assert {one["state"] for one in found.values()} == {"Ready"}
    assert hosts.run("status").returncode == 0


def test_hosts_reach_each_other_and_nothing_else(hosts: LabCommand) -> None:
    assert reaches(hosts, "m1", address(hosts, "n1"))
    assert reaches(hosts, "n1", address(hosts, "n2"))
    # TEST-NET-3, which nobody has: the answer is the lab's own gateway's.
    said = hosts.run("exec", "n1", "--", "bash", "-c", "echo > /dev/tcp/203.0.113.1/80").stderr
    assert "unreachable" in said or "No route to host" in said


def test_the_machine_reaches_the_hosts(hosts: LabCommand) -> None:
    ping = ["busybox", "ping", "-c", "1", "-W", "1", address(hosts, "n2")]
    assert subprocess.run(ping, capture_output=True, check=False).returncode == 0


def test_a_host_that_is_cut_off_reaches_nobody_until_it_is_healed(hosts: LabCommand) -> None:
    n1 = address(hosts, "n1")
    hosts("cut", "n1")
    try:
        assert not reaches(hosts, "m1", n1)
        assert reaches(hosts, "m1", address(hosts, "n2"))
        assert hosts.status()["n1", "node"]["link"] == "Cut"
        assert hosts.run("status").returncode == 1
    finally:
        hosts("heal", "n1")
    assert reaches(hosts, "m1", n1)
    assert hosts.status()["n1", "node"]["link"] == "Up"


def test_every_node_has_an_engine_of_its_own_with_the_images(hosts: LabCommand) -> None:
    container = run_container(hosts, "n1")
    assert Engine(docker_socket(hosts, "n1")).containers() == [container]
    assert Engine(docker_socket(hosts, "n2")).containers() == []
    Engine(docker_socket(hosts, "n1")).remove(container)


def test_containers_outlive_their_engine(hosts: LabCommand) -> None:
    container = run_container(hosts, "n2")
    hosts("kill", "n2", "docker")
    assert hosts.status()["n2", "docker"]["state"] == "Dead"
    hosts("start", "n2", "docker")
    ask = ["docker", "-H", f"unix://{docker_socket(hosts, 'n2')}", "ps", "--quiet", "--no-trunc"]
    assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split() == [container]
    Engine(docker_socket(hosts, "n2")).remove(container)


def test_a_killed_daemon_is_dead_and_can_be_started_again(hosts: LabCommand) -> None:
    before = hosts.status()["m1", "store"]["pid"]
    hosts("kill", "m1", "store")
    assert hosts.status()["m1", "store"]["state"] == "Dead"
    refused = hosts.run("kill", "m1", "store")
    assert refused.returncode == 1
    assert "store on m1 does not run" in refused.stderr
    hosts("start", "m1", "store")
    after = hosts.status()["m1", "store"]
    assert after["state"] == "Ready"
    assert after["pid"] != before


def test_a_stopped_daemon_is_said_to_be_stopped(hosts: LabCommand) -> None:
    hosts("kill", "m1", "master", "--signal", "STOP")
    assert hosts.status()["m1", "master"]["state"] == "Stopped"
    hosts("kill", "m1", "master", "--signal", "CONT")
    assert hosts.status()["m1", "master"]["state"] == "Ready"


def test_up_again_starts_what_does_not_run(hosts: LabCommand) -> None:
    before = hosts.status()
    hosts("kill", "n1", "node")
    hosts("up", "--masters", "1", "--nodes", "2")
    after = hosts.status()
    assert after["n1", "node"]["state"] == "Ready"
    changed = {key for key, one in after.items() if one["pid"] != before[key]["pid"]}
    assert changed == {("n1", "node")}
    assert hosts.run("up", "--masters", "3").returncode == 1


def test_another_checkout_cannot_take_the_name(hosts: LabCommand, tmp_path: Path) -> None:
    other = LabCommand(hosts.name, {**hosts.environment, "KYBERN_HOME": str(tmp_path)})
    for words in (("up", "--masters", "1", "--nodes", "0"), ("down",)):
        refused = other.run(*words)
        assert refused.returncode == 1
        assert str(hosts.folder()) in refused.stderr
    assert hosts.run("status").returncode == 0


def test_env_names_files_that_are_there(hosts: LabCommand) -> None:
    lines = [line.removeprefix("export ") for line in hosts("env").splitlines()]
    values = dict(line.split("=", 1) for line in lines if not line.startswith("PATH="))
    for name in ("KUBECONFIG", "ETCDCTL_CACERT", "ETCDCTL_CERT", "ETCDCTL_KEY", "KYBERN_CACERT", "KYBERN_KEY"):
        assert Path(values[name]).is_file(), name
    assert values["ETCDCTL_ENDPOINTS"] == f"https://{address(hosts, 'm1')}:2379"


def test_logs_hold_what_the_daemon_printed(hosts: LabCommand) -> None:
    assert "kybern-store --config" in hosts("logs", "m1", "store")
    assert hosts("logs", "--tail", "0", "m1", "store") == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("cut", "m9"), "no host m9"),
        (("kill", "m1", "docker"), "m1 has no docker"),
        (("kill", "m1"), "which daemon?"),
        (("kill", "m1", "store", "--signal", "NOSUCH"), "no signal"),
        (("kill", "leader:docker"), "no leader of docker"),
        (("start", "m1", "store"), "runs already"),
        (("exec", "n1", "--"), "command"),
    ],
)
def test_wrong_words_are_explained(hosts: LabCommand, words: tuple[str, ...], says: str) -> None:
    refused = hosts.run(*words)
    assert refused.returncode in (1, 2)
    assert says in refused.stderr


def test_a_signal_never_reaches_a_process_that_got_the_id_later(hosts: LabCommand) -> None:
    sleeper = subprocess.Popen(["sleep", "100"])
    try:
        earlier = Process(sleeper.pid, 1)
        assert not earlier.signal(signal.SIGKILL)
        assert earlier.state == ""
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


@pytest.fixture
def small(stand_ins: Path, tmp_path: Path) -> Iterator[LabCommand]:
    """A lab of one node that its test takes down."""
    lab = LabCommand(f"d{os.getpid()}", {"KYBERN_LAB_BIN": str(stand_ins), "KYBERN_HOME": str(tmp_path)})
    lab("up", "--masters", "1", "--nodes", "1")
    assert lab.leftovers() != []
    try:
        yield lab
    finally:
        lab("down")


def test_down_leaves_nothing(small: LabCommand) -> None:
    run_container(small, "n1")
    said = small("down")
    assert "1 containers" in said
    assert small.leftovers() == []
    assert "nothing" in small("down")


def test_down_leaves_nothing_after_everything_was_killed(small: LabCommand) -> None:
    run_container(small, "n1")
    for (host, daemon), one in small.status().items():
        assert one["pid"] > 0, (host, daemon)
        os.kill(one["pid"], signal.SIGKILL)
    assert small.leftovers() != []
    small("down")
    assert small.leftovers() == []


def test_down_finds_everything_when_its_files_are_gone(small: LabCommand) -> None:
    run_container(small, "n1")
    (small.folder() / "lab.json").unlink()
    for file in small.folder().glob("hosts/*/run/*.process"):
        file.unlink()
    small("down")
    assert small.leftovers() == []
    assert [n for n in network.namespaces(names.Names(small.name)) if n] == []


def test_up_after_a_crash_begins_anew(small: LabCommand) -> None:
    subprocess.run(["ip", "netns", "delete", names.Names(small.name).namespace("m1")], check=True)
    small("up", "--masters", "1", "--nodes", "1")
    assert {one["state"] for one in small.status().values()} == {"Ready"}


def test_a_daemon_that_ends_at_once_is_reported_with_its_last_words(small: LabCommand, tmp_path: Path) -> None:
    small("kill", "m1", "store")
    broken = tmp_path / "broken"
    broken.mkdir()
    program = broken / "kybern-store"
    program.write_text("#!/bin/sh\necho 'kybern-store: the port is taken' >&2\nexit 78\n")
    program.chmod(0o755)
    said = LabCommand(small.name, {**small.environment, "KYBERN_LAB_BIN": str(broken)}).run("start", "m1", "store")
    assert said.returncode == 1
    assert "the port is taken" in said.stderr
