"""Members of the store that came after this master's configuration was written: asked for again and again."""

from __future__ import annotations

import asyncio
import logging

from kybern.client.etcd import EtcdClient
from kybern.client.store import StoreRefused, StoreUnavailable

log = logging.getLogger(__name__)

_INTERVAL = 60.0


async def follow_members(store: EtcdClient) -> None:
    """Keep the client acquainted with the store's members, until cancelled.

    Were those gone that the configuration names, it would find nobody, though the others are a majority. They are known
    for as long as this process lives: a master keeps nothing on disk.
    """
    while True:
        try:
            await store.learn_members()
        except (StoreUnavailable, StoreRefused) as error:
            log.debug("the store does not say who its members are: %s", error)
        await asyncio.sleep(_INTERVAL)
