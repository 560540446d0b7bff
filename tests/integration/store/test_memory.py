"""What a member was asked and answered does not stay in its memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc.aio
import pytest

from kybern.client.etcd import EtcdClient
from kybern.client.store import Put
from kybern.config.loading import dump
from kybern.pb.etcd import kv_pb2, watch_pb2
from kybern.pb.etcd.kv_pb2_grpc import KVStub
from kybern.pb.etcd.watch_pb2_grpc import WatchStub
from kybern.rpc.credentials import open_channel
from tests.integration.store.daemons import start
from tests.integration.store.serving import Certificates, store_config

VALUE = bytes(64 * 1024)
# Fills what is bounded (the log's cache, the latest events that were encoded), and then what would be the leak.
WARM_UP, OPERATIONS = 400, 1000
# A leak keeps all that goes through; what a process has at one moment and not at another is some megabytes.
BOUND = OPERATIONS * len(VALUE) // 2
KEY = b"k/a"


class Member:
    """A member of its own, as a process."""

    def __init__(self, process: asyncio.subprocess.Process, address: str, certificates: Certificates) -> None:
        self.process = process
        self.address = address
        self.master = certificates.master()
        self.channel = open_channel(address, self.master)
        self.keys = KVStub(self.channel)

    def memory(self) -> int:
        """Its resident memory, in bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    async def put(self) -> None:
        """Set the key, and be told what it was."""
        await self.keys.Put(kv_pb2.PutRequest(key=KEY, value=VALUE, prev_kv=True))

    async def range(self) -> None:
        await self.keys.Range(kv_pb2.RangeRequest(key=b"k/", range_end=b"k0"))

    async def txn(self) -> None:
        """Set it, read it and delete it at once."""
        put = kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=b"k/b", value=VALUE))
        read = kv_pb2.RequestOp(request_range=kv_pb2.RangeRequest(key=b"k/b"))
        await self.keys.Txn(kv_pb2.TxnRequest(success=[put, read]))
        await self.keys.DeleteRange(kv_pb2.DeleteRangeRequest(key=b"k/b", prev_kv=True))


@pytest.fixture
async def member(certificates: Certificates, tmp_path: Path) -> AsyncIterator[Member]:
    config = store_config(certificates)
    (tmp_path / "store.yaml").write_text(dump(config))
    process = await start(tmp_path / "store.yaml", tmp_path / "ready", tmp_path / "log")
    found = Member(process, config.client_address, certificates)
    try:
        async with asyncio.timeout(60):
            while not (tmp_path / "ready").exists():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.05)
        yield found
    finally:
        await found.channel.close()
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def grown(member: Member, operation: Callable[[], Awaitable[None]]) -> int:
    """By how many bytes the member's memory grows."""

    async def do(count: int) -> int:
        for number in range(count):
            await operation()
            if number % 50 == 0:
                # What is superseded is kept for watches until it is compacted.
                revision = (await member.keys.Range(kv_pb2.RangeRequest(key=b"none"))).header.revision
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await member.keys.Compact(kv_pb2.CompactionRequest(revision=revision))
        return member.memory()

    before = await do(WARM_UP)
    return await do(OPERATIONS) - before


@pytest.mark.parametrize("operation", [Member.put, Member.range, Member.txn])
async def test_calls_leave_nothing(member: Member, operation: Callable[[Member], Awaitable[None]]) -> None:
    await member.put()
    assert await grown(member, lambda: operation(member)) < BOUND


async def test_the_pipe_leaves_nothing(member: Member) -> None:
    client = EtcdClient([member.address], member.master)

    async def write() -> None:
        await client.txn([], [Put(KEY, VALUE)], [])
        await client.range(KEY)

    assert await grown(member, write) < BOUND
    await client.close()


async def test_watches_leave_nothing(member: Member) -> None:
    seen = asyncio.Semaphore(0)
    call = WatchStub(member.channel).Watch()
    create = watch_pb2.WatchCreateRequest(key=b"k/", range_end=b"k0", prev_kv=True)
    await call.write(watch_pb2.WatchRequest(create_request=create))

    async def read() -> None:
        async for response in call:
            for _ in response.events:
                seen.release()

    reading = asyncio.create_task(read())

    async def write() -> None:
        await member.put()
        await seen.acquire()

    assert await grown(member, write) < BOUND
    reading.cancel()
