"""A member whose disk does not come back from a write: a file system that is frozen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from kybern.client.etcd import EtcdClient
from kybern.client.store import Put
from kybern.pb.etcd import kv_pb2, maintenance_pb2
from kybern.pb.etcd.kv_pb2_grpc import KVStub
from kybern.pb.etcd.maintenance_pb2_grpc import MaintenanceStub
from kybern.rpc.credentials import open_channel
from tests.integration.store.daemons import Daemons
from tests.integration.store.serving import Endpoint, etcdctl
from tests.volumes import frozen, make_volume, remove_volume

HANGING = "s1"


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / HANGING
    make_volume(path)
    try:
        yield path
    finally:
        remove_volume(path)


async def lead(daemons: Daemons, name: str) -> None:
    """Let a member lead."""
    while (leader := await daemons.leader()) != name:
        number = (await daemons.statuses())[name]["header"]["member_id"]  # type: ignore[index]
        await etcdctl(
            Endpoint(daemons.clients[leader], daemons.certificates.master()), "move-leader", format(number, "x")
        )


async def put(client: EtcdClient, key: bytes) -> None:
    await client.txn([], [Put(key, b"")], [])


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_the_others_go_on_and_take_over_its_clients(volume: Path, daemons: Daemons, role: str) -> None:
    await lead(daemons, HANGING if role == "leader" else "s2")
    master = daemons.certificates.master()
    # Its client and its watch, until it says that it is of no use.
    client = EtcdClient([daemons.clients[name] for name in (HANGING, "s2", "s3")], master, timeout=60)
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def watch() -> None:
        async for batch in client.watch(b"k/", b"k0", since=1):
            for change in batch.changes:
                seen.put_nowait(change.value.key)

    watching = asyncio.create_task(watch())
    await put(client, b"k/before")
    assert await seen.get() == b"k/before"
    async with open_channel(daemons.clients[HANGING], master) as channel, frozen(volume):
        async with asyncio.timeout(60):
            await put(client, b"k/meanwhile")
            assert await seen.get() == b"k/meanwhile"
        status = await MaintenanceStub(channel).Status(maintenance_pb2.StatusRequest())
        assert status.leader == 0
        assert f"{HANGING}: the disk does not answer" in status.errors
        with pytest.raises(grpc.aio.AioRpcError, match="no leader"):
            await KVStub(channel).Put(kv_pb2.PutRequest(key=b"k/never"), timeout=30)
        old = kv_pb2.RangeRequest(key=b"k/before", serializable=True)
        assert (await KVStub(channel).Range(old, timeout=30)).count == 1
        assert await daemons.leader() != HANGING
    # It follows the one that leads now, and has what was written without it.
    there = EtcdClient([daemons.clients[HANGING]], master, timeout=60)
    keys = [kv.key for kv in (await there.range(b"k/", b"k0")).items]
    assert keys == [b"k/before", b"k/meanwhile"]
    await put(there, b"k/after")
    assert await seen.get() == b"k/after"
    watching.cancel()
    await there.close()
    await client.close()
