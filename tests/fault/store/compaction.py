"""All members killed while a compaction of the store's history (etcd's Compact) is under way."""

from __future__ import annotations

import asyncio
import random

import grpc.aio

from kybern.pb.etcd import kv_pb2
from tests.fault.store.cluster import NAMES, Cluster

_CALL_SECONDS = 2.0
_ATTEMPTS = 5
# Seconds between question and kill at the first attempt; half as many at each one after that.
_LONGEST = 0.008


async def kill_all_in_compact(cluster: Cluster, rng: random.Random) -> bool:
    """Ask for a compaction and SIGKILL all members before it is answered.

    False when each was answered before the kill, or nothing is left to compact; all members are killed all the same.
    Forgotten is only what was checked already.
    """
    for attempt in range(_ATTEMPTS):
        left = cluster.checked - cluster.compacted
        if left <= 0:
            break
        revision = cluster.compacted + (left + 1) // 2
        calls = [asyncio.create_task(_compact(cluster, name, revision)) for name in NAMES]
        # Compacted or not, it is not asked for again.
        cluster.compacted = revision
        await asyncio.sleep(rng.uniform(0, _LONGEST / 2**attempt))
        unanswered = not any(call.done() for call in calls)
        if unanswered:
            await cluster.kill(NAMES)
        await asyncio.gather(*calls)
        if unanswered:
            return True
    await cluster.kill(NAMES)
    return False


async def _compact(cluster: Cluster, name: str, revision: int) -> bool:
    """Whether it was done."""
    request = kv_pb2.CompactionRequest(revision=revision)
    try:
        await cluster.call(name, "KV/Compact", request, kv_pb2.CompactionResponse, _CALL_SECONDS)
    except grpc.aio.AioRpcError:
        return False
    return True
