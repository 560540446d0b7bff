"""Faults at chosen steps of a member's work (`store.raft.failpoints`): it dies there, or waits there to be killed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Sequence

from store.raft.failpoints import EXIT_STATUS
from store.raft.failpoints import NAMES as POINTS
from tests.fault.store.cluster import FAIL_POINTS, NAMES, Cluster
from tests.fault.store.waiting import happens

# Steps of a snapshot and of trimming after it that a thread makes: a member that waits there works on. What is on disk
# before and after those that the loop makes (trim.begin, trim.done) is the same as after snapshot.done and at the end.
SNAPSHOT_STEPS = (
    "snapshot.begin",
    "snapshot.partial",
    "snapshot.written",
    "snapshot.synced",
    "snapshot.renamed",
    "snapshot.done",
    "trim.unlinked",
)
_ATTEMPTS = 8
# Seconds that a member has to come to a step.
_PATIENCE = 10.0
# Seconds that a member is away at most, so that it needs a leader's snapshot.
_AWAY = 30.0
# And all members to steps of their snapshots, which they take after some hundred entries.
_STEP_PATIENCE = 20.0
_STEP_ATTEMPTS = 4
_OFTEN = ("append.", "apply.")


async def kill_all_in_snapshot(cluster: Cluster, rng: random.Random, used: Counter[str]) -> bool:
    """Start all members so that each waits at a step of its next snapshot, and SIGKILL all when all are there.

    Each may be at a step of its own. `used` counts the steps; those that had their turn least often are taken. False
    when not all came to their step, several times; all are killed all the same.
    """
    for _ in range(_STEP_ATTEMPTS):
        steps = _least(SNAPSHOT_STEPS, used, rng)
        chosen = dict(zip(NAMES, steps, strict=False)) if rng.random() < 0.5 else dict.fromkeys(NAMES, steps[0])
        await cluster.kill(NAMES)
        before = {name: cluster.fired(name)[step] for name, step in chosen.items()}
        for name, step in chosen.items():
            await cluster.up(name, {FAIL_POINTS: f"{step}=sleep:600@1"})
        there = await _all_at(cluster, chosen, before)
        await cluster.kill(NAMES)
        if there:
            used.update(chosen.values())
            return True
    return False


async def _all_at(cluster: Cluster, chosen: dict[str, str], before: dict[str, int]) -> bool:
    """Whether all come to their step in time.

    One may not: when it started late and the log no longer reaches back to it, it needs a snapshot of the leader's,
    whose thread for that is the one that waits.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STEP_PATIENCE):
            await happens(lambda: all(cluster.fired(name)[step] > before[name] for name, step in chosen.items()))
            return True
    return False


def fired(cluster: Cluster) -> Counter[str]:
    """How often each fail point acted in this run, those that did not too."""
    total = Counter(dict.fromkeys(POINTS, 0))
    for name in NAMES:
        total.update(cluster.fired(name))
    return total


async def fail_point(cluster: Cluster, rng: random.Random) -> None:
    """Let members die at steps of their work, those first that had their turn least often; several times."""
    for _ in range(_ATTEMPTS):
        await cluster.leader()
        points = _least(POINTS, fired(cluster), rng)
        kind = _kind(points[0])
        alike = [point for point in points if _kind(point) == kind]
        if kind == "install":
            await _install(cluster, rng, alike[0])
        elif kind == "vote":
            # All begin anew, so that there is a vote.
            await _die(cluster, dict(zip(NAMES, alike, strict=False)), rng)
        else:
            # Two of three: when one is dead, there is still work for the other.
            await _die(cluster, dict(zip(rng.sample(NAMES, 2), alike, strict=False)), rng)


def _least(points: Sequence[str], times: Counter[str], rng: random.Random) -> list[str]:
    return sorted(rng.sample(points, len(points)), key=lambda point: times[point])


def _kind(point: str) -> str:
    kind = point.partition(".")[0]
    return kind if kind in ("install", "vote") else "other"


async def _die(cluster: Cluster, chosen: dict[str, str], rng: random.Random) -> None:
    """Restart members so that they die at a step, wait for that for a while, and restart them as usual."""
    await cluster.kill(chosen)
    for name, point in chosen.items():
        nth = rng.choice((1, 2, 5, 20, 100)) if point.startswith(_OFTEN) else 1
        await cluster.up(name, {FAIL_POINTS: f"{point}=exit@{nth}"})
    ends = [asyncio.ensure_future(cluster.processes[name].wait()) for name in chosen]
    await asyncio.wait(ends, timeout=_PATIENCE)
    for end in ends:
        end.cancel()
    cluster.tallies.fail_point_exits += sum(cluster.processes[name].returncode == EXIT_STATUS for name in chosen)
    # So that nobody dies later of what this fault left.
    await cluster.kill(chosen)
    for name in chosen:
        await cluster.up(name)


async def _install(cluster: Cluster, rng: random.Random, point: str) -> None:
    """Keep a member away until the others' logs no longer reach back to it, and let it die while it catches up."""
    name = rng.choice(NAMES)
    others = [other for other in NAMES if other != name]
    await cluster.kill([name])
    before = {other: _snapshots(cluster, other) for other in others}
    # On a busy machine there may be too few writes for that: then the step has its turn another time.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_AWAY):
            await happens(lambda: all(_snapshots(cluster, other) >= before[other] + 3 for other in others))
    await _die(cluster, {name: point}, rng)


def _snapshots(cluster: Cluster, name: str) -> int:
    return cluster.output(name).count("took a snapshot up to")
