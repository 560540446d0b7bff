"""What an operator does to hosts of a cluster that runs: a lost disk, certificates that end."""

from __future__ import annotations

import shutil
import ssl
import sys
from pathlib import Path

import pytest

from lab.state import OUR_STORE
from tests.lab.cluster.clusters import Cluster, chosen_store
from tests.lab.cluster.test_faults import kept, names, write

pytestmark = pytest.mark.lab

__all__ = ["kept"]

KYBERN = str(Path(sys.executable).parent / "kybern")


def on(cluster: Cluster, host: str, *words: str) -> str:
    """Output of `kybern` on a host of the lab."""
    return cluster.command("exec", host, "--", KYBERN, *words)


@pytest.mark.skipif(chosen_store() != OUR_STORE, reason="a real etcd has its own way")
def test_a_master_whose_disk_is_lost_joins_anew(cluster: Cluster, kept: set[str]) -> None:
    lab = cluster.lab
    cluster.command("kill", "m3", "store")
    data = lab.data("m3")
    (store,) = (path.parent for path in data.rglob("directory_id"))
    shutil.rmtree(store)
    refused = cluster.command.run("start", "m3", "store")
    assert refused.returncode != 0
    assert "with another data directory than" in lab.log("m3", "store").read_text()
    # The others are a cluster without it.
    cluster.until(lambda: write(cluster), "writes without the lost member")
    said = on(cluster, "m3", "store", f"--config={lab.etc('m3') / 'store.yaml'}", "join", "--yes")
    assert "m3 may join as member" in said
    cluster.command("start", "m3", "store")
    assert names(cluster) == kept

    def all_serve() -> bool:
        on(cluster, "m1", "store", f"--config={lab.etc('m1') / 'store.yaml'}", "status")
        rows = on(cluster, "m1", "store", f"--config={lab.etc('m1') / 'store.yaml'}", "member", "list").splitlines()
        return len(rows) == 4 and all(" yes " in row for row in rows[1:])

    cluster.until(all_serve, "all members vote")


def test_certificates_are_renewed_while_everything_runs(hello: Cluster, tmp_path: Path) -> None:
    lab = hello.lab
    etc = lab.etc("m1")
    on(hello, "m1", "certs", "renew", "--dir", str(etc))
    for host in (*lab.file.masters[1:], *lab.file.nodes):
        bundle, where = tmp_path / f"{host}.tar", ["--dir", str(etc)]
        if host in lab.file.nodes:
            on(hello, "m1", "certs", "node", host, "--address", lab.subnet.host(host), "--out", str(bundle), *where)
        else:
            on(hello, "m1", "certs", "master", host, "--out", str(bundle), *where)
        on(hello, host, "certs", "renew", "--bundle", str(bundle), "--dir", str(lab.etc(host)))
    ports = [(host, port, cert) for host in lab.file.masters for port, cert in ((6443, "master"), (6444, "master"))]
    ports += [(host, 2379, "store") for host in lab.file.masters] + [(host, 10250, "node") for host in lab.file.nodes]
    for host, port, cert in ports:
        shown = ssl.get_server_certificate((lab.subnet.host(host), port))
        renewed = (lab.etc(host) / "pki" / f"{cert}.crt").read_text()
        assert ssl.PEM_cert_to_DER_cert(shown) == ssl.PEM_cert_to_DER_cert(renewed), (host, port)
    # Connections that must be made anew are made with them: of members, masters and nodes.
    for daemon in ("store", "master"):
        hello.command("kill", "m2", daemon)
        hello.until(lambda: write(hello), f"writes without the {daemon} of m2")
        hello.command("start", "m2", daemon)
    hello.command("kill", "n1", "node")
    hello.command("start", "n1", "node")
    hello.until(lambda: set(hello.ready_nodes()) == set(lab.file.nodes), "all nodes are ready")
    assert hello.unanswered(20) == []
    name = hello.live("app=hello")[0]["metadata"]["name"]
    assert hello.kubectl("logs", name) is not None
