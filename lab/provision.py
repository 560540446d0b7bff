"""Makes the hosts' configuration with the same commands that a person types: `kybern init`, `certs` and `join`."""

from __future__ import annotations

import contextlib
import io
import shutil

from kybern.cli.main import run
from lab import daemons
from lab.errors import LabError
from lab.state import Lab

# A lab is watched by someone who waits: a lost node's pods run elsewhere after about 15 s.
QUICK = ("node_lease_interval=2", "node_grace_period=10", "default_toleration_seconds=5")


def provision(lab: Lab) -> None:
    """Write every host's configuration, and the kubeconfig that names the balancer.

    Raises:
        LabError: with what the command said.
    """
    first, *others = lab.file.masters
    bundles = lab.folder / "bundles"
    bundles.mkdir(parents=True, exist_ok=True)
    members = [word for m in lab.file.masters for word in ("--member", f"{m}={lab.subnet.host(m)}")]
    settings = [word for setting in QUICK for word in ("--set", setting)]
    endpoint = f"https://{lab.subnet.machine}:6443"
    named = ["--name", first, "--address", lab.subnet.host(first), "--cluster-name", lab.file.name]
    kybern("init", *named, *members, "--endpoint", endpoint, *settings, *_folders(lab, first))
    issuer = str(lab.etc(first))
    for master in others:
        bundle = str(bundles / f"{master}.tar")
        kybern("certs", "master", master, "--out", bundle, "--dir", issuer)
        kybern("join", "master", "--bundle", bundle, *_folders(lab, master))
    for node in lab.file.nodes:
        bundle = str(bundles / f"{node}.tar")
        kybern("certs", "node", node, "--address", lab.subnet.host(node), "--out", bundle, "--dir", issuer)
        engine = ["--docker", f"unix://{daemons.socket_path(lab, node, 'docker')}"]
        engine += ["--cgroup-parent", f"/{lab.names.cgroup(node)}"]
        kybern("join", "node", "--bundle", bundle, *engine, *_folders(lab, node))
    shutil.rmtree(bundles)
    shutil.copyfile(lab.etc(first) / "admin.kubeconfig", lab.kubeconfig)
    lab.kubeconfig.chmod(0o600)


def kybern(*arguments: str) -> None:
    """Run the `kybern` command in this process.

    Raises:
        LabError: when it fails, with what it said.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(arguments)
    if code != 0:
        raise LabError(f"`kybern {' '.join(arguments[:2])}` failed: {' '.join(err.getvalue().split())}")


def _folders(lab: Lab, host: str) -> list[str]:
    return ["--dir", str(lab.etc(host)), "--data-dir", str(lab.data(host))]
