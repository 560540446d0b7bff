"""Which pods serve a Service, at which addresses and ports, and in what state. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kybern.api.types import Endpoint, EndpointConditions, EndpointPort, Pod, Service, ServicePort
from kybern.api.types.cluster import ObjectReference

IPV4 = "IPv4"
IPV6 = "IPv6"


@dataclass(frozen=True, slots=True)
class Group:
    """What the endpoints of one slice have in common."""

    address_type: str
    ports: tuple[EndpointPort, ...]


Groups = Mapping[Group, tuple[Endpoint, ...]]


def resolve(service: Service, pods: Iterable[Pod], zone: Callable[[str], str | None]) -> Groups:
    """The endpoints by group, in the order of their addresses. `zone` knows the zone of a node by its name."""
    found: dict[Group, dict[str, Endpoint]] = {}
    families = _families(service)
    for pod in pods:
        if pod.finished:
            continue
        ports = resolve_ports(service, pod)
        if service.spec.ports and not ports:
            continue
        for address in addresses(pod):
            group = Group(family(address), ports)
            if group.address_type in families:
                found.setdefault(group, {})[address] = endpoint(service, pod, address, zone)
    return {group: tuple(members[a] for a in sorted(members)) for group, members in found.items()}


def addresses(pod: Pod) -> tuple[str, ...]:
    """The pod's addresses; none before it has got one."""
    several = tuple(p.ip for p in pod.status.pod_ips if p.ip)
    return several or ((pod.status.pod_ip,) if pod.status.pod_ip else ())


def family(address: str) -> str:
    """The type of an address, as EndpointSlices name it."""
    return IPV6 if ":" in address else IPV4


def _families(service: Service) -> frozenset[str]:
    given = [a for a in (service.spec.cluster_ips or (service.spec.cluster_ip,)) if a and a != "None"]
    # A headless Service has no address that would tell; its pods have addresses of the cluster's families.
    return frozenset(map(family, given)) or frozenset((IPV4, IPV6))


def resolve_ports(service: Service, pod: Pod) -> tuple[EndpointPort, ...]:
    """The pod's ports behind the Service's; a named one that the pod does not have is left out."""
    return tuple(
        EndpointPort(name=port.name, protocol=port.protocol, port=number, app_protocol=port.app_protocol)
        for port in service.spec.ports
        if (number := _number(port, pod)) is not None
    )


def _number(port: ServicePort, pod: Pod) -> int | None:
    if isinstance(port.target_port, str):
        named = (
            p.container_port
            for container in pod.spec.containers
            for p in container.ports
            if p.name == port.target_port and p.protocol == port.protocol
        )
        return next(named, None)
    return port.target_port or port.port


def endpoint(service: Service, pod: Pod, address: str, zone: Callable[[str], str | None]) -> Endpoint:
    """What a slice says of a pod."""
    serving = pod.ready
    ready = service.spec.publish_not_ready_addresses or (serving and not pod.deleting)
    return Endpoint(
        addresses=(address,),
        conditions=EndpointConditions(ready=ready, serving=serving, terminating=pod.deleting),
        hostname=hostname(service, pod),
        node_name=pod.spec.node_name or None,
        target_ref=reference(pod),
        zone=zone(pod.spec.node_name) if pod.spec.node_name else None,
    )


def hostname(service: Service, pod: Pod) -> str | None:
    """The pod's name in DNS under the Service; None when it has none there."""
    return pod.spec.hostname or None if pod.spec.subdomain == service.name else None


def reference(pod: Pod) -> ObjectReference:
    """Points to the pod."""
    return ObjectReference(kind="Pod", namespace=pod.namespace, name=pod.name, uid=pod.uid)


def facts(pod: Pod) -> object:
    """All of a pod that endpoints depend on: whatever else changes in it is of no concern."""
    ports = [(p.name, p.container_port, p.protocol) for c in pod.spec.containers for p in c.ports if p.name]
    return (
        pod.metadata.labels,
        pod.uid,
        addresses(pod),
        pod.ready,
        pod.deleting,
        pod.finished,
        pod.spec.node_name,
        ports,
    )
