"""Clients that take leases, attach keys to them, renew them for a while and then forget them."""

from __future__ import annotations

import asyncio
import random
import time

from kybern.client.etcd import EtcdClient
from kybern.client.store import Put, StoreRefused, StoreUnavailable
from tests.fault.store.history import History
from tests.fault.store.lease_check import KEYS, Lease

MAX_TTL = 3
_GONE = "lease not found"


class Tenant:
    """One client, with one lease after the other; `leases` is what it knows of them."""

    def __init__(self, name: str, client: EtcdClient, history: History, rng: random.Random) -> None:
        self._name = name
        self._client = client
        self._history = history
        self._rng = rng
        self._count = 0
        self.leases: list[Lease] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Take leases until told to stop."""
        while not stop.is_set():
            try:
                lease = await self._grant()
            except (StoreUnavailable, StoreRefused):
                await asyncio.sleep(0.05)
                continue
            self.leases.append(lease)
            for _ in range(self._rng.randint(1, 3)):
                await self._attach(lease)
            for _ in range(self._rng.randint(0, 4)):
                await self._idle(stop, self._rng.uniform(0.1, 0.9) * lease.ttl)
                if stop.is_set() or not await self._renew(lease):
                    break
            if self._rng.random() < 0.25 and not lease.refused:
                await self._revoke(lease)

    async def _grant(self) -> Lease:
        ttl = self._rng.choice((2, MAX_TTL))
        began = time.monotonic()
        number = await self._client.lease_grant(ttl)
        return Lease(number, ttl, [began], time.monotonic())

    async def _attach(self, lease: Lease) -> None:
        self._count += 1
        key = b"%s%s-%d" % (KEYS, self._name.encode(), self._count)
        lease.keys.append(key)
        put = self._history.begin(self._name, "put", key, value=key)
        try:
            result = await self._client.txn([], [Put(key, key, lease.id)])
        except StoreUnavailable:
            return
        except StoreRefused as refused:
            self._history.refuse(put)
            self._refused(lease, refused)
        else:
            self._history.end(put, result.revision)

    async def _renew(self, lease: Lease) -> bool:
        """Whether it is worth going on."""
        began = time.monotonic()
        try:
            renewed = await self._client.lease_keep_alive(lease.id)
        except StoreUnavailable:
            return True
        except StoreRefused as refused:
            self._refused(lease, refused)
            return False
        finally:
            lease.touched = time.monotonic()
        if renewed:
            lease.renewed.append(began)
        else:
            lease.refused.append(lease.touched)
        return renewed

    async def _revoke(self, lease: Lease) -> None:
        lease.revoked = time.monotonic()
        try:
            await self._client.lease_revoke(lease.id)
        except (StoreUnavailable, StoreRefused):
            # Then it ends by itself.
            return

    def _refused(self, lease: Lease, refused: StoreRefused) -> None:
        if _GONE not in str(refused):
            raise refused
        lease.refused.append(time.monotonic())

    async def _idle(self, stop: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await stop.wait()
        except TimeoutError:
            return
