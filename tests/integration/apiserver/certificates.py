"""Certificates of a cluster, as files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from kybern.config.models import Tls
from kybern.pki import Identity, issue, new_authority
from tests.ports import HOST, free_port


class Certificates:
    """An authority and what it has issued."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = new_authority("test-ca", datetime.now(UTC))
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(self._authority.cert_pem)

    def issue(self, name: str, *groups: str, server: bool = False, host: str = "127.0.0.1") -> Tls:
        """A certificate for a user with groups; for an address on loopback when it serves."""
        hosts = [host, "localhost", "kubernetes"] if server else []
        pair = issue(self._authority, Identity(name, groups), datetime.now(UTC), hosts=hosts, server=server)
        stem = name.replace(":", "_")
        tls = Tls(self._folder / f"{stem}.crt", self._folder / f"{stem}.key", self.ca)
        pair.write(tls.cert, tls.key)
        return tls


def free_address() -> str:
    """A loopback address that nobody listens on."""
    return f"{HOST}:{free_port()}"
