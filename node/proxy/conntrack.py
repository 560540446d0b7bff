"""Flows that connection tracking remembers: UDP clients that would go on talking to an endpoint that is gone.

The kernel translates the packets of a known flow as it did the first one, whatever the rules say by now. TCP ends by
itself; a UDP client that keeps sending from one port would never reach another endpoint.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import NamedTuple, Protocol

from node.network.links import Links
from node.network.netlink import Netlink, NetlinkError
from node.proxy.model import PortRoute, Target

log = logging.getLogger(__name__)

# linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
_NETLINK_NETFILTER = 12
_GET, _DELETE = 0x0101, 0x0102
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_TUPLE_ORIGINAL, _TUPLE_REPLY, _ZONE, _FILTER = 1, 2, 18, 25
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_IP_SOURCE, _IP_DESTINATION = 1, 2
_PROTOCOL_NUMBER, _PROTOCOL_SOURCE_PORT, _PROTOCOL_DESTINATION_PORT = 1, 2, 3
_FILTER_ORIGINAL_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
_FILTER_BY_PROTOCOL = 1 << 3
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


class Flow(NamedTuple):
    """A tracked flow: where its client sends to, and who answers. `original` is what the kernel knows it by."""

    destination: Target
    answerer: Target
    original: bytes


@dataclass
class Expected:
    """Where the UDP ports of changed Services may lead by now."""

    addresses: dict[Target, set[Target]] = field(default_factory=dict)
    node_ports: dict[int, set[Target]] = field(default_factory=dict)

    def add(self, route: PortRoute, *, gone: bool = False) -> None:
        """Note a route of a Service; one that is gone leads nowhere."""
        if route.protocol != "udp":
            return
        inside = set() if gone else set(route.internal)
        outside = set() if gone else {*route.external, *route.endpoints}
        for address in route.cluster_ips:
            self.addresses.setdefault(Target(address, route.port), set()).update(inside)
        for address in (*route.external_ips, *route.ingress_ips):
            self.addresses.setdefault(Target(address, route.port), set()).update(outside)
        if route.node_port:
            self.node_ports.setdefault(route.node_port, set()).update(outside)

    def is_stale(self, flow: Flow, own: Callable[[IPv4Address], bool]) -> bool:
        """Whether the flow leads where it should not any more. `own` tells the addresses of this host."""
        allowed = self.addresses.get(flow.destination)
        if allowed is None and own(flow.destination.address):
            allowed = self.node_ports.get(flow.destination.port)
        return allowed is not None and flow.answerer not in allowed

    def __bool__(self) -> bool:
        return bool(self.addresses or self.node_ports)


class Flows(Protocol):
    """The connection tracking of this host."""

    async def clear_stale(self, expected: Expected) -> int:
        """Forget the flows that lead elsewhere than expected; returns how many those were.

        Raises:
            OSError: when the kernel refuses.
        """
        ...


class KernelFlows:
    """Implements `Flows` over netlink, without a process per flow."""

    async def clear_stale(self, expected: Expected) -> int:
        """As `Flows.clear_stale`."""
        if not expected:
            return 0
        return await asyncio.to_thread(_clear_stale, expected)


def _clear_stale(expected: Expected) -> int:
    links = Links()
    try:
        own = links.own_addresses()
    finally:
        links.close()
    with Netlink(_NETLINK_NETFILTER) as netlink:
        stale = [flow for flow in udp_flows(netlink) if expected.is_stale(flow, own.__contains__)]
        for flow in stale:
            _delete(netlink, flow)
    if stale:
        log.info("forgot %d UDP flows to endpoints that are gone", len(stale))
    return len(stale)


def udp_flows(netlink: Netlink) -> Iterator[Flow]:
    """Every tracked UDP flow of IPv4."""

    def encode(sequence: int) -> bytes:
        protocol = _attribute(_PROTOCOL_NUMBER, bytes([socket.IPPROTO_UDP]))
        original = _nested(_TUPLE_ORIGINAL, _nested(_TUPLE_PROTOCOL, protocol))
        # Kernels since 5.8 leave out the rest themselves; older ones ignore the filter.
        flags = _attribute(_FILTER_ORIGINAL_FLAGS, struct.pack("=I", _FILTER_BY_PROTOCOL))
        flags += _attribute(_FILTER_REPLY_FLAGS, struct.pack("=I", 0))
        return _message(_GET, _REQUEST | _DUMP, sequence, original + _nested(_FILTER, flags))

    for data in netlink.dump_raw("listing flows", encode):
        flow = _parse(data)
        if flow is not None:
            yield flow


def _parse(data: bytes) -> Flow | None:
    attributes = _attributes(data, _HEADER.size + 4, len(data))
    original, reply = attributes.get(_TUPLE_ORIGINAL), attributes.get(_TUPLE_REPLY)
    if original is None or reply is None:
        return None
    sent, answered = _tuple(original), _tuple(reply)
    if sent is None or answered is None:
        return None
    zone = attributes.get(_ZONE)
    identity = _nested(_TUPLE_ORIGINAL, original) + (_attribute(_ZONE, zone) if zone else b"")
    return Flow(sent[1], answered[0], identity)


def _tuple(data: bytes) -> tuple[Target, Target] | None:
    """Sender and receiver of one direction; None when it is not UDP over IPv4."""
    parts = _attributes(data, 0, len(data))
    ip = _attributes(parts.get(_TUPLE_IP, b""))
    protocol = _attributes(parts.get(_TUPLE_PROTOCOL, b""))
    if protocol.get(_PROTOCOL_NUMBER, b"\0")[0] != socket.IPPROTO_UDP:
        return None
    source, destination = ip.get(_IP_SOURCE), ip.get(_IP_DESTINATION)
    if source is None or destination is None:
        return None
    (source_port,) = struct.unpack("!H", protocol[_PROTOCOL_SOURCE_PORT])
    (destination_port,) = struct.unpack("!H", protocol[_PROTOCOL_DESTINATION_PORT])
    return Target(IPv4Address(source), source_port), Target(IPv4Address(destination), destination_port)


def _delete(netlink: Netlink, flow: Flow) -> None:
    try:
        netlink.run_raw("forgetting a flow", lambda n: _message(_DELETE, _REQUEST | _ACK, n, flow.original))
    except NetlinkError as error:
        # It ended by itself meanwhile.
        log.debug("%s", error)


def _message(kind: int, flags: int, sequence: int, attributes: bytes) -> bytes:
    body = struct.pack("=BBH", socket.AF_INET, 0, 0) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (-length % 4)


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)


def _attributes(data: bytes, offset: int = 0, end: int | None = None) -> Mapping[int, bytes]:
    end = len(data) if end is None else end
    found: dict[int, bytes] = {}
    while offset + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found
