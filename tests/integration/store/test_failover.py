"""The client when members stop, are cut off, lose their leader or the answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import pytest

from kybern.client.etcd import EtcdClient
from kybern.client.store import Compacted, Compare, Put, StoreUnavailable, Target, WatchBatch
from kybern.daemon import StartupError
from kybern.pb.etcd import kv_pb2
from kybern.pb.v1.store_pipe_pb2 import StoreCommand
from tests.integration.store.group import Group, Relay, SharedRaft, group_of_three
from tests.integration.store.serving import Certificates, Endpoint


@pytest.fixture
async def group(certificates: Certificates) -> AsyncIterator[Group]:
    async with group_of_three(certificates) as running:
        yield running


@pytest.fixture
async def client(group: Group, certificates: Certificates) -> AsyncIterator[EtcdClient]:
    client = EtcdClient(group.endpoints, certificates.master())
    yield client
    await client.close()


def raft_of(group: Group, number: int) -> SharedRaft:
    return cast(SharedRaft, group.members[number].core.raft)


async def claim(client: EtcdClient, key: bytes) -> bool:
    """Create a key; False when it was there, as after a repetition that the store took for a new transaction."""
    return (await client.txn([Compare(key, Target.VERSION, 0)], [Put(key, b"")])).succeeded


class Watcher:
    """Collects a watch's changes."""

    def __init__(self, client: EtcdClient, since: int) -> None:
        self.revisions: list[int] = []
        self.batches: asyncio.Queue[WatchBatch] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(client, since))

    async def _run(self, client: EtcdClient, since: int) -> None:
        async with aclosing(cast(Any, client.watch(b"k/", b"k0", since=since))) as batches:
            async for batch in batches:
                self.revisions += [change.value.mod_revision for change in batch.changes]
                self.batches.put_nowait(batch)

    async def until(self, revision: int) -> None:
        """Wait for a revision's changes."""
        async with asyncio.timeout(30):
            while not self.revisions or self.revisions[-1] < revision:
                await self.batches.get()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.mark.parametrize("fault", ["stopped", "killed", "leaderless"])
async def test_writes_and_watches_go_on_with_another_member(group: Group, client: EtcdClient, fault: str) -> None:
    watcher = Watcher(client, 1)
    assert all(await asyncio.gather(*(claim(client, b"k/%d" % n) for n in range(20))))
    await watcher.until(21)
    match fault:
        case "stopped":
            group.relays[0].pause()
        case "killed":
            await group.relays[0].cut()
        case _:
            raft_of(group, 0).cut = True
    assert all(await asyncio.gather(*(claim(client, b"k/after/%d" % n) for n in range(20))))
    await watcher.until(41)
    assert watcher.revisions == list(range(2, 42))
    assert len((await client.range(b"k/", b"k0")).items) == 40
    await watcher.close()


async def test_a_write_whose_answer_is_lost_is_done_once(group: Group, client: EtcdClient) -> None:
    assert await claim(client, b"k/first")
    group.log.lose_answers = True
    claiming = asyncio.create_task(claim(client, b"k/second"))
    # It is committed again and again, and has its effect once.
    before = group.log.index
    async with asyncio.timeout(30):
        while await group.log.commits.get() < before + 3:
            pass
    group.log.lose_answers = False
    assert await claiming
    assert await client.revision() == 3


async def test_a_store_without_a_leader_is_unavailable_until_it_has_one(
    group: Group, certificates: Certificates
) -> None:
    client = EtcdClient(group.endpoints, certificates.master(), timeout=1.0)
    for number in range(3):
        raft_of(group, number).cut = True
    with pytest.raises(StoreUnavailable, match="no leader"):
        await client.txn([], [Put(b"k", b"")])
    with pytest.raises(StoreUnavailable, match="no leader"):
        await client.range(b"a", b"z")
    with pytest.raises(StoreUnavailable, match="no leader"):
        await client.revision()
    with pytest.raises(StoreUnavailable):
        await client.lease_keep_alive(1)
    for number in range(3):
        raft_of(group, number).cut = False
    assert await claim(client, b"k/again")
    await client.close()


