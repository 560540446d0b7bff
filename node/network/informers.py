"""What the network's parts read of the API: one informer per kind, shared by routes, service routing and DNS."""

from __future__ import annotations

from collections.abc import Callable, Collection

from kybern.api.types import EndpointSlice, Node, Service
from kybern.client import kinds
from kybern.client.informer import Informer, Informers
from kybern.key import Key

# Index of the EndpointSlices by the Service that they belong to.
BY_SERVICE = "service"


class NetworkInformers:
    """Services with their EndpointSlices, and nodes."""

    def __init__(self, informers: Informers) -> None:
        self.services: Informer[Service] = informers.of(kinds.SERVICES)
        self.slices: Informer[EndpointSlice] = informers.of(kinds.ENDPOINT_SLICES)
        self.nodes: Informer[Node] = informers.of(kinds.NODES)
        self.slices.index(BY_SERVICE, lambda s: [str(service_of(s))] if s.service else [])

    def slices_of(self, service: Key) -> Collection[EndpointSlice]:
        """The EndpointSlices of a Service. A live view: do not await while iterating over it."""
        return self.slices.indexed(BY_SERVICE, str(service))

    def on_service_change(self, handler: Callable[[Key], None]) -> None:
        """Call `handler` with the key of every Service that changed, itself or by its endpoints."""

        def service_changed(old: Service | None, new: Service | None) -> None:
            state = new or old
            if state is not None:
                handler(state.key)

        def slice_changed(old: EndpointSlice | None, new: EndpointSlice | None) -> None:
            for key in {service_of(s) for s in (old, new) if s is not None and s.service}:
                handler(key)

        self.services.on_change(service_changed)
        self.slices.on_change(slice_changed)

    @property
    def has_synced(self) -> bool:
        """Whether all that is known by now is all that there is."""
        return self.services.has_synced and self.slices.has_synced and self.nodes.has_synced

    async def synced(self) -> None:
        """Wait until every first list has been read."""
        for informer in (self.services, self.slices, self.nodes):
            await informer.synced()


def service_of(endpoints: EndpointSlice) -> Key:
    """The key of the Service that a slice belongs to."""
    return Key(endpoints.namespace, endpoints.service)
