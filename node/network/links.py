"""The node's bridge and the veth pairs of its pods: what is asked of the kernel, and what is read back from it.

A pod's host-side interface carries the sandbox and the address in its alias, so the kernel's list of interfaces is all
the memory that the pod network has. Pods have a /32 and reach everything, their neighbours on the bridge included,
through the gateway: the answer of a pod to another pod of its node passes the node's IP layer like every other packet,
and the connection tracking that undoes a service's address translation sees it, with or without
bridge-nf-call-iptables.
"""

from __future__ import annotations

import errno
import hashlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from pyroute2.netlink.rtnl import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
)
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from node.network.addresses import mac_of
from node.network.netlink import (
    CREATE,
    EXCLUSIVE,
    REPLACE,
    Attributes,
    Netlink,
    NetlinkError,
    Request,
    in_namespace,
    message,
    read,
)

BRIDGE = "kyb0"
# Host-side interfaces: the prefix and twelve hexadecimal digits fill the fifteen characters that a name may have.
PORT_PREFIX = "kyv"
POD_INTERFACE = "eth0"

_ALIAS = "kybern"
_UP = {"flags": 1, "change": 1}
_LOOPBACK = 1
_MAIN_TABLE = 254
_SCOPE_GLOBAL, _SCOPE_LINK, _SCOPE_HOST = 0, 253, 254
_UNICAST = 1
_STATIC = 4
# A dump of links without the statistics (RTEXT_FILTER_SKIP_STATS).
_SKIP_STATISTICS = ("IFLA_EXT_MASK", 8)
_HAIRPIN = (
    "IFLA_LINKINFO",
    {
        "attrs": [
            ("IFLA_INFO_SLAVE_KIND", "bridge"),
            ("IFLA_INFO_SLAVE_DATA", {"attrs": [("IFLA_BRPORT_MODE", 1)]}),
        ]
    },
)


@dataclass(frozen=True)
class Port:
    """A pod's interface on the host; `sandbox` is empty when its wiring was never finished."""

    name: str
    sandbox: str
    address: IPv4Address | None
    master: int


@dataclass(frozen=True)
class Uplink:
    """The interface that leads to the other nodes."""

    name: str
    index: int
    mtu: int


def port_name(sandbox: str) -> str:
    """The host-side interface of a sandbox."""
    return PORT_PREFIX + hashlib.sha256(sandbox.encode()).hexdigest()[:12]


def alias_of(sandbox: str, address: IPv4Address) -> str:
    """What the host-side interface says about its pod."""
    return f"{_ALIAS}:{address}:{sandbox}"


def parse_alias(alias: str) -> tuple[str, IPv4Address] | None:
    """Sandbox and address out of an alias; None when it is not one of ours."""
    mark, _, rest = alias.partition(":")
    address, _, sandbox = rest.partition(":")
    if mark != _ALIAS or not sandbox:
        return None
    try:
        return sandbox, IPv4Address(address)
    except ValueError:
        return None


