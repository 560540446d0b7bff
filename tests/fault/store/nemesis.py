"""The faults. Each is inflicted on a cluster under load and lasts for a while; `Cluster.heal` undoes what it left."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable

from tests import volumes
from tests.fault.store import clocks
from tests.fault.store.clocks import clock_jump
from tests.fault.store.cluster import NAMES, Cluster
from tests.fault.store.disks import disk_full, disk_hang, flipped_bit, torn_tail
from tests.fault.store.network import TUN
from tests.fault.store.partitions import bridge, delay, isolate_leader, lossy, one_way
from tests.fault.store.points import fail_point
from tests.fault.store.replacement import replace_member

Fault = Callable[[Cluster, random.Random], Awaitable[None]]


async def kill_one(cluster: Cluster, rng: random.Random) -> None:
    """SIGKILL any member; the others go on."""
    await cluster.kill([rng.choice(NAMES)])
    await asyncio.sleep(rng.uniform(0, 0.5))


async def kill_leader(cluster: Cluster, rng: random.Random) -> None:
    """SIGKILL the leader, and its successor too once in a while."""
    for _ in range(rng.choice((1, 1, 2))):
        name = await cluster.leader()
        await cluster.kill([name])
        await asyncio.sleep(rng.uniform(0, 0.3))
        await cluster.up(name)


async def kill_all(cluster: Cluster, rng: random.Random) -> None:
    """SIGKILL all members at once."""
    await cluster.kill(NAMES)


async def stop_one(cluster: Cluster, rng: random.Random) -> None:
    """SIGSTOP any member; what was waiting for it in sockets arrives late."""
    await _stopped(cluster, rng.choice(NAMES), rng.uniform(0.3, 2.0))


async def stop_leader(cluster: Cluster, rng: random.Random) -> None:
    """SIGSTOP the leader for longer than an election takes: it comes back and still thinks that it leads."""
    await _stopped(cluster, await cluster.leader(), rng.uniform(1.0, 3.0))


async def _stopped(cluster: Cluster, name: str, seconds: float) -> None:
    cluster.signal(name, signal.SIGSTOP)
    await asyncio.sleep(seconds)
    cluster.signal(name, signal.SIGCONT)


FAULTS: dict[str, Fault] = {
    "kill-one": kill_one,
    "kill-leader": kill_leader,
    "kill-all": kill_all,
    "stop-one": stop_one,
    "stop-leader": stop_leader,
    "isolate-leader": isolate_leader,
    "bridge": bridge,
    "one-way": one_way,
    "delay": delay,
    "lossy": lossy,
    "torn-tail": torn_tail,
    "flipped-bit": flipped_bit,
    "disk-full": disk_full,
    "disk-hang": disk_hang,
    "fail-point": fail_point,
    "clock-jump": clock_jump,
    "replace-member": replace_member,
}


def unavailable() -> dict[str, str]:
    """Why a fault cannot be inflicted here, by its name."""
    missing = {}
    if not TUN.exists():
        missing["delay"] = missing["lossy"] = f"there is no {TUN}"
    if clocks.library() is None:
        missing["clock-jump"] = "Debian's package faketime is not installed"
    if why := volumes.unavailable():
        missing["disk-hang"] = why
    return missing
