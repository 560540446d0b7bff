"""What runs where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from kybern.cli.tables import duration, render
from lab import daemons, network
from lab.lifecycle import BALANCER, MACHINE
from lab.state import Lab


class DaemonStatus(msgspec.Struct, frozen=True):
    """One daemon. `state` is Ready, Starting, Stopped (by a signal) or Dead; memory in bytes, age in seconds."""

    host: str
    address: str
    # Up or Cut.
    link: str
    daemon: str
    state: str
    leader: bool = False
    pid: int = 0
    memory: int = 0
    age: float = 0.0


def status(lab: Lab, leaders: Mapping[str, str]) -> list[DaemonStatus]:
    """Every daemon of the lab. `leaders` names the hosts that lead, by daemon."""
    cut = network.cut_hosts(lab.names)
    found = [_one(lab, MACHINE, BALANCER, lab.subnet.machine, "Up", leader=False)]
    for host in lab.hosts:
        link = "Cut" if host in cut else "Up"
        for daemon in daemons.daemons_of(lab, host):
            leader = leaders.get(daemon) == host
            found.append(_one(lab, host, daemon, lab.subnet.host(host), link, leader=leader))
    return found


def table(found: Sequence[DaemonStatus]) -> str:
    """For people."""
    rows = [("HOST", "ADDRESS", "LINK", "DAEMON", "STATE", "LEADER", "PID", "MEMORY", "AGE")]
    for one in found:
        running = one.pid != 0
        rows.append(
            (
                one.host,
                one.address,
                one.link,
                one.daemon,
                one.state,
                "yes" if one.leader else "",
                str(one.pid) if running else "-",
                f"{one.memory / 1e6:.0f} MB" if running else "-",
                duration(one.age) if running else "-",
            )
        )
    return render(rows)


def healthy(found: Sequence[DaemonStatus]) -> bool:
    """Whether everything runs and no host is cut off."""
    return all(one.state == "Ready" and one.link == "Up" for one in found)


def _one(lab: Lab, host: str, daemon: str, address: str, link: str, *, leader: bool) -> DaemonStatus:
    process = lab.process(host, daemon)
    letter = process.state if process is not None else ""
    if process is None or not letter:
        return DaemonStatus(host, address, link, daemon, "Dead")
    ready = letter != "T" and daemons.is_ready(lab, host, daemon)
    state = "Stopped" if letter == "T" else "Ready" if ready else "Starting"
    return DaemonStatus(host, address, link, daemon, state, leader, process.pid, process.memory, process.age)
