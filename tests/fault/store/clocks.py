"""The time of day as single members see it: Debian's libfaketime, preloaded, with an offset that a file holds.

Monotonic clocks stay right, as they do when the time of day is set. The file is read again about every second.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.fault.store.cluster import NAMES, Cluster

_HOUR = 3600
# Seconds until a process surely goes by what was written: the file is looked at when the time is asked for.
SETTLES = 2.5


def library() -> Path | None:
    """The library that is preloaded; None when it is not installed."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return found[0] if found else None


def environment(file: Path) -> dict[str, str]:
    """The environment of a process whose time of day is off by what a file says."""
    return {
        "LD_PRELOAD": str(library()),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def jump(file: Path, seconds: int) -> None:
    """Set the clock off by so many seconds."""
    new = file.with_suffix(".new")
    new.write_text(f"{seconds:+d}\n")
    new.replace(file)


async def clock_jump(cluster: Cluster, rng: random.Random) -> None:
    """Set the leader's clock, or another member's, an hour forth or back while it runs, and change leaders between."""
    await cluster.kill(NAMES)
    environments = {}
    for name in NAMES:
        jump(_file(cluster, name), 0)
        environments[name] = environment(_file(cluster, name))
        await cluster.up(name, environments[name])
    for _ in range(rng.choice((2, 3))):
        leader = await cluster.leader()
        name = leader if rng.random() < 0.7 else rng.choice(NAMES)
        jump(_file(cluster, name), rng.choice((_HOUR, -_HOUR)))
        cluster.tallies.clock_jumps += 1
        await asyncio.sleep(SETTLES)
        if rng.random() < 0.5:
            # Who follows goes on in a log whose last time is an hour off its own.
            await cluster.kill([leader])
            await cluster.up(leader, environments[leader])


def _file(cluster: Cluster, name: str) -> Path:
    return cluster.folder / f"{name}.clock"
