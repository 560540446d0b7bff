"""`kybern` with what `kybern-lab env` says: it finds the lab's cluster without being told where that is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.environment import environment
from lab.state import OUR_STORE
from tests.lab.cluster.clusters import Cluster


def kybern(cluster: Cluster, *arguments: str) -> Any:
    given = {**os.environ, **environment(cluster.lab)}
    command = [str(Path(sys.executable).parent / "kybern"), *arguments, "--output", "json"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_status_knows_every_daemon(cluster: Cluster) -> None:
    found = kybern(cluster, "status")
    assert found["problems"] == []
    names = sorted((daemon["kind"], daemon["name"]) for daemon in found["daemons"])
    masters, nodes = cluster.lab.file.masters, cluster.lab.file.nodes
    assert names == sorted(
        [("store", m) for m in masters] + [("master", m) for m in masters] + [("node", n) for n in nodes]
    )


@pytest.mark.parametrize("command", [("store", "status"), ("store", "member", "list")])
def test_the_store_is_found(cluster: Cluster, command: tuple[str, ...]) -> None:
    file = cluster.lab.file
    if file.store != OUR_STORE:
        # etcd's members have no configuration of ours: they are named.
        named = environment(cluster.lab)
        endpoints = named["ETCDCTL_ENDPOINTS"].replace("https://", "")
        tls = [f"--{o}={named[f'ETCDCTL_{o.upper()}']}" for o in ("cacert", "cert", "key")]
        command = (command[0], f"--endpoints={endpoints}", *tls, *command[1:])
    assert len(kybern(cluster, *command)) == len(file.masters)
