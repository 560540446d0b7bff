"""Members of a group as `kybern-store` processes: their files, and how one is run."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kybern.config.loading import dump
from kybern.config.models import StoreConfig
from tests.integration.store.serving import HOST, Certificates
from tests.ports import free_port

NAMES = ("s1", "s2", "s3")


def addresses() -> dict[str, str]:
    """One for each member of a group."""
    return {name: f"{HOST}:{free_port()}" for name in NAMES}


def configure(
    folder: Path,
    certificates: Certificates,
    name: str,
    peers: Mapping[str, str],
    clients: Mapping[str, str],
    **settings: Any,
) -> StoreConfig:
    """A member's configuration, written to `folder/NAME.yaml`; its data is in `folder/NAME`."""
    config = StoreConfig(
        name=name,
        data_dir=folder / name,
        client_address=clients[name],
        peer_address=peers[name],
        members=dict(peers),
        clients=dict(clients),
        tls=certificates.member(name),
        **settings,
    )
    (folder / f"{name}.yaml").write_text(dump(config))
    return config


def configure_all(folder: Path, certificates: Certificates, **settings: Any) -> dict[str, StoreConfig]:
    """The configurations of a new group."""
    peers, clients = addresses(), addresses()
    return {name: configure(folder, certificates, name, peers, clients, **settings) for name in NAMES}


def command(file: Path) -> tuple[str, ...]:
    """What runs the member of a configuration."""
    return (sys.executable, "-m", "store.main", "--config", str(file))


def environment(ready: Path) -> dict[str, str]:
    """What it is run with; it writes `ready` once it serves."""
    ready.unlink(missing_ok=True)
    return {**os.environ, "KYBERN_READY_FILE": str(ready)}
