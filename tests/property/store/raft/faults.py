"""Faults that come in the midst of a round, last for a while, and meet the leader more often than others.

A world has much of some of them and nothing of the others: where everything fails at once, little gets so far that it
could go wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from store.raft import failpoints
from tests.property.store.raft.hosts import Process

if TYPE_CHECKING:
    from tests.property.store.raft.test_hosts import Cluster

_STEPS = [
    name
    for name in failpoints.NAMES
    if name.partition(".")[0] in ("append", "segment", "vote", "apply", "snapshot", "trim", "install")
]
# Where a leader's snapshot, or a member's own, is interrupted.
_SNAPSHOT_STEPS = [name for name in _STEPS if name.partition(".")[0] in ("snapshot", "trim", "install")]


class Faults:
    """Those of one world."""

    def __init__(self, world: Cluster) -> None:
        self._world = world
        rng = world.rng
        # How many of each there are in a round; which begin is drawn anew in each.
        often = (0.0, 0.0, 0.2, 0.6)
        self._kinds: list[tuple[Callable[[], Coroutine[None, None, None]], float]] = [
            (kind, rng.choice(often))
            for kind in (
                self._slow_link,
                self._one_way,
                self._break_connections,
                self._flap,
                self._die,
                self._slow_disk,
                self._pause,
                self._strike_leader,
            )
        ]
        self._changes = rng.choice((0, 0, 1, 4))
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, change: Callable[[], None]) -> None:
        """Those of a round; `change` asks for some change of members."""
        rng, loop = self._world.rng, self._world.hosts.loop
        self._tasks = [task for task in self._tasks if not task.done()]
        works = [kind() for kind, rate in self._kinds if rng.random() < rate]
        works += [self._change(change) for _ in range(self._changes)]
        self._tasks += [loop.create_task(work) for work in works]

    async def end(self) -> None:
        """Wait for those that go on."""
        await asyncio.gather(*self._tasks)

    # --- each of them

    async def _moment(self, most: float = 1.5) -> None:
        await asyncio.sleep(self._world.rng.random() * most)

    async def _change(self, change: Callable[[], None]) -> None:
        await self._moment()
        change()

    def _somebody(self) -> Process | None:
        """One that runs, the leader in every other case."""
        world = self._world
        leaders = [name for name, life in world.lives.items() if life.node.is_leader]
        if leaders and world.rng.random() < 0.5:
            return world.lives[world.rng.choice(leaders)].process
        return world.lives[world.rng.choice(list(world.lives))].process if world.lives else None

    def _pair(self) -> tuple[str, str] | None:
        names = list(self._world.configs)
        if len(names) < 2:
            return None
        one, other = self._world.rng.sample(names, 2)
        return one, other

    async def _slow_link(self) -> None:
        """What is sent one way, or both, takes long."""
        await self._moment()
        pair, rng, slow = self._pair(), self._world.rng, self._world.hosts.slow
        if pair is not None:
            pairs = rng.choice(([pair], [pair, pair[::-1]]))
            slow |= dict.fromkeys(pairs, rng.choice((0.1, 0.5, 1.5)))
            await self._moment(10)
            for each in pairs:
                slow.pop(each, None)

    async def _one_way(self) -> None:
        """Of what one sends another, nothing arrives."""
        await self._moment()
        pair, blocked = self._pair(), self._world.hosts.blocked
        if pair is not None:
            blocked.add(pair)
            await self._moment(10)
            blocked.discard(pair)

    async def _break_connections(self) -> None:
        """Connections break, again and again."""
        rng = self._world.rng
        for _ in range(rng.randrange(1, 10)):
            await self._moment(rng.choice((0.2, 1.0)))
            process = self._somebody()
            if process is not None and process.ends:
                rng.choice(list(process.ends)).abort()

    async def _flap(self) -> None:
        """A member is started again and again."""
        world = self._world
        await self._moment()
        process = self._somebody()
        name = process.name if process is not None else ""
        for _ in range(world.rng.randrange(1, 5)):
            if name in world.lives:
                world.kill(name)
            await self._moment(world.rng.choice((0.1, 1.0)))
            if name in world.configs and name not in world.lives and name not in world.removed:
                world.start(name)
            await self._moment(world.rng.choice((0.3, 3.0)))

    async def _die(self) -> None:
        """A member dies at some step of what it does next."""
        await self._moment()
        process, rng = self._somebody(), self._world.rng
        if process is not None:
            process.dies_at = rng.choice(rng.choice((_STEPS, _SNAPSHOT_STEPS)))
            process.passes = rng.choice((0, 0, 1, 3))

    async def _slow_disk(self) -> None:
        """Writes take long, or none comes back for a while; at times on all members."""
        await self._moment()
        rng = self._world.rng
        lives = [life.process for life in self._world.lives.values()]
        process = self._somebody()
        chosen = lives if rng.random() < 0.1 else [process] if process is not None else []
        slow, hangs = rng.choice(((0.5, False), (2.0, False), (4.0, False), (0.002, True)))
        before = [each.slow for each in chosen]
        for each in chosen:
            each.slow, each.disk_hangs = slow, each.disk_hangs or hangs
        await self._moment(8)
        for each, usual in zip(chosen, before, strict=True):
            each.slow, each.disk_hangs = usual, False

    async def _pause(self) -> None:
        """A process stops, for a moment or for long."""
        await self._moment()
        process = self._somebody()
        if process is not None and not process.stopped:
            process.stop()
            process.held = True
            await self._moment(self._world.rng.choice((0.5, 3.0, 40.0)))
            process.held = False
            process.resume()

    async def _strike_leader(self) -> None:
        """The leader is killed, stopped, or cut off, wholly or in one direction."""
        await self._moment()
        world, rng = self._world, self._world.rng
        leaders = [name for name, life in world.lives.items() if life.node.is_leader]
        if not leaders:
            return
        name, fate = rng.choice(leaders), rng.randrange(4)
        if fate == 0:
            world.kill(name)
        elif fate == 1:
            process = world.lives[name].process
            process.stop()
            await self._moment(4)
            process.resume()
        else:
            others = [other for other in world.configs if other != name]
            ways = [(name, other) for other in others], [(other, name) for other in others]
            cut = {*ways[0], *ways[1]} if fate == 2 else set(rng.choice(ways))
            world.hosts.blocked |= cut
            await self._moment(6)
            world.hosts.blocked -= cut
