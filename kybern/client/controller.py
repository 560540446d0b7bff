"""What every controller is made of: informers, a queue, workers and back-off.

A controller says what it watches and which keys a change concerns, and reconciles one key at a time. The runtime keeps
one key with one worker, waits until the caches have seen the controller's own last writes, and tries again after
errors.
"""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from kybern.api.errors import Reason, StatusError
from kybern.api.types.base import Object
from kybern.client.acting import ActingClient, LeadershipLost
from kybern.client.events import EventRecorder
from kybern.client.informer import Informer, Informers
from kybern.client.interface import Client, Fence
from kybern.client.kinds import Kind
from kybern.client.queue import WorkQueue
from kybern.clock import Clock, SystemClock
from kybern.config.models import Cluster
from kybern.key import Key

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Object)

# Longest wait for a cache to see the controller's own writes; after that the cache is believed to be as good as it gets
# (an object that was written may lie outside of what the informer watches).
CACHE_WAIT = 5.0
# Shortest wait that `reconcile` may ask for: a rest that only rounding leaves would be asked for again and again.
SHORTEST = 0.01


@dataclass
class ControllerContext:
    """What the controllers of one process share during one reign."""

    client: Client
    informers: Informers
    cluster: Cluster = field(default_factory=Cluster)
    clock: Clock = field(default_factory=SystemClock)
    rng: random.Random = field(default_factory=random.Random)
    fence: Callable[[], Fence] | None = None

    def acting(self, name: str) -> ActingClient:
        """A client whose writes carry the component's name and the reign's fence."""
        return ActingClient(self.client, name, self.fence)


class Controller(ABC):
    """Subclasses set `name`, call `watch` in their `__init__`, and implement `reconcile`."""

    name: ClassVar[str]
    workers: ClassVar[int] = 4

    def __init__(self, context: ControllerContext) -> None:
        self.context = context
        self.clock = context.clock
        self.client = context.acting(self.name)
        self.events = EventRecorder(self.client, self.name, context.clock)
        self.queue: WorkQueue[Key] = WorkQueue(rng=context.rng)
        self._informers: list[Informer[Any]] = []
        self._endings: list[Callable[[], None]] = []

    def watch(
        self,
        kind: Kind[T],
        keys: Callable[[T], Iterable[Key]] | None = None,
        *,
        facts: Callable[[T], object] | None = None,
        delay: float = 0.0,
    ) -> Informer[T]:
        """Read a kind, and reconcile the keys that `keys` gives for an object whenever it changes.

        Without `keys` the object's own key is reconciled. Both the state before and after a change are asked for keys.
        With `facts` a change that leaves them as they were is none. `delay` is how many seconds changes are gathered.
        """
        informer = self.context.informers.of(kind)
        concerned = keys or (lambda changed: (changed.key,))

        def on_change(old: T | None, new: T | None) -> None:
            if facts is not None and old is not None and new is not None and facts(old) == facts(new):
                return
            for state in (old, new):
                if state is not None:
                    for key in concerned(state):
                        self.queue.add_after(key, delay)

        self._endings.append(informer.on_change(on_change))
        self._informers.append(informer)
        return informer

    def read(self, kind: Kind[T]) -> Informer[T]:
        """Read a kind without reconciling anything when it changes."""
        informer = self.context.informers.of(kind)
        self._informers.append(informer)
        return informer

    @abstractmethod
    async def reconcile(self, key: Key) -> float | None:
        """Bring the object of that key one step nearer to what is wanted; idempotent.

        Returns the seconds after which to look again without any change, or None. Raises StatusError when a write was
        refused: the runtime tries again later.
        """

    def close(self) -> None:
        """Stop listening to changes: nothing is queued any more. The informers go on for others."""
        for end in self._endings:
            end()
        self._endings.clear()
        self.queue.close()

    async def run(self) -> None:
        """Reconcile until cancelled."""
        for informer in self._informers:
            await informer.synced()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.events.run(), name=f"{self.name}-events")
                for number in range(self.workers):
                    tasks.create_task(self._work(), name=f"{self.name}-{number}")
        finally:
            self.queue.close()

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self._caught_up()
                again = await self.reconcile(key)
            except LeadershipLost:
                # The reign is over; whoever cancels this task is on the way.
                log.info("%s: %s not reconciled, this process no longer leads", self.name, key)
            except StatusError as error:
                wait = self.queue.retry(key)
                # Lost races are the ordinary way of optimistic concurrency.
                level = logging.DEBUG if error.reason in (Reason.CONFLICT, Reason.ALREADY_EXISTS) else logging.WARNING
                log.log(level, "%s: %s: %s; trying again in %.2f s", self.name, key, error, wait)
            except Exception:
                wait = self.queue.retry(key)
                log.exception("%s: %s failed; trying again in %.2f s", self.name, key, wait)
            else:
                self.queue.forget(key)
                if again is not None:
                    self.queue.add_after(key, max(again, SHORTEST) if again > 0 else 0.0)
            finally:
                self.queue.done(key)

    async def _caught_up(self) -> None:
        for informer in self._informers:
            revision = self.client.written.get(informer.kind.resource, 0)
            if informer.revision < revision:
                try:
                    async with asyncio.timeout(CACHE_WAIT):
                        await informer.reached(revision)
                except TimeoutError:
                    log.info("%s: the cache of %s has not reached %d", self.name, informer.kind, revision)
