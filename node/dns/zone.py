"""The cluster's zone, after the Kubernetes DNS specification. Pure: reads a directory and says what is in it.

| name (below the cluster domain) | records |
|---|---|
| `SVC.NS.svc` | A of the cluster address; headless: A of every ready endpoint; ExternalName: CNAME |
| `_PORT._PROTO.SVC.NS.svc` | SRV of named ports; headless: one per ready endpoint |
| `HOST.SVC.NS.svc` | A of the endpoint with that hostname (or `a-b-c-d` when it has none) |
| `a-b-c-d.NS.pod` | A of that address, when it is a pod's or a node's |
| `dns-version` | TXT |

and PTR for cluster addresses and endpoints.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from kybern.api.types import Endpoint, Service
from kybern.key import Key
from node.dns.directory import Directory, address_tag, namespace_tag, service_tag
from node.dns.records import (
    SCHEMA_VERSION,
    Answer,
    Labels,
    Rcode,
    Record,
    Srv,
    Type,
    dashed,
    labels_of,
    reverse_address,
    undashed,
)
from node.network.addresses import parse_address
from node.network.settings import NetworkSettings

_NO_DATA = Answer()
_NO_NAME = Answer(Rcode.NXDOMAIN)


class Zone:
    """Answers questions about the cluster; `None` for those that are somebody else's."""

    def __init__(self, settings: NetworkSettings, directory: Directory) -> None:
        self.apex = labels_of(settings.domain)
        self._settings = settings
        self._directory = directory

    @property
    def name_server(self) -> Labels:
        """The name of the server itself."""
        return ("ns", "dns", *self.apex)

    def owns(self, name: Labels) -> bool:
        """Whether nobody but this zone can know the name."""
        if name[-len(self.apex) :] == self.apex:
            return True
        address = reverse_address(name)
        return address is not None and (address in self._settings.services or address in self._settings.pods)

    def lookup(self, name: Labels, kind: int) -> Answer | None:
        """The answer to a question; the labels must be in lower case."""
        if name[-len(self.apex) :] == self.apex:
            return self._cluster_name(name[: -len(self.apex)], name, kind)
        address = reverse_address(name)
        return None if address is None else self._reverse(address, name, kind)

    # --- names below the apex

    def _cluster_name(self, relative: Labels, name: Labels, kind: int) -> Answer:
        match relative:
            case ():
                return self._at_apex(name, kind)
            case ("dns-version",):
                return _of_type(kind, Record(name, Type.TXT, SCHEMA_VERSION))
            case ("dns",) | ("svc",) | ("pod",):
                return _NO_DATA
            case ("ns", "dns"):
                return _of_type(kind, Record(name, Type.A, self._settings.dns))
            case (*rest, "svc"):
                return self._below_svc(tuple(rest), name, kind)
            case (*rest, "pod"):
                return self._below_pod(tuple(rest), name, kind)
        return _NO_NAME

    def _at_apex(self, name: Labels, kind: int) -> Answer:
        if kind == Type.SOA:
            return Answer(answers=(Record(name, Type.SOA, ""),))
        return _of_type(kind, Record(name, Type.NS, self.name_server))

    def _below_pod(self, rest: Labels, name: Labels, kind: int) -> Answer:
        if len(rest) == 1:
            return _NO_DATA
        address = undashed(rest[0]) if len(rest) == 2 else None
        if address is None:
            return _NO_NAME
        # Any address would do for the specification, but then anybody could make a certificate's name point anywhere.
        known = address in self._settings.pods or self._directory.is_node(address)
        found = _of_type(kind, Record(name, Type.A, address)) if known else _NO_NAME
        return _tagged(found, address_tag(str(address)))

    def _below_svc(self, rest: Labels, name: Labels, kind: int) -> Answer:
        if len(rest) == 1:
            found = _NO_DATA if self._directory.has_namespace(rest[0]) else _NO_NAME
            return _tagged(found, namespace_tag(rest[0]))
        key = Key(rest[-1], rest[-2])
        tag = service_tag(key)
        service = self._directory.service(key)
        if service is None:
            return _tagged(_NO_NAME, tag)
        match rest[:-2]:
            case ():
                return _tagged(self._service(service, name, kind), tag)
            case (protocol,) if protocol.startswith("_"):
                # Nothing is at this name, but something may be below it.
                exists = any(p.name and f"_{p.protocol.lower()}" == protocol for p in service.spec.ports)
                return _tagged(_NO_DATA if exists else _NO_NAME, tag)
            case (host,):
                return _tagged(self._endpoint(service, host, name, kind), tag)
            case (port, protocol) if port.startswith("_") and protocol.startswith("_"):
                return _tagged(self._srv(service, port[1:], protocol[1:], name, kind), tag)
        return _tagged(_NO_NAME, tag)

    # --- Services

    def _service(self, service: Service, name: Labels, kind: int) -> Answer:
        if service.spec.type == "ExternalName":
            target = labels_of(service.spec.external_name)
            return Answer(answers=(Record(name, Type.CNAME, target),), alias=target)
        if not service.spec.headless:
            records = [Record(name, Type.A, ip) for ip in _cluster_ips(service)]
            return _of_type(kind, *records, *self._all_ports(service, kind))
        ready = {address for address, _ in self._ready(service)}
        if not ready:
            # So says the specification, and clients go on with the next name of their search path.
            return _NO_NAME
        return _of_type(kind, *(Record(name, Type.A, a) for a in sorted(ready)), *self._all_ports(service, kind))

    def _all_ports(self, service: Service, kind: int) -> list[Record]:
        """The SRV records of all named ports, at the name of the Service itself (not specified, but widely used)."""
        if kind != Type.SRV:
            return []
        records: list[Record] = []
        for port in service.spec.ports:
            if port.name:
                answer = self._srv(service, port.name, port.protocol.lower(), self._name_of(service.key), kind)
                records += answer.answers
        return records

    def _endpoint(self, service: Service, host: str, name: Labels, kind: int) -> Answer:
        found = sorted({address for address, called in self._ready(service) if called == host})
        if not found:
            return _NO_NAME
        return _of_type(kind, *(Record(name, Type.A, address) for address in found))

    def _srv(self, service: Service, port: str, protocol: str, name: Labels, kind: int) -> Answer:
        found = next((p for p in service.spec.ports if (p.name, p.protocol.lower()) == (port, protocol)), None)
        if found is None or not port:
            return _NO_NAME
        if service.spec.headless:
            return self._srv_of_endpoints(service, port, protocol, name, kind)
        target = self._name_of(service.key)
        additional = tuple(Record(target, Type.A, ip) for ip in _cluster_ips(service))
        return _of_type(kind, Record(name, Type.SRV, Srv(found.port, target)), additional=additional)

    def _srv_of_endpoints(self, service: Service, port: str, protocol: str, name: Labels, kind: int) -> Answer:
        own = self._name_of(service.key)
        records: dict[Record, None] = {}
        additional: dict[Record, None] = {}
        for endpoints in self._directory.slices(service.key):
            numbers = [p.port for p in endpoints.ports if (p.name, p.protocol.lower()) == (port, protocol) and p.port]
            for address, host in _ready_in(endpoints.endpoints, everything=service.spec.publish_not_ready_addresses):
                for number in numbers:
                    records[Record(name, Type.SRV, Srv(number, (host, *own)))] = None
                    additional[Record((host, *own), Type.A, address)] = None
        if not records:
            return _NO_NAME
        return _of_type(kind, *sorted(records), additional=tuple(sorted(additional)))

    def _ready(self, service: Service) -> Iterable[tuple[IPv4Address, str]]:
        for endpoints in self._directory.slices(service.key):
            yield from _ready_in(endpoints.endpoints, everything=service.spec.publish_not_ready_addresses)

    # --- addresses

    def _reverse(self, address: IPv4Address, name: Labels, kind: int) -> Answer | None:
        tag = address_tag(str(address))
        service = self._directory.service_at(address)
        if service is not None:
            return _tagged(_of_type(kind, Record(name, Type.PTR, self._name_of(service.key))), tag)
        names = self._endpoint_names(address)
        if names:
            records = [Record(name, Type.PTR, target) for target in names]
            return _tagged(_of_type(kind, *records), tag)
        return _tagged(_NO_NAME, tag) if self.owns(name) else None

    def _endpoint_names(self, address: IPv4Address) -> list[Labels]:
        """The names of the ready endpoints with that address: those of headless Services, or else of any."""
        headless: set[Labels] = set()
        others: set[Labels] = set()
        for key, endpoint in self._directory.endpoints_at(address):
            service = self._directory.service(key)
            if service is None:
                continue
            for found, host in _ready_in([endpoint], everything=service.spec.publish_not_ready_addresses):
                if found == address:
                    (headless if service.spec.headless else others).add((host, *self._name_of(key)))
        return sorted(headless or others)

    def _name_of(self, service: Key) -> Labels:
        return (service.name, service.namespace, "svc", *self.apex)


def _of_type(kind: int, *records: Record, additional: tuple[Record, ...] = ()) -> Answer:
    """The records of the type that is asked for; the name exists in any case."""
    chosen = tuple(r for r in records if kind in (r.type, Type.ANY))
    return Answer(answers=chosen, additional=additional if chosen else ())


def _tagged(answer: Answer, tag: str) -> Answer:
    return Answer(answer.rcode, answer.answers, answer.additional, answer.alias, answer.tags | {tag})


def _cluster_ips(service: Service) -> list[IPv4Address]:
    texts = service.spec.cluster_ips or (service.spec.cluster_ip,)
    return [address for address in map(parse_address, texts) if address is not None]


def _ready_in(endpoints: Iterable[Endpoint], *, everything: bool) -> Iterable[tuple[IPv4Address, str]]:
    """Address and host name of every endpoint that is ready (or, when all are published, of every one)."""
    for endpoint in endpoints:
        if endpoint.conditions.ready is False and not everything:
            continue
        # Addresses of other kinds (IPv6, names) have no A record.
        for address in filter(None, map(parse_address, endpoint.addresses)):
            yield address, (endpoint.hostname or dashed(str(address))).lower()
