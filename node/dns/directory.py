"""What the zone is made from: Services, EndpointSlices and nodes, found by name and by address."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address
from typing import Protocol

from kybern.api.types import Endpoint, EndpointSlice, Node, Service
from kybern.key import Key
from node.network.informers import NetworkInformers, service_of

_NAMESPACE, _ADDRESS = "dns-namespace", "dns-address"


class Directory(Protocol):
    """Read access to the cluster's state; every call is local."""

    def service(self, key: Key) -> Service | None:
        """The Service of that key."""
        ...

    def slices(self, service: Key) -> Iterable[EndpointSlice]:
        """The EndpointSlices of a Service."""
        ...

    def has_namespace(self, name: str) -> bool:
        """Whether a namespace has any Service."""
        ...

    def service_at(self, address: IPv4Address) -> Service | None:
        """The Service with that cluster address."""
        ...

    def endpoints_at(self, address: IPv4Address) -> Iterable[tuple[Key, Endpoint]]:
        """The endpoints with that address, with the key of their Service."""
        ...

    def is_node(self, address: IPv4Address) -> bool:
        """Whether a node has that address."""
        ...


class InformerDirectory:
    """Implements `Directory` over the shared informers."""

    def __init__(self, informers: NetworkInformers) -> None:
        self._informers = informers
        informers.services.index(_NAMESPACE, lambda s: [s.namespace])
        informers.services.index(_ADDRESS, _cluster_ips)
        informers.slices.index(_ADDRESS, _endpoint_addresses)
        informers.nodes.index(_ADDRESS, lambda n: [n.internal_ip] if n.internal_ip else [])

    @property
    def is_complete(self) -> bool:
        """Whether all that exists is known; until then a missing name means nothing."""
        return self._informers.has_synced

    def service(self, key: Key) -> Service | None:
        """As `Directory.service`."""
        return self._informers.services.get(key)

    def slices(self, service: Key) -> Iterable[EndpointSlice]:
        """As `Directory.slices`."""
        return self._informers.slices_of(service)

    def has_namespace(self, name: str) -> bool:
        """As `Directory.has_namespace`."""
        return bool(self._informers.services.indexed(_NAMESPACE, name))

    def service_at(self, address: IPv4Address) -> Service | None:
        """As `Directory.service_at`; of several the first by name (the API gives an address to one)."""
        found = self._informers.services.indexed(_ADDRESS, str(address))
        return min(found, key=lambda s: s.key, default=None)

    def endpoints_at(self, address: IPv4Address) -> Iterable[tuple[Key, Endpoint]]:
        """As `Directory.endpoints_at`."""
        for endpoints in self._informers.slices.indexed(_ADDRESS, str(address)):
            for endpoint in endpoints.endpoints:
                if str(address) in endpoint.addresses:
                    yield service_of(endpoints), endpoint

    def is_node(self, address: IPv4Address) -> bool:
        """As `Directory.is_node`."""
        return bool(self._informers.nodes.indexed(_ADDRESS, str(address)))

    def on_change(self, handler: Callable[[Sequence[str]], None]) -> None:
        """Call `handler` with the tags (see `Answer.tags`) of everything that changes."""

        def service_changed(old: Service | None, new: Service | None) -> None:
            tags = []
            for state in (old, new):
                if state is not None:
                    tags += [service_tag(state.key), namespace_tag(state.namespace)]
                    tags += map(address_tag, _cluster_ips(state))
                    # What its endpoints' addresses are called depends on it as well.
                    for endpoints in self.slices(state.key):
                        tags += map(address_tag, _endpoint_addresses(endpoints))
            handler(tags)

        def slice_changed(old: EndpointSlice | None, new: EndpointSlice | None) -> None:
            tags = []
            for state in (old, new):
                if state is not None:
                    tags += [service_tag(service_of(state)), *map(address_tag, _endpoint_addresses(state))]
            handler(tags)

        def node_changed(old: Node | None, new: Node | None) -> None:
            handler([address_tag(node.internal_ip) for node in (old, new) if node is not None])

        self._informers.services.on_change(service_changed)
        self._informers.slices.on_change(slice_changed)
        self._informers.nodes.on_change(node_changed)


def service_tag(key: Key) -> str:
    """The tag of answers that were made from a Service and its endpoints."""
    return f"service {key}"


def namespace_tag(name: str) -> str:
    """The tag of answers that depend on whether a namespace has Services."""
    return f"namespace {name}"


def address_tag(address: str) -> str:
    """The tag of answers that depend on who has an address."""
    return f"address {address}"


def _cluster_ips(service: Service) -> list[str]:
    return [ip for ip in service.spec.cluster_ips or (service.spec.cluster_ip,) if ip and ip != "None"]


def _endpoint_addresses(endpoints: EndpointSlice) -> list[str]:
    return [address for endpoint in endpoints.endpoints for address in endpoint.addresses]
