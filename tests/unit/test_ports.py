"""Ports that tests and benchmarks are given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import raft
from bench._store_cluster import Cluster
from tests import ports

# Chooses as it is told to.
_ANOTHER = """
import sys
from tests import ports

wanted = [int(word) for word in sys.argv[1:]]
ports.random.SystemRandom = lambda: type("Chooser", (), {"choice": lambda self, _: wanted.pop(0)})()
print(ports.free_port())
"""


def test_another_process_is_given_another_port() -> None:
    mine = ports.free_port()
    others = [p for p in range(10_000, 30_000) if p not in ports._given]
    command = [sys.executable, "-c", _ANOTHER, str(mine), str(mine), *map(str, others[:100])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[0]) in others


def test_benchmarks_listen_where_the_kernel_lets_nobody_connect_from(tmp_path: Path) -> None:
    cluster = Cluster("ours", tmp_path, {})
    addresses = [*cluster.clients.values(), *cluster.peers.values(), *cluster.metrics.values()]
    addresses += [config.peer_address for config in raft.configurations(tmp_path)]
    found = {int(address.rpartition(":")[2]) for address in addresses}
    assert len(found) == len(addresses)
    assert found.isdisjoint(ports.handed_out())


def test_a_kernel_that_leaves_no_ports_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: "1024\t65535\n")
    with pytest.raises(OSError, match="ip_local_port_range"):
        ports.free_port()
