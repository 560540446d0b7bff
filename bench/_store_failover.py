"""From the SIGKILL of the leader to the next acknowledged write, ours beside etcd's, in turn.

Two clients write one put after the other all the time: `EtcdClient`, as a master uses it, and an ordinary unary client
that tries the next member when a call fails or takes a second. What counts is the first write that was begun after the
leader was dead. The killed member is restarted, and has caught up, before the next kill.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

import grpc
import grpc.aio

from bench._store_cluster import Cluster, channel, unary
from kybern.client.etcd import EtcdClient
from kybern.client.store import Put, StoreUnavailable
from kybern.config.models import Tls
from kybern.pb.etcd import kv_pb2

_KEY = b"/bench/failover"
# Of one unary call; and before the next attempt, of either client.
_CALL_SECONDS = 1.0
_PAUSE = 0.02
# After an acknowledged write: enough of a pause that writing does not use the processors up.
_BETWEEN = 0.005
# What is waited for a write at most, and between the return of a member and the next kill.
_PATIENCE = 30.0
_SETTLE = 1.0

Write = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Writer:
    """Writes as long as it runs; `wait` tells when the first write that was begun after a moment was acknowledged."""

    write: Write
    after: float = float("inf")
    acknowledged: asyncio.Future[float] | None = None

    async def run(self) -> None:
        """Write for ever."""
        while True:
            began = time.perf_counter()
            try:
                await self.write()
            except (StoreUnavailable, grpc.aio.AioRpcError):
                await asyncio.sleep(_PAUSE)
                continue
            waiting = self.acknowledged
            if waiting is not None and not waiting.done() and began >= self.after:
                waiting.set_result(time.perf_counter())
            await asyncio.sleep(_BETWEEN)

    async def wait(self, after: float) -> float:
        """The moment of that acknowledgement.

        Raises:
            TimeoutError: when none came.
        """
        self.acknowledged = asyncio.get_running_loop().create_future()
        self.after = after
        return await asyncio.wait_for(self.acknowledged, _PATIENCE)


@contextlib.asynccontextmanager
async def writers(cluster: Cluster, tls: Tls) -> AsyncIterator[dict[str, Writer]]:
    """Both clients of one side, writing."""
    addresses = list(cluster.clients.values())
    client = EtcdClient(addresses, tls)
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(channel(address, tls)) for address in addresses]
        puts = [unary(connection, "/etcdserverpb.KV/Put") for connection in channels]
        request = kv_pb2.PutRequest(key=_KEY, value=bytes(256)).SerializeToString()
        current = 0

        async def one() -> None:
            nonlocal current
            try:
                async with asyncio.timeout(_CALL_SECONDS):
                    await puts[current](request)
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                current = (current + 1) % len(puts)
                raise StoreUnavailable(str(error)) from error

        found = {
            "client": Writer(lambda: client.txn((), (Put(_KEY, bytes(256)),))),
            "unary": Writer(one),
        }
        tasks = [asyncio.create_task(writer.run()) for writer in found.values()]
        try:
            yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await client.close()


async def failovers(sides: Mapping[str, Cluster], tls: Tls, kills: int) -> None:
    """So many kills of each side's leader, in turn; medians and worst cases."""
    seconds: dict[tuple[str, str], list[float]] = {}
    async with contextlib.AsyncExitStack() as stack:
        running = {side: await stack.enter_async_context(writers(cluster, tls)) for side, cluster in sides.items()}
        for _ in range(kills):
            for side, cluster in sides.items():
                for name, took in (await _kill(cluster, running[side])).items():
                    seconds.setdefault((side, name), []).append(took)
    for name in ("client", "unary"):
        ours, etcd = seconds["ours", name], seconds["etcd", name]
        for part, of in (("median", statistics.median), ("worst", max)):
            value, peer = of(ours), of(etcd)
            line = {
                "name": f"store-failover-{name}-{part}",
                "value": round(value, 3),
                "unit": "s",
                "ratio": round(value / peer, 2),
                "peer": round(peer, 3),
                "kills": kills,
            }
            print(json.dumps(line), flush=True)


async def _kill(cluster: Cluster, found: Mapping[str, Writer]) -> dict[str, float]:
    """Kill the leader once; seconds until each client's next write was acknowledged."""
    leader = await cluster.leader()
    began = time.perf_counter()
    cluster.kill(leader)
    dead = time.perf_counter()
    waiting = [asyncio.create_task(writer.wait(dead)) for writer in found.values()]
    moments = await asyncio.gather(*waiting)
    cluster.launch(leader)
    await cluster.until_serving(leader)
    await asyncio.sleep(_SETTLE)
    return {name: moment - began for name, moment in zip(found, moments, strict=True)}