async def test_nobody_there_is_unavailable(certificates: Certificates) -> None:
    relay = Relay("127.0.0.1:1")
    client = EtcdClient([relay.address], certificates.master(), timeout=0.5, watch_patience=0.5)
    with pytest.raises(StoreUnavailable):
        await client.txn([], [Put(b"k", b"")])
    with pytest.raises(StoreUnavailable):
        await client.range(b"k", b"z")
    with pytest.raises(StoreUnavailable):
        async for _ in client.watch(b"k", b"l", since=1):
            raise AssertionError("nobody can have served it")
    await client.close()


def test_a_certificate_that_is_not_there_is_said_at_once(certificates: Certificates) -> None:
    tls = certificates.master()
    tls.key.unlink()
    with pytest.raises(StartupError, match=r"m1\.key"):
        EtcdClient(["127.0.0.1:1"], tls)


async def test_a_watch_that_comes_back_after_a_compaction_is_told(group: Group, certificates: Certificates) -> None:
    client = EtcdClient(group.endpoints[:1], certificates.master())
    other = EtcdClient(group.endpoints[1:], certificates.master())
    assert await claim(client, b"k/1")
    batches = client.watch(b"k/", b"k0", since=1)
    assert [c.value.key for c in (await anext(batches)).changes] == [b"k/1"]
    await group.relays[0].cut()
    for n in range(5):
        assert await claim(other, b"k/later/%d" % n)
    group.log.commit(StoreCommand(compact=kv_pb2.CompactionRequest(revision=6)).SerializeToString())
    await group.relays[0].listen()
    with pytest.raises(Compacted) as caught:
        async with asyncio.timeout(30):
            await anext(batches)
    assert caught.value.compact_revision == 6
    await client.close()
    await other.close()


async def test_leases_can_be_kept_with_any_member(group: Group, client: EtcdClient) -> None:
    lease = await client.lease_grant(60)
    await group.relays[0].cut()
    assert await client.lease_keep_alive(lease)
    group.relays[1].pause()
    assert await client.lease_keep_alive(lease)
    await client.lease_revoke(lease)
    assert not await client.lease_keep_alive(lease)


async def test_callers_that_wait_share_a_question_but_none_that_was_asked_before(
    group: Group, client: EtcdClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    original = SharedRaft.read_barrier

    async def counted(self: SharedRaft) -> None:
        nonlocal asked
        asked += 1
        await original(self)

    monkeypatch.setattr(SharedRaft, "read_barrier", counted)
    assert await client.revision() == 1
    asked = 0
    answers = await asyncio.gather(*(client.revision() for _ in range(100)))
    assert set(answers) == {1}
    assert asked == 2


@contextlib.asynccontextmanager
async def two_ways(etcd: Endpoint) -> AsyncIterator[tuple[Relay, Relay]]:
    first, second = Relay(etcd.address), Relay(etcd.address)
    await first.listen()
    await second.listen()
    try:
        yield first, second
    finally:
        for relay in (first, second):
            relay.resume()
            await relay.cut()


async def test_on_a_real_etcd_only_what_was_not_sent_is_tried_again(etcd: Endpoint) -> None:
    async with two_ways(etcd) as (first, second):
        client = EtcdClient([first.address, second.address], etcd.tls)
        assert await claim(client, b"k/1")
        first.pause()
        with pytest.raises(StoreUnavailable, match="outcome is not known"):
            await claim(client, b"k/2")
        # Reads have no effect to fear, and the other way is in use by now.
        assert (await client.range(b"k/1")).count == 1
        await client.close()
        first.resume()
        await second.cut()
        # Nobody listens there: nothing can have been sent.
        client = EtcdClient([second.address, first.address], etcd.tls)
        assert await claim(client, b"k/3")
        await client.close()
