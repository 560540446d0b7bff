"""The Python package etcd3 against three real members.

It needs a protobuf older than Kybern's, so it has an environment of its own in .kybern, made when it is not there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab.paths import kybern_home
from tests.conformance.store.group import Group

PROGRAM = Path(__file__).with_name("etcd3_program.py")
REQUIREMENTS = ("etcd3==0.12.0", "protobuf==3.20.3", "tenacity==6.3.1", "grpcio>=1.76,<2")
CHECKS = ("keys", "transactions", "watches", "leases", "locks", "maintenance")


@pytest.fixture(scope="session")
def python() -> Path:
    """An interpreter that has etcd3."""
    folder = kybern_home() / "etcd3-0.12.0"
    interpreter, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, timeout=120)
        install = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS]
        subprocess.run(install, check=True, timeout=240)
        complete.touch()
    return interpreter


@pytest.mark.parametrize("check", CHECKS)
def test_etcd3(python: Path, group: Group, check: str) -> None:
    host, _, port = group.clients[group.leader()].rpartition(":")
    tls = {"ca_cert": str(group.tls.ca), "cert_cert": str(group.tls.cert), "cert_key": str(group.tls.key)}
    connection = json.dumps({"host": host, "port": int(port), **tls})
    done = subprocess.run(
        # Isolated: of Kybern's packages it must see none.
        [str(python), "-I", str(PROGRAM), check, connection],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
