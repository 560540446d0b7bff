"""What runs on each host, how it is started, and how one sees that it serves."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from lab import etcd, processes
from lab.engine import Engine
from lab.errors import LabError
from lab.processes import Process
from lab.state import ETCD, Lab

MASTER_DAEMONS = ("store", "master")
NODE_DAEMONS = ("containerd", "docker", "node")
# How long a daemon may take to serve. A machine with few cores starts many at once.
PATIENCE = 120.0


def daemons_of(lab: Lab, host: str) -> tuple[str, ...]:
    """The daemons of a host, in the order in which they are started."""
    return MASTER_DAEMONS if host in lab.file.masters else NODE_DAEMONS


def check(lab: Lab, host: str, daemon: str) -> None:
    """Check that the host has the daemon.

    Raises:
        LabError: when it does not.
    """
    if daemon not in daemons_of(lab, lab.check_host(host)):
        raise LabError(f"{host} has no {daemon}; it has {', '.join(daemons_of(lab, host))}")


def start(lab: Lab, host: str, daemon: str) -> None:
    """Start a daemon; `wait_ready` tells when it serves.

    Raises:
        LabError: when it runs already or its program is not installed.
    """
    running = lab.process(host, daemon)
    if running is not None and running.state:
        hint = "it is stopped: `kybern-lab kill HOST DAEMON --signal CONT` wakes it" if running.state == "T" else ""
        raise LabError(f"{daemon} on {host} runs already (process {running.pid})", hint)
    lab.ready_file(host, daemon).unlink(missing_ok=True)
    lab.ready_file(host, daemon).parent.mkdir(parents=True, exist_ok=True)
    environment = {"KYBERN_READY_FILE": str(lab.ready_file(host, daemon))}
    command = _COMMANDS[daemon](lab, host)
    process = processes.start(lab.names, command, lab.log(host, daemon), host=host, environment=environment)
    lab.remember(host, daemon, process)


def wait_ready(lab: Lab, host: str, daemon: str, seconds: float = PATIENCE) -> None:
    """Wait until a daemon serves.

    Raises:
        LabError: when it ends, or does not serve in time; the end of its log is in the text.
    """
    process = lab.process(host, daemon)
    alive = True

    def settled() -> bool:
        nonlocal alive
        alive = process is not None and bool(process.state)
        return not alive or is_ready(lab, host, daemon)

    in_time = processes.wait_for(settled, seconds, 0.05)
    if alive and in_time:
        return
    what = "ended" if not alive else f"does not serve after {seconds:.0f} s"
    raise LabError(f"{daemon} on {host} {what}: {_last_words(lab.log(host, daemon))}", f"see {lab.log(host, daemon)}")


def is_ready(lab: Lab, host: str, daemon: str) -> bool:
    """Whether a daemon that runs has said that it serves, or answers."""
    if daemon == "containerd":
        return _accepts(socket_path(lab, host, daemon))
    if daemon == "store" and lab.file.store == ETCD:
        return etcd.is_ready(lab, host)
    if daemon == "docker":
        return Engine(socket_path(lab, host, daemon), timeout=5).answers()
    return lab.ready_file(host, daemon).exists()


def stop(lab: Lab, host: str, daemon: str, number: int, patience: float) -> Process | None:
    """Send a signal to a daemon and wait for its end; returns the process when it has not ended in time."""
    process = lab.process(host, daemon)
    if process is None or not process.signal(number):
        return None
    left = processes.wait_ended([process], patience)
    return left[0] if left else None


def socket_path(lab: Lab, host: str, daemon: str) -> Path:
    """Where containerd or the Docker engine of a host listens."""
    return lab.run_folder / host / f"{daemon}.sock"


def program(name: str, remedy: str = "`make up` installs what is missing") -> str:
    """The path of a daemon's program: in KYBERN_LAB_BIN when that is set, beside this Python, or on the PATH.

    Raises:
        LabError: when it is nowhere.
    """
    folders = [os.environ.get("KYBERN_LAB_BIN", ""), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    # Programs of the system's administrator are not on everyone's PATH.
    found = shutil.which(name, path=os.pathsep.join([f for f in folders if f] + ["/usr/sbin", "/sbin"]))
    if found is None:
        raise LabError(f"the program {name} is not installed", remedy)
    return found


def _kybern(daemon: str) -> Callable[[Lab, str], list[str]]:
    return lambda lab, host: [program(f"kybern-{daemon}"), "--config", str(lab.etc(host) / f"{daemon}.yaml")]


def _store(lab: Lab, host: str) -> list[str]:
    if lab.file.store == ETCD:
        return [program("etcd", "apt-get install etcd-server"), *etcd.arguments(etcd.config_of(lab, host))]
    return _kybern("store")(lab, host)


def _containerd(lab: Lab, host: str) -> list[str]:
    folder = lab.run_folder / host
    folder.mkdir(parents=True, exist_ok=True)
    # One of our own beside each engine: dockerd takes the machine's when there is one, and two engines on one
    # containerd take each other's containers for their own.
    config = f"""\
version = 2
root = "{lab.data(host) / "containerd"}"
state = "{folder / "containerd"}"
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{socket_path(lab, host, "containerd")}"
"""
    path = folder / "containerd.toml"
    path.write_text(config)
    return [program("containerd"), "--config", str(path)]


def _docker(lab: Lab, host: str) -> list[str]:
    folder = lab.run_folder / host
    # It is only started when it does not run: a file that is there was left by one that was killed, and names a process
    # that may be anyone's by now.
    (folder / "docker.pid").unlink(missing_ok=True)
    config = {
        "data-root": str(lab.data(host) / "docker"),
        "exec-root": str(folder / "docker"),
        "pidfile": str(folder / "docker.pid"),
        "hosts": [f"unix://{socket_path(lab, host, 'docker')}"],
        "containerd": str(socket_path(lab, host, "containerd")),
        # Pods' networks are the node's work.
        "bridge": "none",
        "iptables": False,
        "ip6tables": False,
        "ip-forward": False,
        "ip-masq": False,
        # A plain path, also where systemd runs: `down` finds the containers' cgroups by it.
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": f"/{lab.names.cgroup(host)}",
        # Containers go on while the engine is down, as they must on a real node.
        "live-restore": True,
        "log-driver": "json-file",
        "log-opts": {"max-size": "10m", "max-file": "2"},
    }
    path = folder / "dockerd.json"
    path.write_text(json.dumps(config, indent=2))
    return [program("dockerd"), "--config-file", str(path)]


_COMMANDS: dict[str, Callable[[Lab, str], list[str]]] = {
    "store": _store,
    "master": _kybern("master"),
    "node": _kybern("node"),
    "containerd": _containerd,
    "docker": _docker,
}


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "it logged nothing"
    return " | ".join(lines[-3:]) or "it logged nothing"
