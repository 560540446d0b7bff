"""What a Service means on this node: which addresses lead to which endpoints, and by which policy. Pure.

Backends compile this; they never look at a Service themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from kybern.api.types import Endpoint, EndpointSlice, Service, ServicePort
from kybern.key import Key

log = logging.getLogger(__name__)

# Services with this annotation are answered by the node itself (the cluster DNS).
NODE_LOCAL = "kybern.io/node-local"
# Services with this label are some other proxy's.
OTHER_PROXY = "service.kubernetes.io/service-proxy-name"

PROTOCOLS = ("tcp", "udp", "sctp")


class Target(NamedTuple):
    """An endpoint's address and port."""

    address: IPv4Address
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class PortRoute:
    """One port of a Service."""

    service: Key
    name: str
    protocol: str
    port: int
    cluster_ips: tuple[IPv4Address, ...]
    # Addresses from outside: externalIPs, and those of the load balancer (open to `sources` alone; None: to everybody).
    external_ips: tuple[IPv4Address, ...]
    ingress_ips: tuple[IPv4Address, ...]
    sources: tuple[IPv4Network, ...] | None
    # On every address of the node; 0 when it has none.
    node_port: int
    # Seconds for which a client stays with its endpoint; 0 for no affinity.
    affinity: int
    # The endpoints that serve now: those of the cluster, and those of this node alone.
    endpoints: tuple[Target, ...]
    local: tuple[Target, ...]
    # Whether clients inside, and those outside, get this node's endpoints alone.
    internal_local: bool
    external_local: bool

    @property
    def internal(self) -> tuple[Target, ...]:
        """The endpoints for clients of the ClusterIP."""
        return self.local if self.internal_local else self.endpoints

    @property
    def external(self) -> tuple[Target, ...]:
        """The endpoints for clients from outside."""
        return self.local if self.external_local else self.endpoints

    @property
    def has_external(self) -> bool:
        """Whether it can be reached from outside at all."""
        return bool(self.node_port or self.external_ips or self.ingress_ips)

    @property
    def label(self) -> str:
        """`namespace/name:port`, for comments and logs."""
        return f"{self.service}:{self.name or self.port}"


def resolve(service: Service, slices: Iterable[EndpointSlice], node: str) -> tuple[PortRoute, ...]:
    """The routes of a Service on the node of that name; none when there is nothing to route."""
    spec = service.spec
    cluster_ips = _addresses(service, "clusterIPs", spec.cluster_ips or (spec.cluster_ip,))
    if not cluster_ips or spec.type == "ExternalName" or _is_left_alone(service):
        return ()
    affinity = 0
    if spec.session_affinity == "ClientIP":
        config = spec.session_affinity_config
        affinity = config.client_ip.timeout_seconds if config and config.client_ip else 10800
    ingress = [i.ip for i in service.status.load_balancer.ingress if i.ip and i.ip_mode != "Proxy"]
    present = list(slices)
    routes = []
    for port in spec.ports:
        protocol = port.protocol.lower()
        if protocol not in PROTOCOLS or not _is_port(port.port):
            log.warning("service %s: port %s/%s cannot be routed", service.key, port.port, port.protocol)
            continue
        endpoints, local = _endpoints(port, present, node)
        routes.append(
            PortRoute(
                service=service.key,
                name=port.name,
                protocol=protocol,
                port=port.port,
                cluster_ips=cluster_ips,
                external_ips=_addresses(service, "externalIPs", spec.external_ips),
                ingress_ips=_addresses(service, "ingress", ingress) if spec.type == "LoadBalancer" else (),
                sources=_sources(service, spec.load_balancer_source_ranges),
                node_port=port.node_port if spec.type in ("NodePort", "LoadBalancer") else 0,
                affinity=affinity,
                endpoints=endpoints,
                local=local,
                internal_local=spec.internal_traffic_policy == "Local",
                external_local=spec.external_traffic_policy == "Local",
            )
        )
    return tuple(routes)


def _is_left_alone(service: Service) -> bool:
    return service.metadata.annotations.get(NODE_LOCAL) == "true" or OTHER_PROXY in service.metadata.labels


def _endpoints(
    port: ServicePort, slices: Sequence[EndpointSlice], node: str
) -> tuple[tuple[Target, ...], tuple[Target, ...]]:
    """The endpoints of a port that serve now: in the cluster, and on the node."""
    everywhere: list[tuple[Endpoint, Target]] = []
    for found in slices:
        if found.address_type != "IPv4":
            continue
        for offered in found.ports:
            if offered.name == port.name and offered.protocol == port.protocol and _is_port(offered.port):
                everywhere += _targets(found.endpoints, offered.port or 0)
    here = [(endpoint, target) for endpoint, target in everywhere if endpoint.node_name == node]
    return _serving(everywhere), _serving(here)


def _targets(endpoints: Iterable[Endpoint], port: int) -> Iterable[tuple[Endpoint, Target]]:
    for endpoint in endpoints:
        # All addresses of an endpoint are the same pod; by convention the first is used.
        for address in endpoint.addresses[:1]:
            try:
                yield endpoint, Target(IPv4Address(address), port)
            except ValueError:
                log.warning("the endpoint address %r is not an IPv4 address", address)


def _serving(candidates: Collection[tuple[Endpoint, Target]]) -> tuple[Target, ...]:
    """The ready ones; when there are none, those that still serve while they end (better than nobody)."""
    chosen = {target for endpoint, target in candidates if endpoint.conditions.ready is not False}
    if not chosen:
        chosen = {
            target
            for endpoint, target in candidates
            if endpoint.conditions.terminating and endpoint.conditions.serving is not False
        }
    return tuple(sorted(chosen))


def _is_port(number: int | None) -> bool:
    return number is not None and 0 < number < 65536


def _addresses(service: Service, field: str, texts: Iterable[str]) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses among the texts; those of other families are not this node's to route."""
    found = []
    for text in texts:
        if not text or text == "None" or ":" in text:
            continue
        try:
            found.append(IPv4Address(text))
        except ValueError:
            log.warning("service %s: %s: %r is not an address", service.key, field, text)
    return tuple(dict.fromkeys(found))


def _sources(service: Service, texts: Sequence[str]) -> tuple[IPv4Network, ...] | None:
    """The IPv4 ranges among the texts. A list without any is a closed door, no list an open one."""
    if not texts:
        return None
    found = []
    for text in texts:
        if ":" in text:
            continue
        try:
            found.append(IPv4Network(text.strip(), strict=False))
        except ValueError:
            log.warning("service %s: loadBalancerSourceRanges: %r is not a range", service.key, text)
    return tuple(found)
