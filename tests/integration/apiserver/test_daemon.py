"""`kybern-master` says in one line why it cannot start."""

from __future__ import annotations

import asyncio
import socket
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kybern.config.loading import dump
from kybern.config.models import MasterConfig, Tls
from kybern.pki import Identity, issue, new_authority, new_private_key_pem, write_private
from tests.integration.apiserver.certificates import Certificates, free_address


async def run(config: Path) -> tuple[int, str]:
    """Exit code and standard error of the daemon."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "master.main", "--config", str(config), stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode()


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    certificates = Certificates(tmp_path)
    key = tmp_path / "sa.key"
    write_private(key, new_private_key_pem())
    tls = certificates.issue("kube-apiserver", server=True)
    return {
        "name": "m1",
        "rest_address": free_address(),
        "grpc_address": free_address(),
        "store": [free_address()],
        "tls": tls,
        "store_tls": tls,
        "client_tls": tls,
        "service_account_key": key,
    }


def write(tmp_path: Path, settings: dict[str, Any], extra: str = "") -> Path:
    path = tmp_path / "master.yaml"
    path.write_text(dump(MasterConfig(**settings)) + extra, encoding="utf-8")
    return path


def _one_line(err: str) -> str:
    assert err.startswith("kybern-master: ")
    assert err.count("\n") == 1
    return err


async def test_a_configuration_that_is_not_there_or_not_valid(tmp_path: Path, settings: dict[str, Any]) -> None:
    code, err = await run(tmp_path / "none.yaml")
    assert code == 78
    assert "cannot read the configuration" in _one_line(err)
    code, err = await run(write(tmp_path, settings, "rest_adress: 127.0.0.1:1\n"))
    assert code == 78
    assert "rest_adress" in _one_line(err)


async def test_a_certificate_that_has_expired_or_is_of_another_authority(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    past = datetime.now(UTC) - timedelta(days=10)
    authority = new_authority("old", past)
    pair = issue(authority, Identity("kube-apiserver"), past, server=True, lifetime=timedelta(days=1))
    old = Tls(tmp_path / "old.crt", tmp_path / "old.key", tmp_path / "old-ca.crt")
    pair.write(old.cert, old.key)
    old.ca.write_bytes(authority.cert_pem)
    code, err = await run(write(tmp_path, settings | {"tls": old}))
    assert code == 78
    assert "expired" in _one_line(err)
    foreign = Tls(settings["tls"].cert, settings["tls"].key, old.ca)
    code, err = await run(write(tmp_path, settings | {"client_tls": foreign}))
    assert code == 78
    assert "was not issued by the authority" in _one_line(err)


@pytest.mark.parametrize("door", ["rest_address", "grpc_address"])
async def test_a_port_that_is_taken(tmp_path: Path, settings: dict[str, Any], door: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        code, err = await run(write(tmp_path, settings | {door: taken}))
    assert code == 1
    assert f"cannot listen on {taken}: the port is taken" in err.splitlines()[-1]
