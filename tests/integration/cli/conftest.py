"""A cluster's certificates, as `kybern init` and `kybern certs` make them, for servers on loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from kybern.cli.main import run
from tests.ports import free_port


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """The configuration folder of a cluster's only master, on 127.0.0.1."""
    folder = tmp_path / "m1"
    ports = ["--rest-port", str(free_port()), "--grpc-port", str(free_port())]
    where = ["--dir", str(folder), "--data-dir", str(tmp_path / "data")]
    assert run(["init", "--name", "m1", "--address", "127.0.0.1", *ports, *where]) == 0
    return folder


@pytest.fixture
def node(first: Path, tmp_path: Path) -> Path:
    """The configuration folder of a node, on 127.0.0.1."""
    bundle, folder = tmp_path / "n1.tar", tmp_path / "n1"
    assert run(["certs", "node", "n1", "--address", "127.0.0.1", "--out", str(bundle), "--dir", str(first)]) == 0
    assert run(["join", "node", "--bundle", str(bundle), "--dir", str(folder)]) == 0
    return folder
