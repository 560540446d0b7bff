"""Clients that write, compare, delete and read at once, and watchers; all that they are told is recorded."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import grpc.aio
from google.protobuf.message import Message

from kybern.client.etcd import EtcdClient
from kybern.client.etcd.errors import surely_not_done
from kybern.client.etcd.messages import key_value, range_result, txn_request, txn_result
from kybern.client.store import (
    Compare,
    Delete,
    Get,
    Operation,
    Put,
    RangeResult,
    StoreUnavailable,
    Target,
    TxnResult,
)
from kybern.config.models import Tls
from kybern.pb.etcd import kv_pb2
from kybern.rpc.credentials import open_channel
from tests.fault.store.calls import R, unary
from tests.fault.store.history import History, Kind
from tests.fault.store.history import Operation as Record
from tests.fault.store.log_check import Watched

# Single keys, and keys that are read together.
REGISTERS = tuple(b"r/%d" % n for n in range(6))
GROUP = tuple(b"g/%d" % n for n in range(4))
CLAIMS = b"d/"
_CALL_SECONDS = 2.0


def group_of(key: bytes) -> bytes:
    """Keys of one group are one object for the checker: only they are read together."""
    return b"g/" if key.startswith(b"g/") else key


class Refused(Exception):  # noqa: N818
    """The call surely had no effect."""


class Store(Protocol):
    """What the load needs. Raises Refused, or StoreUnavailable when the outcome is not known."""

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> TxnResult: ...

    async def range(self, start: bytes, end: bytes | None = None) -> RangeResult: ...

    async def close(self) -> None: ...


class UnaryStore:
    """Plain etcd v3: each call once, to one member; another member after a failure."""

    def __init__(self, addresses: Sequence[str], tls: Tls, first: int) -> None:
        self._channels = [open_channel(address, tls) for address in addresses]
        self._current = first % len(addresses)

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> TxnResult:
        """One transaction; a lone put or delete is etcd's call for it."""
        match compares, then:
            case [], [Put(key, value)]:
                put = await self._call("Put", kv_pb2.PutRequest(key=key, value=value), kv_pb2.PutResponse)
                return TxnResult(True, put.header.revision, ())
            case [], [Get(), Delete(key)]:
                request = kv_pb2.DeleteRangeRequest(key=key, prev_kv=True)
                gone = await self._call("DeleteRange", request, kv_pb2.DeleteRangeResponse)
                found = [key_value(kv) for kv in gone.prev_kvs]
                return TxnResult(True, gone.header.revision, found or [None])
        return txn_result(await self._call("Txn", txn_request(compares, then, otherwise), kv_pb2.TxnResponse))

    async def range(self, start: bytes, end: bytes | None = None) -> RangeResult:
        """A linearizable read."""
        request = kv_pb2.RangeRequest(key=start, range_end=end or b"")
        return range_result(await self._call("Range", request, kv_pb2.RangeResponse))

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()

    async def _call(self, method: str, request: Message, response: type[R]) -> R:
        channel = self._channels[self._current]
        try:
            return await unary(channel, f"/etcdserverpb.KV/{method}", request, response, _CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._current = (self._current + 1) % len(self._channels)
            text = error.details() or ""
            if surely_not_done(text):
                raise Refused(text) from error
            raise StoreUnavailable(text) from error


class Worker:
    """One client that makes one call after the other."""

    def __init__(self, name: str, store: Store, history: History, rng: random.Random, pause: float) -> None:
        self._name = name
        self._store = store
        self._history = history
        self._rng = rng
        self._pause = pause
        self._count = 0
        # What it last saw of each key: what it compares with.
        self._seen: dict[bytes, int] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop."""
        while not stop.is_set():
            roll = self._rng.random()
            key = self._rng.choice(REGISTERS if self._rng.random() < 0.5 else GROUP)
            try:
                if roll < 0.25:
                    await self._put(key)
                elif roll < 0.5:
                    await self._cas(key)
                elif roll < 0.6:
                    await self._delete(key)
                elif roll < 0.75:
                    await self._claim()
                else:
                    await self._read(key)
            except (StoreUnavailable, Refused):
                await asyncio.sleep(0.05)
            await asyncio.sleep(self._rng.uniform(0, 2 * self._pause))

    def _value(self) -> bytes:
        self._count += 1
        return f"{self._name}-{self._count}".encode()

    async def _put(self, key: bytes) -> None:
        value = self._value()
        with self._record("put", key, value=value) as operation:
            result = await self._store.txn([], [Put(key, value)])
            self._history.end(operation, result.revision)
            self._seen[key] = result.revision

    async def _cas(self, key: bytes) -> None:
        await self._compare_and_set(key, self._seen.get(key, 0), self._value())

    async def _claim(self) -> None:
        """A key of its own, that nobody else writes and nobody deletes: it must be there at the end."""
        value = self._value()
        await self._compare_and_set(CLAIMS + value, 0, value)

    async def _compare_and_set(self, key: bytes, expected: int, value: bytes) -> None:
        with self._record("cas", key, value=value, expected=expected) as operation:
            compare = Compare(key, Target.MOD_REVISION, expected)
            result = await self._store.txn([compare], [Put(key, value)], [Get(key)])
            found = [kv for kv in result.reads if kv is not None]
            self._history.end(operation, result.revision, succeeded=result.succeeded, found=found)
            self._seen[key] = result.revision if result.succeeded else found[0].mod_revision if found else 0

    async def _delete(self, key: bytes) -> None:
        with self._record("delete", key) as operation:
            result = await self._store.txn([], [Get(key), Delete(key)])
            self._history.end(operation, result.revision, found=[kv for kv in result.reads if kv is not None])
            self._seen[key] = 0

    async def _read(self, key: bytes) -> None:
        end = b"g0" if key in GROUP and self._rng.random() < 0.7 else None
        start = b"g/" if end else key
        with self._record("read", start, end=end) as operation:
            result = await self._store.range(start, end)
            self._history.end(operation, result.revision, found=result.items)
            self._seen[key] = next((kv.mod_revision for kv in result.items if kv.key == key), 0)

    @contextlib.contextmanager
    def _record(self, kind: Kind, key: bytes, **fields: object) -> Iterator[Record]:
        operation = self._history.begin(self._name, kind, key, **fields)
        try:
            yield operation
        except Refused:
            self._history.refuse(operation)
            raise


class Watcher:
    """Watches [start, end) from a revision on until told to stop; every so often from somewhere else in between."""

    def __init__(self, name: str, client: EtcdClient, start: bytes, end: bytes, rng: random.Random) -> None:
        self._name = name
        self._client = client
        self._start = start
        self._end = end
        self._rng = rng
        self.watched: list[Watched] = []
        # When it was first told that a key was deleted, by the monotonic clock.
        self.gone: dict[bytes, float] = {}

    async def run(self, since: int, *, restart: float, until: asyncio.Future[int]) -> None:
        """Watch; with `restart`, anew after that many seconds at most, from any revision that was seen."""
        first = since
        while True:
            watched = Watched(self._name, self._start, self._end, since, since)
            self.watched.append(watched)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._rng.uniform(0, restart) if restart and not until.done() else None):
                    await self._follow(watched, until)
                    return
            since = self._rng.randint(first, watched.upto)

    async def _follow(self, watched: Watched, until: asyncio.Future[int]) -> None:
        async with contextlib.aclosing(self._client.watch(self._start, self._end, since=watched.since)) as batches:
            async for batch in batches:
                watched.changes.extend(batch.changes)
                now = time.monotonic()
                for change in batch.changes:
                    if change.deleted:
                        self.gone.setdefault(change.value.key, now)
                watched.upto = max(watched.upto, batch.revision)
                if until.done() and watched.upto >= until.result():
                    return