class Links:
    """Makes and reads links in the network namespace of the thread that makes it; not for use by several threads."""

    def __init__(self) -> None:
        self._netlink = Netlink()

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    # --- the bridge

    def ensure_bridge(self, gateway: IPv4Interface, local: Iterable[IPv4Address], mtu: int) -> int:
        """Make the bridge, or make it right; returns its index.

        `local` are further addresses that the node answers on (the cluster DNS); they get the scope of the host, so
        that nothing sends from them by itself. Addresses of an earlier range are taken away once no pod has one.
        """
        self._netlink.run(
            Request(
                f"making the bridge {BRIDGE}",
                RTM_NEWLINK,
                message(
                    ifinfmsg,
                    _UP,
                    [
                        ("IFLA_IFNAME", BRIDGE),
                        ("IFLA_MTU", mtu),
                        # Without an address of its own a bridge takes the lowest of its ports', and changes it as
                        # pods come and go: every pod would lose its gateway for as long as its neighbour entry lives.
                        ("IFLA_ADDRESS", mac_of(gateway.ip)),
                        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]}),
                    ],
                ),
                CREATE,
            )
        )
        index = self.index(BRIDGE)
        self._address_bridge(index, gateway, list(local))
        self._adopt(index)
        return index

    def _address_bridge(self, index: int, gateway: IPv4Interface, local: list[IPv4Address]) -> None:
        wanted = {gateway: _SCOPE_GLOBAL} | {IPv4Interface(address): _SCOPE_HOST for address in local}
        present = self.addresses_of(index)
        used = [port.address for port in self.ports() if port.address is not None]
        stale = [a for a in present if a not in wanted and not any(pod in a.network for pod in used)]
        self._netlink.run(
            *(self._address(RTM_NEWADDR, index, a, scope) for a, scope in wanted.items() if a not in present),
            *(self._address(RTM_DELADDR, index, a, _SCOPE_GLOBAL) for a in stale),
        )

    def _adopt(self, bridge: int) -> None:
        """Put pods' interfaces back that lost their bridge."""
        lost = [port.name for port in self.ports() if port.master != bridge]
        self._netlink.run(*(self._change(name, [("IFLA_MASTER", bridge)]) for name in lost))
        self._netlink.run(*(self._change(name, [_HAIRPIN]) for name in lost))

    # --- pods

    def wire(self, sandbox: str, address: IPv4Address, gateway: IPv4Address, namespace: int, mtu: int) -> None:
        """Connect the network namespace of that file descriptor to the bridge.

        Raises:
            NetlinkError: when the kernel refuses; the host-side interface may be left then (see `unwire`).
        """
        name = port_name(sandbox)
        peer = [
            ("IFLA_IFNAME", POD_INTERFACE),
            ("IFLA_MTU", mtu),
            ("IFLA_ADDRESS", mac_of(address)),
            ("IFLA_NET_NS_FD", namespace),
        ]
        pair = [
            ("IFLA_IFNAME", name),
            ("IFLA_MTU", mtu),
            ("IFLA_MASTER", self.index(BRIDGE)),
            (
                "IFLA_LINKINFO",
                {
                    "attrs": [
                        ("IFLA_INFO_KIND", "veth"),
                        ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", {"attrs": peer})]}),
                    ]
                },
            ),
        ]
        self._netlink.run(
            Request(f"making {name} for {sandbox}", RTM_NEWLINK, message(ifinfmsg, _UP, pair), EXCLUSIVE),
            # The alias cannot be given when the link is made.
            self._change(name, [("IFLA_IFALIAS", alias_of(sandbox, address)), _HAIRPIN]),
        )
        self._address_pod(address, gateway, namespace)

    def is_wired(self, sandbox: str, address: IPv4Address, gateway: IPv4Address, namespace: int) -> bool:
        """Whether the sandbox's interface leads into that namespace; completes what a crash left unfinished."""
        if self._index_or_none(port_name(sandbox)) is None:
            return False
        if in_namespace(namespace, lambda: _hardware_address(POD_INTERFACE)) != mac_of(address):
            return False
        self._address_pod(address, gateway, namespace)
        return True

    def unwire(self, sandbox: str) -> None:
        """Take the sandbox's interface away, if there is one; its other end goes with it."""
        self.remove(port_name(sandbox))

    def ports(self) -> list[Port]:
        """The host-side interfaces of all pods."""
        found = []
        for data in self._netlink.dump(
            Request("listing links", RTM_GETLINK, message(ifinfmsg, {}, [_SKIP_STATISTICS]))
        ):
            link = read(ifinfmsg, data)
            name = link.get_attr("IFLA_IFNAME")
            if not name.startswith(PORT_PREFIX):
                continue
            pod = parse_alias(link.get_attr("IFLA_IFALIAS") or "")
            master = link.get_attr("IFLA_MASTER") or 0
            found.append(Port(name, pod[0] if pod else "", pod[1] if pod else None, master))
        return found

    def _address_pod(self, address: IPv4Address, gateway: IPv4Address, namespace: int) -> None:
        def open_inside() -> tuple[Netlink, int]:
            return Netlink(), socket.if_nametoindex(POD_INTERFACE)

        inside, index = in_namespace(namespace, open_inside)
        with inside:
            inside.run(
                Request("raising lo", RTM_NEWLINK, message(ifinfmsg, {"index": _LOOPBACK, **_UP})),
                Request(f"raising {POD_INTERFACE}", RTM_NEWLINK, message(ifinfmsg, {"index": index, **_UP})),
                self._address(RTM_NEWADDR, index, IPv4Interface(address), _SCOPE_GLOBAL),
                _route(index, gateway, None),
                _route(index, None, gateway),
            )

    # --- any link

    def remove(self, name: str) -> None:
        """Delete a link, if it exists."""
        request = Request(
            f"removing {name}",
            RTM_DELLINK,
            message(ifinfmsg, {}, [("IFLA_IFNAME", name)]),
            ignore=frozenset({errno.ENODEV}),
        )
        self._netlink.run(request)

    def index(self, name: str) -> int:
        """The index of a link.

        Raises:
            NetlinkError: when there is no such link.
        """
        index = self._index_or_none(name)
        if index is None:
            raise NetlinkError(errno.ENODEV, f"looking for {name}")
        return index

    def addresses_of(self, index: int) -> list[IPv4Interface]:
        """The IPv4 addresses of a link."""
        return [interface for i, interface in self._addresses() if i == index]

    def own_addresses(self) -> set[IPv4Address]:
        """The IPv4 addresses of all links."""
        return {interface.ip for _, interface in self._addresses()}

    def uplink(self, address: IPv4Address) -> Uplink | None:
        """The interface that has the node's address; None when none but the loopback interface has it."""
        links = (i for i, interface in self._addresses() if interface.ip == address and i != _LOOPBACK)
        index = next(links, None)
        if index is None:
            return None
        request = Request("reading the uplink", RTM_GETLINK, message(ifinfmsg, {"index": index}, [_SKIP_STATISTICS]))
        link = read(ifinfmsg, self._netlink.get(request))
        return Uplink(link.get_attr("IFLA_IFNAME"), index, link.get_attr("IFLA_MTU"))

    def _addresses(self) -> list[tuple[int, IPv4Interface]]:
        request = Request("listing addresses", RTM_GETADDR, message(ifaddrmsg, {"family": socket.AF_INET}))
        found = []
        for data in self._netlink.dump(request):
            entry = read(ifaddrmsg, data)
            found.append((entry["index"], IPv4Interface((entry.get_attr("IFA_LOCAL"), entry["prefixlen"]))))
        return found

    def _index_or_none(self, name: str) -> int | None:
        try:
            return socket.if_nametoindex(name)
        except OSError:
            return None

    def _change(self, name: str, attributes: Attributes) -> Request:
        return Request(f"changing {name}", RTM_NEWLINK, message(ifinfmsg, _UP, [("IFLA_IFNAME", name), *attributes]))

    def _address(self, kind: int, index: int, interface: IPv4Interface, scope: int) -> Request:
        fields = {"family": socket.AF_INET, "prefixlen": interface.network.prefixlen, "index": index, "scope": scope}
        attributes = [("IFA_LOCAL", str(interface.ip)), ("IFA_ADDRESS", str(interface.ip))]
        adding = kind == RTM_NEWADDR
        return Request(
            f"{'adding' if adding else 'removing'} the address {interface}",
            kind,
            message(ifaddrmsg, fields, attributes),
            REPLACE if adding else 0,
            frozenset() if adding else frozenset({errno.EADDRNOTAVAIL}),
        )


def _route(index: int, destination: IPv4Address | None, gateway: IPv4Address | None) -> Request:
    """A pod's route: the gateway is on the link, everything else is behind it."""
    fields = {
        "family": socket.AF_INET,
        "dst_len": 0 if destination is None else 32,
        "table": _MAIN_TABLE,
        "proto": _STATIC,
        "scope": _SCOPE_GLOBAL if gateway is not None else _SCOPE_LINK,
        "type": _UNICAST,
    }
    attributes: list[tuple[str, str | int]] = [("RTA_OIF", index)]
    if destination is not None:
        attributes.append(("RTA_DST", str(destination)))
    if gateway is not None:
        attributes.append(("RTA_GATEWAY", str(gateway)))
    return Request("routing the pod", RTM_NEWROUTE, message(rtmsg, fields, attributes), REPLACE)


def _hardware_address(name: str) -> str:
    """The hardware address of a link in the calling thread's namespace; empty when there is no such link."""
    with Netlink() as inside:
        try:
            data = inside.get(Request(f"reading {name}", RTM_GETLINK, message(ifinfmsg, {}, [("IFLA_IFNAME", name)])))
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return ""
            raise
    address: str = read(ifinfmsg, data).get_attr("IFLA_ADDRESS") or ""
    return address
