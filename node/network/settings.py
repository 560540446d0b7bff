"""What the parts of the node's network must agree on, out of the node's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from kybern.config.models import NodeConfig
from kybern.daemon import StartupError


@dataclass(frozen=True)
class NetworkSettings:
    """Ranges and addresses of the cluster, and who this node is."""

    node: str
    address: IPv4Address
    # All pods of the cluster; a node's own range is part of it.
    pods: IPv4Network
    services: IPv4Network
    dns: IPv4Address
    domain: str


def settings_of(config: NodeConfig) -> NetworkSettings:
    """The settings in a node's configuration.

    Raises:
        StartupError: when an address or a range is not valid, or two ranges overlap; the text names the field.
    """
    cluster = config.cluster
    pods = _network("cluster.pod_cidr", cluster.pod_cidr)
    services = _network("cluster.service_cidr", cluster.service_cidr)
    dns = _address("cluster.dns_address", cluster.dns_address)
    address = _address("address", config.address)
    if pods.overlaps(services):
        raise StartupError(f"cluster.pod_cidr {pods} and cluster.service_cidr {services} overlap; they must not")
    if dns not in services:
        raise StartupError(f"cluster.dns_address {dns} is not in cluster.service_cidr {services}")
    if address in pods or address in services:
        raise StartupError(f"address {address} lies in the range of the pods or of the services; it must not")
    domain = cluster.domain.strip(".").lower()
    if not domain:
        raise StartupError("cluster.domain is empty; it is what service names end in, such as cluster.local")
    return NetworkSettings(config.name, address, pods, services, dns, domain)


def _network(field: str, text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise StartupError(f"{field}: {text!r} is not an IPv4 range: {error}") from error


def _address(field: str, text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError as error:
        raise StartupError(f"{field}: {text!r} is not an IPv4 address") from error
