"""Stores and clients for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.store.daemons import Daemons, three_daemons
from tests.integration.store.serving import Certificates, Endpoint, our_store, real_etcd, store_config


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture
async def ours(certificates: Certificates) -> AsyncIterator[Endpoint]:
    config = store_config(certificates)
    async with our_store(config):
        yield Endpoint(config.client_address, certificates.master())


@pytest.fixture
async def etcd(certificates: Certificates, tmp_path: Path) -> AsyncIterator[Endpoint]:
    async with real_etcd(certificates, tmp_path / "etcd") as endpoint:
        yield endpoint


@pytest.fixture
async def daemons(certificates: Certificates, tmp_path: Path) -> AsyncIterator[Daemons]:
    async with three_daemons(certificates, tmp_path) as group:
        yield group
