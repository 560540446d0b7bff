"""Store leases that Events live by: one per slot of time, shared by all events of the slot."""

from __future__ import annotations

import asyncio
import math

from kybern.api import resources
from kybern.api.resources import Resource
from kybern.client.store import StoreClient
from kybern.clock import Clock
from master.apiserver.storage import store_errors

_MOST_SLOT_SECONDS = 60.0


class EventLeases:
    """Gives out leases that last `ttl` seconds and at most a slot longer."""

    def __init__(self, store: StoreClient, ttl: float, clock: Clock) -> None:
        self._store = store
        self._ttl = ttl
        self._clock = clock
        self._slot = min(_MOST_SLOT_SECONDS, ttl / 10)
        self._number = -1
        self._lease = 0
        self._lock = asyncio.Lock()

    async def lease_for(self, resource: Resource) -> int:
        """The lease to store an object with; 0 for everything but Events.

        Raises:
            StatusError: 503 when the store does not answer.
        """
        if resource != resources.EVENTS:
            return 0
        number = math.floor(self._clock.monotonic() / self._slot)
        async with self._lock:
            if number != self._number:
                async with store_errors():
                    self._lease = await self._store.lease_grant(math.ceil(self._ttl + self._slot))
                self._number = number
            return self._lease

    def forget(self) -> None:
        """The present lease has ended before its time: the store was restored, or its clock jumped."""
        self._number = -1
