"""A member whose group has risen to a level that this version cannot apply, and the daemon of this version after it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import msgspec
import pytest

from kybern import __version__
from kybern.clock import SystemClock
from kybern.config.loading import dump
from kybern.config.models import StoreConfig
from kybern.pb.etcd import maintenance_pb2, maintenance_pb2_grpc
from kybern.pb.v1.store_pipe_pb2 import StoreCommand
from kybern.rpc.credentials import channel_credentials
from store.main import main
from store.mvcc.level import LEVEL, LOWEST_LEVEL
from store.mvcc.outcomes import PutOutcome
from store.raft.interface import Levels
from store.raft.node import RaftNode
from store.server.member import StoreMember
from tests.integration.store.daemons import start
from tests.integration.store.serving import HOST, Certificates, our_store, store_config
from tests.integration.store.test_http import get
from tests.ports import free_port
from tests.unit.store.driver import put

EX_CONFIG = 78
NEXT = Levels(LOWEST_LEVEL, LEVEL + 1)


@pytest.fixture
def config(certificates: Certificates) -> StoreConfig:
    metrics = f"{HOST}:{free_port()}"
    return msgspec.structs.replace(store_config(certificates), metrics_address=metrics)  # type: ignore[type-var] # one


@contextlib.asynccontextmanager
async def next_version(config: StoreConfig) -> AsyncIterator[StoreMember]:
    """A member of the next version, the only one of its group, which has risen."""
    member = StoreMember.create(config, RaftNode(config), SystemClock())
    member.core.machine.levels = NEXT
    await member.start()
    try:
        await member.until_ready()
        async with asyncio.timeout(20):
            while member.core.machine.level != NEXT.highest:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.02)
        await member.core.propose(StoreCommand(put=put(b"a")), PutOutcome)
        yield member
    finally:
        await member.stop()


async def status_of(config: StoreConfig) -> maintenance_pb2.StatusResponse:
    async with grpc.aio.secure_channel(config.client_address, channel_credentials(config.tls)) as channel:
        return await maintenance_pb2_grpc.MaintenanceStub(channel).Status(maintenance_pb2.StatusRequest())


async def test_status_and_metrics_tell_the_groups_level_and_what_the_member_can_apply(
    config: StoreConfig, certificates: Certificates
) -> None:
    async with next_version(config):
        status = await status_of(config)
        _, text = await get(config, certificates.master(), "/metrics")
    assert (status.storageVersion, status.highestLevel) == (str(LEVEL + 1), LEVEL + 1)
    assert status.softwareVersion == __version__
    # What clients go by stays the version of etcd's API.
    assert status.version == "3.5.0"
    assert f"kybern_store_level {LEVEL + 1}.0" in text
    assert f"kybern_store_highest_level {LEVEL + 1}.0" in text


async def test_a_member_that_waits_for_others_tells_both(config: StoreConfig) -> None:
    async with our_store(config) as (member, _):
        member.core.machine.levels = NEXT
        status = await status_of(config)
        assert (status.storageVersion, status.highestLevel) == ("1", LEVEL + 1)


async def test_the_daemon_of_this_version_says_why_it_does_not_start(config: StoreConfig, tmp_path: Path) -> None:
    async with next_version(config):
        pass
    (tmp_path / "store.yaml").write_text(dump(config))
    process = await start(tmp_path / "store.yaml", tmp_path / "ready", tmp_path / "daemon.log")
    async with asyncio.timeout(60):
        assert await process.wait() == EX_CONFIG
    *_, said = (tmp_path / "daemon.log").read_text().splitlines()
    assert said.startswith(f"kybern-store: {config.name} cannot apply what the store's group writes: the log in ")
    assert f"{config.data_dir}/log, from entry" in said
    assert f"is at level {LEVEL + 1} of the state machine" in said
    assert f"{__version__}, applies {Levels(LOWEST_LEVEL, LEVEL)}." in said
    assert "Install the version that the other members run" in said
    assert not (tmp_path / "ready").exists()


async def test_a_copy_of_a_higher_level_is_not_restored(
    config: StoreConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    credentials = channel_credentials(config.tls)
    async with next_version(config), grpc.aio.secure_channel(config.client_address, credentials) as channel:
        stub = maintenance_pb2_grpc.MaintenanceStub(channel)
        parts = [part.blob async for part in stub.Snapshot(maintenance_pb2.SnapshotRequest())]
    (tmp_path / "copy").write_bytes(b"".join(parts))
    there = tmp_path / "restored"
    (tmp_path / "store.yaml").write_text(dump(config))
    words = ["restore", f"--config={tmp_path / 'store.yaml'}", f"--data-dir={there}", "--", str(tmp_path / "copy")]
    assert await asyncio.to_thread(main, words) == EX_CONFIG
    said = capsys.readouterr().err
    assert f"{tmp_path / 'copy'}" in said
    assert f"is of level {LEVEL + 1} of the state machine" in said
    assert "use the version of the group that it was made of" in said
    assert not there.exists() or not list(there.iterdir())
