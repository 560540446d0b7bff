"""The masters that live: each keeps a key with a store lease under /kybern/masters/, which goes when it does."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Sequence
from typing import NamedTuple

from kybern.client.store import Put, StoreClient, StoreRefused, StoreUnavailable, prefix_end
from master.apiserver import keys

log = logging.getLogger(__name__)

# Seconds after which a master that does not renew is taken for dead, and between renewals.
TTL = 6
RENEWAL = 2.0


class Address(NamedTuple):
    """Where a master serves the REST API."""

    host: str
    port: int


class Registration:
    """Keeps this master's key."""

    def __init__(self, store: StoreClient, name: str, address: str) -> None:
        self._store = store
        self._key = keys.MASTERS + name.encode()
        self._address = address.encode()
        self._lease = 0

    async def run(self) -> None:
        """Renew until cancelled, then take the key away."""
        try:
            while True:
                try:
                    await self._renew()
                except (StoreUnavailable, StoreRefused) as error:
                    log.warning("cannot renew this master's registration: %s", error)
                    self._lease = 0
                await asyncio.sleep(RENEWAL)
        finally:
            await self._leave()

    async def _renew(self) -> None:
        if self._lease and await self._store.lease_keep_alive(self._lease):
            return
        # The first time, or after we were stopped or cut off for longer than the lease.
        self._lease = await self._store.lease_grant(TTL)
        await self._store.txn((), [Put(self._key, self._address, self._lease)])

    async def _leave(self) -> None:
        if self._lease:
            try:
                async with asyncio.timeout(1.0):
                    await self._store.lease_revoke(self._lease)
            except (StoreUnavailable, StoreRefused, TimeoutError) as error:
                log.info("this master's registration ends with its lease: %s", error)


def _reachable(host: str) -> bool:
    """Whether pods can be sent there: endpoints must not lie on loopback, where masters of a single host may listen."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_link_local)


async def living(store: StoreClient) -> Sequence[Address]:
    """Where the living masters serve, in order; addresses that endpoints cannot have are left out.

    Raises:
        StoreUnavailable: when the store does not answer.
    """
    found = await store.range(keys.MASTERS, prefix_end(keys.MASTERS))
    addresses = set()
    for pair in found.items:
        host, _, port = pair.value.decode("utf-8", "replace").rpartition(":")
        if port.isdecimal() and _reachable(host.strip("[]")):
            addresses.add(Address(host.strip("[]"), int(port)))
    return sorted(addresses)
