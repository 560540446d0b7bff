"""A member whose machine is lost: another with the same name and addresses takes its place under load."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal

import grpc.aio

from kybern.pb.etcd import cluster_pb2 as pb
from tests.fault.store.cluster import NAMES, Cluster
from tests.fault.store.waiting import Unmet, until

EX_CONFIG = 78
_LAST_WORDS = ("with another data directory than", "was removed from the store's group")
_CALL_SECONDS = 5.0
_SECONDS = 120.0


async def replace_member(cluster: Cluster, rng: random.Random) -> None:
    """Kill a member, the leader at times, delete its data, remove it, add one anew and start that.

    At times it is started before that as if nothing had happened, and all are killed while it learns.

    Raises:
        Unmet: when it takes part without what it had acknowledged, or there are not three voting members again in time.
    """
    name = await cluster.leader() if rng.random() < 0.4 else rng.choice(NAMES)
    survivors = [other for other in NAMES if other != name]
    await cluster.kill([name])
    _empty(cluster, name)
    if rng.random() < 0.6:
        await _start_blank(cluster, rng, name, survivors)
        _empty(cluster, name)
    try:
        async with asyncio.timeout(_SECONDS):
            await _change(cluster, survivors, name, present=False)
            await _change(cluster, survivors, name, present=True)
            cluster.configure(name, "existing")
            await cluster.up(name)
            if rng.random() < 0.3:
                # While it learns, or has just been promoted.
                await asyncio.sleep(rng.uniform(0.3, 2.0))
                await cluster.kill(NAMES)
                await asyncio.gather(*map(cluster.up, NAMES))
            # One without a name has not been there yet.
            while len([m for m in await voters(cluster, survivors) if m.name]) < len(NAMES):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise Unmet(f"{name} was not replaced: {await voters(cluster, survivors)}") from None
    cluster.tallies.members_replaced += 1


async def _start_blank(cluster: Cluster, rng: random.Random, name: str, survivors: list[str]) -> None:
    """Start a member that has lost its data with the configuration of a first start: it must end.

    At times the leader hangs meanwhile, so that its vote is the one that the other survivor would need to lead.
    """
    hanging = await cluster.leader(survivors) if rng.random() < 0.5 else ""
    if hanging:
        cluster.signal(hanging, signal.SIGSTOP)
    before = len(cluster.output(name))
    cluster.configure(name, "new")
    await cluster.up(name)
    process = cluster.processes[name]
    try:
        await until(lambda: process.returncode is not None, f"{name} ends, whose data was lost")
    finally:
        if hanging:
            cluster.signal(hanging, signal.SIGCONT)
    said = cluster.output(name)[before:]
    # One that had been replaced before comes with the number that it had at first, which was removed.
    if process.returncode != EX_CONFIG or not any(words in said for words in _LAST_WORDS):
        raise Unmet(f"{name}, whose data was lost, ended with {process.returncode}: {said[-500:]}")
    cluster.tallies.blank_members_refused += 1


def _empty(cluster: Cluster, name: str) -> None:
    for path in cluster.data(name).iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


async def voters(cluster: Cluster, asked: list[str]) -> list[pb.Member]:
    """The voting members, as the first member that answers says; none when no one answers."""
    return [member for member in await _members(cluster, asked) if not member.isLearner]


async def _members(cluster: Cluster, asked: list[str]) -> list[pb.Member]:
    for name in asked:
        try:
            request = pb.MemberListRequest(linearizable=True)
            answer = await cluster.call(name, "Cluster/MemberList", request, pb.MemberListResponse, _CALL_SECONDS)
            return list(answer.members)
        except grpc.aio.AioRpcError:
            continue
    return []


async def _change(cluster: Cluster, asked: list[str], name: str, *, present: bool) -> None:
    """Remove or add a member, however often that takes: what became of a call that failed, the list says."""
    url = f"https://{cluster.peers[name]}"
    for attempt in range(1000):
        members = await _members(cluster, asked)
        found = [member.ID for member in members if url in member.peerURLs]
        if members and bool(found) == present:
            return
        target = asked[attempt % len(asked)]
        try:
            if present and members:
                add = pb.MemberAddRequest(peerURLs=[url])
                await cluster.call(target, "Cluster/MemberAdd", add, pb.MemberAddResponse, _CALL_SECONDS)
            elif found:
                remove = pb.MemberRemoveRequest(ID=found[0])
                await cluster.call(target, "Cluster/MemberRemove", remove, pb.MemberRemoveResponse, _CALL_SECONDS)
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.1)
