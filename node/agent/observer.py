"""Knows what runs: reads the runtime again whenever something happened, and every few seconds all the same.

One reading at a time serves all who wait. Workers are woken when what concerns their pod has changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kybern.backoff import Backoff
from node.network.interface import NetworkError, PodNetwork
from node.runtime.interface import Container, Runtime, RuntimeFailure, Sandbox

log = logging.getLogger(__name__)

# Events can be lost; this is how long that stays unnoticed.
RELIST_INTERVAL = 10.0
# Changes that come close together are read together.
_GATHER = 0.02


@dataclass(frozen=True, slots=True)
class Seen:
    """What the runtime has of one pod."""

    sandboxes: tuple[Sandbox, ...] = ()
    containers: tuple[Container, ...] = ()


_NOTHING = Seen()


class Observer:
    """`run` keeps it up to date; `seen` is what was read last."""

    def __init__(self, runtime: Runtime, network: PodNetwork) -> None:
        self._runtime = runtime
        self._network = network
        self._pods: dict[str, Seen] = {}
        # Addresses by sandbox; `attach` results are noted at once.
        self._addresses: dict[str, str] = {}
        self._wanted = asyncio.Event()
        self._begun = 0
        self._done = 0
        self._progress = asyncio.Condition()
        self._handlers: list[Callable[[str], None]] = []
        # Why the runtime could not be read; empty when it could.
        self.problem = "the runtime has not been read yet"

    def on_change(self, handler: Callable[[str], None]) -> None:
        """Call `handler` with the uid of every pod of which something is different."""
        self._handlers.append(handler)

    def seen(self, uid: str) -> Seen:
        """What the runtime had of a pod when it was last read."""
        return self._pods.get(uid, _NOTHING)

    def pods(self) -> Mapping[str, Seen]:
        """Everything that the runtime had."""
        return self._pods

    def address(self, sandbox_id: str) -> str:
        """The address of a sandbox; empty when it has none."""
        return self._addresses.get(sandbox_id, "")

    def note_address(self, sandbox_id: str, address: str) -> None:
        """A sandbox was attached (or detached: empty)."""
        if address:
            self._addresses[sandbox_id] = address
        else:
            self._addresses.pop(sandbox_id, None)

    async def fresh(self) -> None:
        """Wait for a reading that begins after this call; for as long as the runtime is away."""
        number = self._begun + 1
        self._wanted.set()
        async with self._progress:
            await self._progress.wait_for(lambda: self._done >= number)

    async def run(self) -> None:
        """Follow the runtime until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(), name="runtime-events")
            tasks.create_task(self._tick(), name="relist")
            tasks.create_task(self._read_for_ever(), name="runtime-reader")

    async def _listen(self) -> None:
        backoff = Backoff(base=0.5, cap=5.0)
        while True:
            try:
                async for _ in self._runtime.events():
                    backoff.reset()
                    self._wanted.set()
            except RuntimeFailure as failure:
                log.info("the runtime's events ended: %s", failure)
            await asyncio.sleep(backoff.next())
            self._wanted.set()

    async def _tick(self) -> None:
        while True:
            self._wanted.set()
            await asyncio.sleep(RELIST_INTERVAL)

    async def _read_for_ever(self) -> None:
        backoff = Backoff(base=0.2, cap=5.0)
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            self._begun += 1
            number = self._begun
            try:
                await self._read()
            except RuntimeFailure as failure:
                if not self.problem:
                    log.warning("the container runtime does not answer: %s", failure)
                self.problem = str(failure)
                # Who waits for this reading waits for the next one that succeeds.
                self._wanted.set()
                await asyncio.sleep(backoff.next())
                continue
            if self.problem and number > 1:
                log.info("the container runtime answers")
            self.problem = ""
            backoff.reset()
            async with self._progress:
                self._done = number
                self._progress.notify_all()
            await asyncio.sleep(_GATHER)

    async def _read(self) -> None:
        # In this order: a container is never seen without the sandbox that was made before it.
        containers = await self._runtime.containers()
        sandboxes = await self._runtime.sandboxes()
        try:
            addresses = await self._network.addresses()
        except NetworkError as error:
            log.warning("cannot read the pods' addresses: %s", error)
            addresses = self._addresses
        changed = {s.pod.uid for s in sandboxes if s.ready and addresses.get(s.id) != self._addresses.get(s.id)}
        self._addresses = dict(addresses)
        parts: defaultdict[str, tuple[list[Sandbox], list[Container]]] = defaultdict(lambda: ([], []))
        for sandbox in sandboxes:
            parts[sandbox.pod.uid][0].append(sandbox)
        for container in containers:
            parts[container.pod.uid][1].append(container)
        before = self._pods
        self._pods = {
            uid: Seen(
                tuple(sorted(s, key=lambda x: (x.attempt, x.id))), tuple(sorted(c, key=lambda x: (x.attempt, x.id)))
            )
            for uid, (s, c) in parts.items()
        }
        for uid in changed | {u for u in before.keys() | self._pods.keys() if before.get(u) != self._pods.get(u)}:
            for handler in self._handlers:
                handler(uid)
