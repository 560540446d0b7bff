"""kybern-node says in one line why it cannot start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from kybern import pki
from kybern.daemon import EXIT_CONFIG, StartupError
from kybern.pki import Identity, KeyPair
from node import main

NOW = datetime.now(UTC)


@pytest.fixture
def authority() -> KeyPair:
    return pki.new_authority("test", NOW)


def configure(folder: Path, authority: KeyPair, user: str = "system:node:n1", **changes: Any) -> Path:
    """A node's configuration with its certificate; returns the file."""
    ca = folder / "ca.crt"
    ca.write_bytes(authority.cert_pem)
    lifetime = changes.pop("lifetime", timedelta(days=1))
    now = NOW + changes.pop("shift", timedelta())
    pair = pki.issue(authority, Identity(user, ("system:nodes",)), now, server=True, lifetime=lifetime)
    pair.write(folder / "node.crt", folder / "node.key")
    config = {
        "name": "n1",
        "address": "127.0.0.1",
        "agent_address": "127.0.0.1:1",
        "masters": ["127.0.0.1:2"],
        "tls": {"cert": str(folder / "node.crt"), "key": str(folder / "node.key"), "ca": str(ca)},
        "data_dir": str(folder / "data"),
        "runtime": {"kind": "fake"},
        "network": False,
        **changes,
    }
    path = folder / "node.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def fails(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What it prints when it does not start."""
    assert main.main(["--config", str(path)]) == EXIT_CONFIG
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_no_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = fails(tmp_path / "none.yaml", capsys)
    assert line.startswith("kybern-node: cannot read the configuration")


def test_a_misspelt_field(tmp_path: Path, authority: KeyPair, capsys: pytest.CaptureFixture[str]) -> None:
    assert "`max_podz`" in fails(configure(tmp_path, authority, max_podz=3), capsys)


def test_no_master(tmp_path: Path, authority: KeyPair, capsys: pytest.CaptureFixture[str]) -> None:
    assert "masters is empty" in fails(configure(tmp_path, authority, masters=[]), capsys)


def test_a_certificate_of_another_node(tmp_path: Path, authority: KeyPair, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is that of 'system:node:n2'" in fails(configure(tmp_path, authority, "system:node:n2"), capsys)


def test_a_certificate_that_has_expired(tmp_path: Path, authority: KeyPair, capsys: pytest.CaptureFixture[str]) -> None:
    path = configure(tmp_path, authority, shift=timedelta(days=-3))
    assert "expired at" in fails(path, capsys)


def test_a_certificate_of_another_authority(
    tmp_path: Path, authority: KeyPair, capsys: pytest.CaptureFixture[str]
) -> None:
    path = configure(tmp_path, authority)
    (tmp_path / "ca.crt").write_bytes(pki.new_authority("other", NOW).cert_pem)
    assert "was not issued by" in fails(path, capsys)


def test_no_root(
    tmp_path: Path, authority: KeyPair, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    path = configure(tmp_path, authority, runtime={"kind": "docker"})
    assert "running containers needs root" in fails(path, capsys)


def test_two_agents_on_one_directory(tmp_path: Path) -> None:
    taken = pytest.raises(StartupError, match="another process uses the data directory")
    with main.only_agent(tmp_path / "data"), taken, main.only_agent(tmp_path / "data"):
        raise AssertionError("two agents at once")
    with main.only_agent(tmp_path / "data"):
        assert (tmp_path / "data" / "agent.lock").exists()


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(StartupError, match="cannot use the data directory"),
        main.only_agent(tmp_path / "file" / "data"),
    ):
        raise AssertionError("never entered")
