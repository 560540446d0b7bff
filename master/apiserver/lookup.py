"""What admission and authorization ask of the stored objects: the cache first, the store when the cache knows nothing.

The cache may be a little behind what another API server has just written. Whoever is about to refuse a request
because of what an object says reads it again with `fresh`.
"""

from __future__ import annotations

from collections.abc import Iterable

from kybern.api import resources
from kybern.api.resources import Resource
from master.apiserver.cache.cacher import Cacher
from master.apiserver.entry import Entry
from master.apiserver.storage import Storage


class Lookup:
    """Reads single objects for the API server itself; nobody's permissions are asked."""

    def __init__(self, cacher: Cacher, storage: Storage) -> None:
        self._cacher = cacher
        self._storage = storage

    async def get(self, resource: Resource, namespace: str, name: str) -> Entry | None:
        """An object, perhaps a little old."""
        return self.cached(resource, namespace, name) or await self.fresh(resource, namespace, name)

    async def fresh(self, resource: Resource, namespace: str, name: str) -> Entry | None:
        """An object as of now."""
        return await self._storage.read(resource, namespace, name)

    async def catch_up(self) -> None:
        """Wait until the cache holds everything that was stored before this call."""
        await self._cacher.fresh()

    def cached(self, resource: Resource, namespace: str, name: str) -> Entry | None:
        """An object as the cache has it."""
        return self._cacher.of(resource).get(namespace, name) if self._cacher.ready else None

    def pods_of_node(self, node: str) -> Iterable[Entry]:
        """The pods that the cache knows on a node."""
        return self._cacher.of(resources.PODS).at_index(node) if self._cacher.ready else ()
