"""Faults of the network between members; clients reach every member all the time."""

from __future__ import annotations

import asyncio
import contextlib
import random

import grpc.aio

from kybern.pb.etcd import kv_pb2
from tests.fault.store.cluster import NAMES, Cluster
from tests.fault.store.waiting import SECONDS, Unmet

_KEY = b"r/0"
# Seconds between reads that an isolated leader is asked for.
_INTERVAL = 0.1


async def isolate_leader(cluster: Cluster, rng: random.Random) -> None:
    """Cut the leader off from its peers: it must cease to lead, answer no linearizable read, and be replaced.

    Raises:
        Unmet: when one of that does not happen.
    """
    answered = cluster.tallies.isolated_reads_answered
    leader = await cluster.leader()
    others = [name for name in NAMES if name != leader]
    for other in others:
        await cluster.network.cut(leader, other)
    # Only reads that begin from here on count.
    reading = asyncio.create_task(_read(cluster, leader))
    try:
        await asyncio.sleep(rng.uniform(1.0, 2.5))
        try:
            async with asyncio.timeout(SECONDS):
                successor = await cluster.leader(others)
                while await _leads(cluster, leader):  # noqa: ASYNC110 - a member is asked
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise Unmet(f"{leader}, cut off from {others}, leads on, or none of them follows it") from None
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    if cluster.tallies.isolated_reads_answered > answered:
        raise Unmet(f"{leader} answered linearizable reads after it was cut off from {others}")
    assert successor != leader
    cluster.tallies.leaders_isolated += 1


async def _leads(cluster: Cluster, name: str) -> bool:
    status = await cluster.status(name)
    return status is None or status.leader == status.header.member_id


async def _read(cluster: Cluster, name: str) -> None:
    """Ask a member for one linearizable read after the other until cancelled, and wait for each answer till then."""
    asked: list[asyncio.Task[None]] = []
    try:
        while True:
            asked.append(asyncio.create_task(_read_once(cluster, name)))
            await asyncio.sleep(_INTERVAL)
    finally:
        for read in asked:
            read.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def _read_once(cluster: Cluster, name: str) -> None:
    cluster.tallies.isolated_reads += 1
    with contextlib.suppress(grpc.aio.AioRpcError):
        await cluster.call(name, "KV/Range", kv_pb2.RangeRequest(key=_KEY), kv_pb2.RangeResponse, SECONDS)
        cluster.tallies.isolated_reads_answered += 1


async def bridge(cluster: Cluster, rng: random.Random) -> None:
    """Cut two members off from each other; both reach the third."""
    one, other = rng.sample(NAMES, 2)
    await cluster.network.cut(one, other)
    await asyncio.sleep(rng.uniform(1.0, 2.5))


async def one_way(cluster: Cluster, rng: random.Random) -> None:
    """Nothing gets through one way: to or from the leader, from or to one member or both."""
    leader = await cluster.leader()
    others = [name for name in NAMES if name != leader]
    outward = rng.random() < 0.5
    for other in rng.sample(others, rng.choice((1, 2))):
        await cluster.network.hold(*((leader, other) if outward else (other, leader)))
    await asyncio.sleep(rng.uniform(1.0, 2.5))


async def delay(cluster: Cluster, rng: random.Random) -> None:
    """Every packet takes longer, nearly as long as an election may."""
    await cluster.network.delay(rng.uniform(0.02, 0.2))
    await asyncio.sleep(rng.uniform(0.5, 1.5))


async def lossy(cluster: Cluster, rng: random.Random) -> None:
    """A share of all packets is lost, so that everything comes late and in bursts."""
    await cluster.network.lose(rng.uniform(0.05, 0.4), rng.getrandbits(32))
    await asyncio.sleep(rng.uniform(1.0, 2.5))
