"""A small cluster for the tests of DNS: Services of every kind, in a directory in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any

from kybern.api.types import Endpoint, EndpointSlice, Service
from kybern.key import Key
from node.network.informers import service_of
from tests.unit.proxy.objects import as_service, as_slice, service_document, slice_document


class MemoryDirectory:
    """Implements `Directory` with loops."""

    is_complete = True

    def __init__(
        self,
        services: Iterable[Mapping[str, Any]] = (),
        slices: Iterable[Mapping[str, Any]] = (),
        nodes: Sequence[str] = ("192.168.7.11",),
    ) -> None:
        self.services: dict[Key, Service] = {s.key: s for s in map(as_service, services)}
        self.all_slices: list[EndpointSlice] = [as_slice(s) for s in slices]
        self.nodes = [IPv4Address(n) for n in nodes]

    def service(self, key: Key) -> Service | None:
        return self.services.get(key)

    def slices(self, service: Key) -> Iterable[EndpointSlice]:
        return [s for s in self.all_slices if service_of(s) == service]

    def has_namespace(self, name: str) -> bool:
        return any(key.namespace == name for key in self.services)

    def service_at(self, address: IPv4Address) -> Service | None:
        return next((s for s in self.services.values() if str(address) in s.spec.cluster_ips), None)

    def endpoints_at(self, address: IPv4Address) -> Iterable[tuple[Key, Endpoint]]:
        return [(service_of(s), e) for s in self.all_slices for e in s.endpoints if str(address) in e.addresses]

    def is_node(self, address: IPv4Address) -> bool:
        return address in self.nodes


def pod(address: str, hostname: str = "", *, ready: bool = True) -> dict[str, Any]:
    made: dict[str, Any] = {"addresses": [address], "conditions": {"ready": ready}}
    return {**made, "hostname": hostname} if hostname else made


SERVICES = [
    service_document("kubernetes", "10.96.0.1", ports=[{"name": "https", "port": 443}]),
    service_document(
        "web",
        "10.96.0.20",
        ports=[
            {"name": "http", "port": 80},
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"port": 9000, "protocol": "SCTP"},
        ],
    ),
    service_document("db", "None", namespace="prod", ports=[{"name": "sql", "port": 5432}]),
    service_document("early", "None", namespace="prod", publishNotReadyAddresses=True),
    service_document("empty", "None", namespace="prod"),
    service_document("outside", "", type="ExternalName", externalName="www.Example.org."),
    service_document("pending", ""),
]
SLICES = [
    slice_document([pod("10.244.1.5")], service="web", ports=[{"name": "http", "port": 8080}]),
    slice_document(
        [
            pod("10.244.1.6", "db-0"),
            pod("10.244.2.6", "db-1"),
            pod("10.244.2.7"),
            pod("10.244.2.8", "db-2", ready=False),
        ],
        service="db",
        namespace="prod",
        ports=[{"name": "sql", "port": 15432}],
    ),
    slice_document([pod("10.244.1.9", "e-0", ready=False)], service="early", namespace="prod"),
    slice_document([pod("10.244.1.10", ready=False)], service="empty", namespace="prod"),
]


def cluster() -> MemoryDirectory:
    return MemoryDirectory(SERVICES, SLICES)
