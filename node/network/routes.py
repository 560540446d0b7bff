"""Routes to the other nodes' pods, and to the services' range.

Nodes that share a link reach each other's pods directly: one route per node, by way of its InternalIP. All routes carry
a protocol number of our own; by it they are found again and removed.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

from pyroute2.netlink.rtnl import RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from kybern.api.types import Node
from node.network.addresses import parse_address, parse_network
from node.network.netlink import REPLACE, Netlink, NetlinkError, Request, message, read

log = logging.getLogger(__name__)

# `proto 75` in the output of `ip route`; numbers from 5 up are free for routing daemons (rtnetlink(7)).
PROTOCOL = 75

_MAIN_TABLE = 254
_SCOPE_GLOBAL, _SCOPE_LINK = 0, 253
_UNICAST = 1


@dataclass(frozen=True)
class Route:
    """One route. With a gateway: by way of that host. Without: on the bridge, sent from `source`."""

    destination: IPv4Network
    gateway: IPv4Address | None = None
    source: IPv4Address | None = None


class Reach(Protocol):
    """How packets get to other nodes' pods. Direct routes now; a tunnel would be another one."""

    def plan(self, nodes: Iterable[Node], own: str) -> Mapping[IPv4Network, Route]:
        """The routes that this node needs, by destination."""
        ...

    @property
    def overhead(self) -> int:
        """Bytes that it adds to every packet; pods' MTU is smaller by that."""
        ...


class DirectReach:
    """Routes by way of the node's InternalIP."""

    overhead = 0

    def plan(self, nodes: Iterable[Node], own: str) -> Mapping[IPv4Network, Route]:
        """One route per other node that has a range and an address. Of two nodes with one range neither gets it."""
        planned: dict[IPv4Network, Route] = {}
        disputed: set[IPv4Network] = set()
        for node in sorted(nodes, key=lambda n: n.name):
            gateway = parse_address(node.internal_ip)
            if node.name == own or gateway is None or not node.spec.pod_cidr:
                continue
            try:
                destination = parse_network(node.spec.pod_cidr)
            except ValueError as error:
                log.warning("node %s: spec.podCIDR: %s", node.name, error)
                continue
            if destination in planned:
                disputed.add(destination)
            planned[destination] = Route(destination, gateway)
        return {destination: route for destination, route in planned.items() if destination not in disputed}


class RouteTable:
    """Our routes in the kernel's main table; for the thread that makes it."""

    def __init__(self) -> None:
        self._netlink = Netlink()
        self._warned: set[IPv4Network] = set()

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def sync(self, wanted: Mapping[IPv4Network, Route], bridge: int) -> None:
        """Make our routes those of `wanted`.

        A gateway that is not on a link of this host is left out with a warning: packets would be sent to a router that
        does not know the pods.

        Raises:
            NetlinkError: when the kernel refuses a route.
        """
        present = self.ours()
        requests = []
        kept = {}
        for destination, route in wanted.items():
            interface = self._interface(route, bridge)
            if interface is None:
                self._warn(route)
                continue
            self._warned.discard(destination)
            kept[destination] = route
            if present.get(destination) != (route, interface):
                requests.append(_request(RTM_NEWROUTE, route, interface))
        gone = [destination for destination in present if destination not in kept]
        requests += [_request(RTM_DELROUTE, Route(destination), None) for destination in gone]
        if requests:
            self._netlink.run(*requests)
            log.info("routes to other nodes: %d, changed %d", len(kept), len(requests))

    def ours(self) -> dict[IPv4Network, tuple[Route, int]]:
        """Every route of ours with the index of its interface, by destination."""
        found = {}
        request = Request("listing routes", RTM_GETROUTE, message(rtmsg, {"family": socket.AF_INET}))
        for data in self._netlink.dump(request):
            entry = read(rtmsg, data)
            if entry["proto"] != PROTOCOL or entry["table"] != _MAIN_TABLE:
                continue
            destination = IPv4Network((entry.get_attr("RTA_DST") or "0.0.0.0", entry["dst_len"]))
            gateway, source = entry.get_attr("RTA_GATEWAY"), entry.get_attr("RTA_PREFSRC")
            route = Route(destination, gateway and IPv4Address(gateway), source and IPv4Address(source))
            found[destination] = (route, entry.get_attr("RTA_OIF") or 0)
        return found

    def clear(self) -> None:
        """Remove every route of ours."""
        self._netlink.run(*(_request(RTM_DELROUTE, Route(destination), None) for destination in self.ours()))

    def _interface(self, route: Route, bridge: int) -> int | None:
        if route.gateway is None:
            return bridge
        request = Request(
            f"looking for the way to {route.gateway}",
            RTM_GETROUTE,
            message(rtmsg, {"family": socket.AF_INET, "dst_len": 32}, [("RTA_DST", str(route.gateway))]),
        )
        try:
            way = read(rtmsg, self._netlink.get(request))
        except NetlinkError as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
                return None
            raise
        # A way with a router in between, or one that ends on this host, is not a neighbour.
        if way.get_attr("RTA_GATEWAY") or way["type"] != _UNICAST:
            return None
        interface: int | None = way.get_attr("RTA_OIF")
        return interface

    def _warn(self, route: Route) -> None:
        if route.destination not in self._warned:
            self._warned.add(route.destination)
            log.warning(
                "pods in %s cannot be reached: their node %s is not on a link of this host",
                route.destination,
                route.gateway,
            )


def _request(kind: int, route: Route, interface: int | None) -> Request:
    adding = kind == RTM_NEWROUTE
    fields = {
        "family": socket.AF_INET,
        "dst_len": route.destination.prefixlen,
        "table": _MAIN_TABLE,
        "proto": PROTOCOL,
        # A deletion matches any scope only with RT_SCOPE_NOWHERE.
        "scope": 255 if not adding else _SCOPE_GLOBAL if route.gateway else _SCOPE_LINK,
        "type": _UNICAST,
    }
    attributes: list[tuple[str, str | int]] = [("RTA_DST", str(route.destination.network_address))]
    if interface is not None:
        attributes.append(("RTA_OIF", interface))
    if route.gateway is not None:
        attributes.append(("RTA_GATEWAY", str(route.gateway)))
    if route.source is not None:
        attributes.append(("RTA_PREFSRC", str(route.source)))
    return Request(
        f"{'adding' if adding else 'removing'} the route to {route.destination}",
        kind,
        message(rtmsg, fields, attributes),
        REPLACE if adding else 0,
        frozenset() if adding else frozenset({errno.ESRCH}),
    )
