"""What every StoreClient must do: in memory, on our store, and on Debian's etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest

from kybern.client.etcd import EtcdClient
from kybern.client.memory_store import MemoryStore
from kybern.client.store import (
    Change,
    Compacted,
    Compare,
    Delete,
    Get,
    KeyValue,
    Put,
    StoreClient,
    StoreRefused,
    Target,
    WatchBatch,
    prefix_end,
)
from tests.integration.store.serving import Certificates, Endpoint, etcdctl, our_store, real_etcd, store_config

PREFIX = b"/registry/"
END = prefix_end(PREFIX)


class Store:
    """A client, and how to compact the store that it speaks to."""

    def __init__(self, client: StoreClient, endpoint: Endpoint | None) -> None:
        self.client = client
        self.endpoint = endpoint

    async def compact(self) -> int:
        """Forget all history; returns the revision."""
        revision = await self.client.revision()
        if self.endpoint is None:
            cast(MemoryStore, self.client).compact()
        else:
            assert (await etcdctl(self.endpoint, "compact", str(revision))).code == 0
        return revision


@pytest.fixture(params=["memory", "ours", "etcd"])
async def store(request: pytest.FixtureRequest, certificates: Certificates, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        memory = MemoryStore()
        yield Store(memory, None)
        await memory.close()
        return
    config = store_config(certificates)
    context: Any = our_store(config) if request.param == "ours" else real_etcd(certificates, tmp_path / "etcd")
    async with context as running:
        endpoint = running if isinstance(running, Endpoint) else Endpoint(config.client_address, certificates.master())
        client = EtcdClient([endpoint.address], endpoint.tls)
        yield Store(client, endpoint)
        await client.close()


def key(name: str) -> bytes:
    return PREFIX + name.encode()


async def test_a_put_makes_a_revision_and_a_read_sees_it(store: Store) -> None:
    client = store.client
    before = await client.revision()
    result = await client.txn([], [Put(key("a"), b"1")])
    assert result.succeeded
    assert result.revision == before + 1
    assert await client.revision() == before + 1
    found = await client.range(key("a"))
    assert found.items == [KeyValue(key("a"), b"1", before + 1, before + 1, 1)]
    assert found.revision == before + 1


async def test_versions_count_changes_and_begin_anew_after_a_deletion(store: Store) -> None:
    client = store.client
    first = (await client.txn([], [Put(key("a"), b"1")])).revision
    second = (await client.txn([], [Put(key("a"), b"2")])).revision
    assert (await client.range(key("a"))).items == [KeyValue(key("a"), b"2", first, second, 2)]
    await client.txn([], [Delete(key("a"))])
    assert (await client.range(key("a"))).items == []
    third = (await client.txn([], [Put(key("a"), b"3")])).revision
    assert (await client.range(key("a"))).items == [KeyValue(key("a"), b"3", third, third, 1)]


async def test_a_transaction_that_changes_nothing_makes_no_revision(store: Store) -> None:
    client = store.client
    before = await client.revision()
    result = await client.txn([], [Delete(key("absent")), Get(key("absent"))])
    assert (result.succeeded, result.revision, list(result.reads)) == (True, before, [None])


@pytest.mark.parametrize(
    ("target", "wrong"),
    [(Target.MOD_REVISION, 1), (Target.CREATE_REVISION, 1), (Target.VERSION, 9), (Target.VALUE, b"x")],
)
async def test_comparisons_choose_the_branch(store: Store, target: Target, wrong: int | bytes) -> None:
    client = store.client
    revision = (await client.txn([], [Put(key("a"), b"1")])).revision
    right: dict[Target, int | bytes] = {
        Target.MOD_REVISION: revision,
        Target.CREATE_REVISION: revision,
        Target.VERSION: 1,
        Target.VALUE: b"1",
    }
    refused = await client.txn([Compare(key("a"), target, wrong)], [Delete(key("a"))], [Get(key("a")), Get(key("b"))])
    assert not refused.succeeded
    assert list(refused.reads) == [KeyValue(key("a"), b"1", revision, revision, 1), None]
    assert refused.revision == revision
    done = await client.txn([Compare(key("a"), target, right[target])], [Delete(key("a"))])
    assert done.succeeded
    assert done.revision == revision + 1


async def test_an_absent_key_has_revisions_0_and_no_value(store: Store) -> None:
    client = store.client
    for target in (Target.MOD_REVISION, Target.CREATE_REVISION, Target.VERSION):
        assert (await client.txn([Compare(key("no"), target, 0)], [])).succeeded
    assert not (await client.txn([Compare(key("no"), Target.VALUE, b"")], [])).succeeded


async def test_all_writes_of_a_transaction_share_one_revision(store: Store) -> None:
    client = store.client
    await client.txn([], [Put(key("c"), b"old")])
    result = await client.txn([], [Put(key("a"), b"1"), Put(key("b"), b"2"), Delete(key("c"))])
    found = await client.range(PREFIX, END)
    assert [(kv.key, kv.mod_revision) for kv in found.items] == [
        (key("a"), result.revision),
        (key("b"), result.revision),
    ]


async def test_gets_see_the_writes_before_them(store: Store) -> None:
    result = await store.client.txn([], [Get(key("a")), Put(key("a"), b"1"), Get(key("a"))])
    assert result.reads[0] is None
    assert result.reads[1] == KeyValue(key("a"), b"1", result.revision, result.revision, 1)


async def test_ranges_have_an_end_a_limit_and_a_count(store: Store) -> None:
    client = store.client
    for name in ("a", "b", "c"):
        await client.txn([], [Put(key(name), name.encode())])
    await client.txn([], [Put(b"/other", b"")])
    found = await client.range(PREFIX, END, limit=2)
    assert [kv.key for kv in found.items] == [key("a"), key("b")]
    assert (found.more, found.count) == (True, 3)
    rest = await client.range(key("b") + b"\0", END, limit=2)
    assert [kv.key for kv in rest.items] == [key("c")]
    assert (rest.more, rest.count) == (False, 1)


async def test_the_past_can_be_read_until_it_is_compacted(store: Store) -> None:
    client = store.client
    first = (await client.txn([], [Put(key("a"), b"1"), Put(key("b"), b"1")])).revision
    second = (await client.txn([], [Put(key("a"), b"2"), Delete(key("b"))])).revision
    await client.txn([], [Put(key("c"), b"3")])
    past = await client.range(PREFIX, END, revision=first)
    assert [(kv.key, kv.value) for kv in past.items] == [(key("a"), b"1"), (key("b"), b"1")]
    past = await client.range(PREFIX, END, revision=second)
    assert [(kv.key, kv.value) for kv in past.items] == [(key("a"), b"2")]
    await store.compact()
    with pytest.raises(Compacted):
        await client.range(PREFIX, END, revision=first)


async def collect(client: StoreClient, since: int, until: int) -> list[Change]:
    """The changes after `since`, up to revision `until`."""
    changes: list[Change] = []
    async with asyncio.timeout(30), aclosing(cast(Any, client.watch(PREFIX, END, since=since))) as batches:
        async for batch in batches:
            changes += batch.changes
            if batch.revision >= until:
                return changes
    raise AssertionError("a watch never ends by itself")


async def test_a_watch_tells_the_past_and_the_present_in_order(store: Store) -> None:
    client = store.client
    start = await client.revision()
    first = (await client.txn([], [Put(key("a"), b"1")])).revision
    watching = asyncio.create_task(collect(client, start, first + 3))
    second = (await client.txn([], [Put(key("a"), b"2"), Put(key("b"), b"1")])).revision
    await client.txn([], [Put(b"/other", b"")])
    third = (await client.txn([], [Delete(key("a"))])).revision
    one = KeyValue(key("a"), b"1", first, first, 1)
    two = KeyValue(key("a"), b"2", first, second, 2)
    changes = await watching
    assert changes == [
        Change(one, None),
        Change(two, one),
        Change(KeyValue(key("b"), b"1", second, second, 1), None),
        Change(KeyValue(key("a"), b"", 0, third, 0), two),
    ]
    assert [c.deleted for c in changes] == [False, False, False, True]


async def test_a_watch_begins_after_its_revision(store: Store) -> None:
    client = store.client
    first = (await client.txn([], [Put(key("a"), b"1")])).revision
    second = (await client.txn([], [Put(key("a"), b"2")])).revision
    assert [c.value.value for c in await collect(client, first, second)] == [b"2"]


async def test_a_watch_reports_progress_when_asked(store: Store) -> None:
    client = store.client
    seen: asyncio.Queue[WatchBatch] = asyncio.Queue()

    async def watch(since: int) -> None:
        async for batch in client.watch(PREFIX, END, since=since):
            seen.put_nowait(batch)

    watching = asyncio.create_task(watch(await client.revision()))
    inside = (await client.txn([], [Put(key("a"), b"1")])).revision
    async with asyncio.timeout(30):
        while not (await seen.get()).changes:
            pass
        outside = (await client.txn([], [Put(b"/other", b"1")])).revision
        assert outside == inside + 1
        while True:
            await client.request_progress()
            if (await seen.get()).revision >= outside:
                break
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_a_watch_of_what_was_compacted_is_refused(store: Store) -> None:
    client = store.client
    await client.txn([], [Put(key("a"), b"1")])
    await client.txn([], [Put(key("a"), b"2")])
    revision = await store.compact()
    with pytest.raises(Compacted) as caught:
        await collect(client, 1, revision)
    assert caught.value.compact_revision == revision


async def test_keys_go_with_their_lease(store: Store) -> None:
    client = store.client
    lease = await client.lease_grant(60)
    result = await client.txn([], [Put(key("a"), b"1", lease), Put(key("b"), b"1", lease), Put(key("c"), b"1")])
    assert (await client.range(key("a"))).items == [
        KeyValue(key("a"), b"1", result.revision, result.revision, 1, lease)
    ]
    assert await client.lease_keep_alive(lease)
    # A put without the lease takes the key out of it.
    await client.txn([], [Put(key("b"), b"2")])
    await client.lease_revoke(lease)
    assert [kv.key for kv in (await client.range(PREFIX, END)).items] == [key("b"), key("c")]
    assert not await client.lease_keep_alive(lease)
    await client.lease_revoke(lease)


async def test_a_put_with_a_lease_that_has_ended_is_refused_whole(store: Store) -> None:
    client = store.client
    lease = await client.lease_grant(60)
    await client.lease_revoke(lease)
    before = await client.revision()
    with pytest.raises(StoreRefused):
        await client.txn([], [Put(key("b"), b"1"), Put(key("a"), b"1", lease)])
    assert (await client.range(PREFIX, END)).items == []
    assert await client.revision() == before


async def test_two_clients_cannot_both_win_a_comparison(store: Store) -> None:
    client = store.client
    claims = await asyncio.gather(
        *(
            client.txn([Compare(key("claim"), Target.CREATE_REVISION, 0)], [Put(key("claim"), str(n).encode())])
            for n in range(20)
        )
    )
    assert [c.succeeded for c in claims].count(True) == 1


async def test_the_revision_is_never_older_than_a_write_before_the_question(store: Store) -> None:
    client = store.client

    async def write_and_ask(n: int) -> bool:
        written = (await client.txn([], [Put(key(str(n)), b"")])).revision
        return await client.revision() >= written

    assert all(await asyncio.gather(*(write_and_ask(n) for n in range(50))))
