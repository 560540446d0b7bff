"""How long the loop of a member of ours stands still while it holds many keys and does what touches them all.

Each member has a timer that should fire every 10 ms (`store.server.lag`) and is asked after each phase for the worst
that it saw. Per phase one line: `value` is the worst delay of a member that ran throughout, and `members` has for each
the worst delay, the CPU time that its loop's thread used in that turn, what all threads of the process used, and the
most that the loop's thread used in any turn, all in milliseconds. A delay with little CPU is a busy machine; one with
much CPU of other threads may be theirs. `seconds` is how long
the phase took and `write` the slowest of the puts that went on meanwhile, also in milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
import grpc.aio

from bench._store_cluster import Cluster, channel, unary
from kybern.config.models import Tls
from kybern.pb.etcd import kv_pb2, maintenance_pb2

Order = dict[str, Any]

# So that snapshots are taken often enough to be seen, and history is only compacted when it is asked for.
SETTINGS = {
    "snapshot_entries": 2000,
    "snapshot_keep_entries": 100,
    "snapshot_log_bytes": 16 << 20,
    "history_revisions": 100_000_000,
    "history_seconds": 1_000_000.0,
    "quota_bytes": 8 << 30,
}
PREFIX = "/bench/stall/"
_LARGEST = 1 << 30
_PATIENCE = 180.0
# Puts at a time while phases last, and seconds between two of one worker: some 200 a second.
_WORKERS = 4
_PAUSE = 0.02


class Loader(Protocol):
    """A client process (`bench.store.Loader`)."""

    def give(self, order: Order) -> None:
        """Hand over an order."""
        ...

    async def answer(self) -> Order:
        """What it came to."""
        ...


@dataclass(slots=True)
class Probe:
    """Asks members over their metrics' address, and watches what happens to writes meanwhile."""

    cluster: Cluster
    tls: Tls
    http: aiohttp.ClientSession
    ssl: ssl.SSLContext
    slowest: float = 0.0
    failed: int = 0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def lag(self, name: str) -> tuple[float, float, float, float]:
        """The worst since this was asked last: delay, CPU in it of loop and process, CPU in any turn; milliseconds."""
        async with self.http.get(f"https://{self.cluster.metrics[name]}/lag", ssl=self.ssl) as response:
            found = json.loads(await response.text())
        late, late_cpu, late_process, cpu = (
            round(found[part] * 1000, 1) for part in ("late", "late_cpu", "late_process", "cpu")
        )
        return late, late_cpu, late_process, cpu

    async def metric(self, name: str, metric: str) -> float:
        """One of a member's figures."""
        async with self.http.get(f"https://{self.cluster.metrics[name]}/metrics", ssl=self.ssl) as response:
            for line in (await response.text()).splitlines():
                if line.startswith(f"kybern_store_{metric} "):
                    return float(line.rsplit(" ", 1)[1])
        raise RuntimeError(f"{name} has no figure {metric}")

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Puts one after the other at a moderate rate, on the leader, for as long as this is open."""
        address = self.cluster.clients[await self.cluster.leader()]
        async with channel(address, self.tls) as connection:
            put = unary(connection, "/etcdserverpb.KV/Put")
            tasks = [asyncio.create_task(self._write(put, number)) for number in range(_WORKERS)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, put: Callable[[bytes], Awaitable[bytes]], number: int) -> None:
        request = kv_pb2.PutRequest(key=f"{PREFIX}w{number}".encode(), value=bytes(256)).SerializeToString()
        while True:
            began = time.perf_counter()
            try:
                await put(request)
            except grpc.aio.AioRpcError:
                self.failed += 1
            self.slowest = max(self.slowest, time.perf_counter() - began)
            await asyncio.sleep(_PAUSE)

    async def phase(self, name: str, work: Callable[[], Awaitable[object]], *, without: str = "") -> None:
        """Do the work and print the line; `without` is a member that does not run throughout."""
        for member in self.cluster.processes:
            await self.lag(member)
        self.slowest, self.failed, began = 0.0, 0, time.perf_counter()
        await asyncio.wait_for(work(), _PATIENCE)
        seconds = time.perf_counter() - began
        members = {member: await self.lag(member) for member in sorted(self.cluster.processes)}
        line = {
            "name": f"store-stall-{name}",
            "value": max(lag[0] for member, lag in members.items() if member != without),
            "unit": "ms",
            "cpu": max(lag[3] for member, lag in members.items() if member != without),
            "members": members,
            "leader": await self.cluster.leader(),
            "seconds": round(seconds, 1),
            "write": round(self.slowest * 1000, 1),
        }
        if self.failed:
            line["failed"] = self.failed
        print(json.dumps(line), flush=True)


async def stalls(cluster: Cluster, loaders: Sequence[Loader], tls: Tls, keys: int) -> None:
    """All phases, with so many keys of 256 B."""
    context = ssl.create_default_context(cafile=str(tls.ca))
    context.load_cert_chain(tls.cert, tls.key)
    async with aiohttp.ClientSession() as http:
        probe = Probe(cluster, tls, http, context)
        leader = await cluster.leader()
        await probe.phase("fill", lambda: load(cluster, loaders, leader, 0, keys))
        # As many transactions at once as a batch takes, and more.
        pipe = {"op": "cas-pipe", "in_flight": 1024, "seconds": 3.0}
        await probe.phase("pipe", lambda: _write(cluster, loaders, leader, pipe))
        async with probe.writing():
            await probe.phase("snapshots", lambda: _snapshots(probe, loaders, leader, cluster.processes))
            # Superseded, so that there is history to be compacted.
            await probe.phase("overwrite", lambda: load(cluster, loaders, leader, 0, keys * 3 // 5))
            await probe.phase("compact", lambda: _compact(probe, leader))
            await _calls(probe, leader, keys)
        follower = next(name for name in cluster.clients if name != leader)
        await probe.phase("install", lambda: _install(probe, loaders, leader, follower, keys), without=follower)
        await probe.phase("install-follower", lambda: _settled(probe, follower))
        async with probe.writing():
            await probe.phase("delete", lambda: _delete(probe, leader))


async def load(cluster: Cluster, loaders: Sequence[Loader], leader: str, first: int, keys: int) -> None:
    """Set keys from both client processes, 100 in a transaction."""
    share = keys // len(loaders)
    for number, loader in enumerate(loaders):
        order = {"op": "load", "address": cluster.clients[leader], "prefix": PREFIX, "in_flight": 2, "size": 256}
        loader.give(order | {"first": first + number * share, "keys": share})
    for loader in loaders:
        await loader.answer()


async def _write(cluster: Cluster, loaders: Sequence[Loader], leader: str, order: Order) -> None:
    """Writes of 256 B to a few keys, from both client processes."""
    for number, loader in enumerate(loaders):
        whole = {"address": cluster.clients[leader], "prefix": f"{PREFIX}{order['op']}{number}/", "size": 256}
        loader.give(whole | order)
    for loader in loaders:
        await loader.answer()


async def _snapshots(probe: Probe, loaders: Sequence[Loader], leader: str, members: Any) -> None:
    """Write until every member has taken two more snapshots."""
    wanted = {name: await probe.metric(name, "raft_snapshots_taken") + 2 for name in members}
    while True:
        # Puts are an entry of the log each, or nearly.
        await _write(probe.cluster, loaders, leader, {"op": "put", "in_flight": 8, "seconds": 1.0})
        taken = {name: await probe.metric(name, "raft_snapshots_taken") for name in wanted}
        if all(taken[name] >= wanted[name] for name in wanted):
            return


async def _compact(probe: Probe, leader: str) -> None:
    """Forget all history, and write until its records are gone on every member."""
    async with channel(probe.cluster.clients[leader], probe.tls) as connection:
        revision = int(await probe.metric(leader, "revision"))
        compact = unary(connection, "/etcdserverpb.KV/Compact")
        await compact(kv_pb2.CompactionRequest(revision=revision, physical=True).SerializeToString())
    await _trimmed(probe)


async def _trimmed(probe: Probe) -> None:
    for name in probe.cluster.processes:
        left = 1.0
        while left:
            left = await probe.metric(name, "superfluous_changes")
            await asyncio.sleep(0.1)


async def _calls(probe: Probe, leader: str, keys: int) -> None:
    """What clients can ask for that looks at everything, of the leader and of a follower."""
    follower = next(name for name in probe.cluster.clients if name != leader)
    request = kv_pb2.RangeRequest(key=PREFIX.encode(), range_end=b"\0")
    ordered = kv_pb2.RangeRequest(
        key=PREFIX.encode(),
        range_end=b"\0",
        sort_target=kv_pb2.RangeRequest.MOD,
        sort_order=kv_pb2.RangeRequest.DESCEND,
        limit=10,
    )
    calls: dict[str, tuple[str, bytes]] = {
        "hash-kv": ("Maintenance/HashKV", maintenance_pb2.HashKVRequest().SerializeToString()),
        "hash": ("Maintenance/Hash", maintenance_pb2.HashRequest().SerializeToString()),
        "defragment": ("Maintenance/Defragment", maintenance_pb2.DefragmentRequest().SerializeToString()),
        "range": ("KV/Range", request.SerializeToString()),
        "range-ordered": ("KV/Range", ordered.SerializeToString()),
    }
    for name, (method, message) in calls.items():
        await probe.phase(name, lambda m=method, r=message: _both(probe, (leader, follower), m, r, keys))  # type: ignore[misc]
    await probe.phase("snapshot-stream", lambda: _streams(probe, (leader, follower)))


async def _both(probe: Probe, names: Sequence[str], method: str, request: bytes, keys: int) -> None:
    for name in names:
        async with channel(probe.cluster.clients[name], probe.tls, largest=_LARGEST) as connection:
            answer = await unary(connection, f"/etcdserverpb.{method}")(request)
            if method == "KV/Range" and len(answer) > 1 << 20:
                count = len(kv_pb2.RangeResponse.FromString(answer).kvs)
                if count < keys:
                    raise RuntimeError(f"a range has {count} keys instead of {keys}")


async def _streams(probe: Probe, names: Sequence[str]) -> None:
    for name in names:
        async with channel(probe.cluster.clients[name], probe.tls) as connection:
            call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = connection.unary_stream(
                "/etcdserverpb.Maintenance/Snapshot"
            )
            async for _ in call(b""):
                pass


async def _install(probe: Probe, loaders: Sequence[Loader], leader: str, follower: str, keys: int) -> None:
    """A follower comes back after the log that it needs is gone, and is sent a snapshot."""
    cluster = probe.cluster
    cluster.end(follower)
    # Whole segments are removed, so that it takes bytes as well as entries.
    await load(cluster, loaders, leader, 0, min(keys, 120_000))
    await _snapshots(probe, loaders, leader, list(cluster.processes))
    cluster.launch(follower)
    await cluster.until_serving(follower)
    if not await probe.metric(follower, "raft_snapshots_installed"):
        raise RuntimeError("the follower was not sent a snapshot")


async def _delete(probe: Probe, leader: str) -> None:
    """All keys in one call."""
    async with channel(probe.cluster.clients[leader], probe.tls) as connection:
        delete = unary(connection, "/etcdserverpb.KV/DeleteRange")
        await delete(kv_pb2.DeleteRangeRequest(key=PREFIX.encode(), range_end=b"\0").SerializeToString())


async def _settled(probe: Probe, follower: str) -> None:
    """The follower that has replaced its state frees the old one while it applies what comes."""
    async with probe.writing():
        await asyncio.sleep(3.0)
