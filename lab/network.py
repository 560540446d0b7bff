"""Hosts out of network namespaces, on a bridge in a namespace of its own.

The bridge is not in the machine's namespace, whose packet filter would see the hosts' frames there (a Docker engine
sets the policy of FORWARD to DROP). The machine has one link into the bridge, so that what runs on it reaches the
hosts. The bridge's namespace is also the hosts' default gateway, which says "unreachable" to whatever would leave:
hosts need a default route, or connections of their own to service addresses would fail before they are rewritten.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from lab.commands import run
from lab.errors import LabError
from lab.names import Names

NETNS = Path("/run/netns")
BRIDGE = "br0"
UPLINK = "eth0"
# Where labs take their networks from; each takes a /24.
POOL = [IPv4Network("10.99.0.0/16"), IPv4Network("10.98.0.0/16"), IPv4Network("10.97.0.0/16")]
# Numbers within a lab's /24.
MACHINE, FIRST_MASTER, FIRST_NODE, GATEWAY = 1, 11, 101, 254


@dataclass(frozen=True, slots=True)
class Subnet:
    """Addresses of one lab."""

    network: IPv4Network

    @property
    def machine(self) -> str:
        """The machine itself, as the hosts see it; also where the lab's balancer listens."""
        return str(self.network[MACHINE])

    @property
    def gateway(self) -> str:
        """The bridge."""
        return str(self.network[GATEWAY])

    def host(self, name: str) -> str:
        """The address of `m1`, `n1` and so on."""
        first = FIRST_MASTER if name.startswith("m") else FIRST_NODE
        return str(self.network[first + int(name[1:]) - 1])


def free_subnet(taken: Iterable[IPv4Network]) -> Subnet:
    """The first /24 of the pool that overlaps nothing in `taken`.

    Raises:
        LabError: when there is none.
    """
    used = list(taken)
    for pool in POOL:
        for candidate in pool.subnets(new_prefix=24):
            if not any(candidate.overlaps(other) for other in used):
                return Subnet(candidate)
    raise LabError("there is no free network for the lab in 10.97.0.0 to 10.99.255.255")


def networks_in_use() -> list[IPv4Network]:
    """What the machine has addresses in or routes to, but for its default route."""
    found = []
    for route in json.loads(run("ip", "-json", "-4", "route", "show", "table", "all") or "[]"):
        with contextlib.suppress(ValueError):
            found.append(IPv4Network(route["dst"], strict=False))
    return [network for network in found if network.prefixlen > 0]


def create(names: Names, subnet: Subnet, hosts: Iterable[str]) -> None:
    """Make the bridge and all hosts. What is left when it fails is for `remove`.

    Raises:
        LabError: when a link or namespace cannot be made.
    """
    switch, length = names.switch, subnet.network.prefixlen
    run("ip", "netns", "add", switch)
    _batch(
        switch,
        f"link add {BRIDGE} type bridge forward_delay 0",
        f"address add {subnet.gateway}/{length} dev {BRIDGE}",
        f"link set {BRIDGE} up",
        "link set lo up",
        "route add unreachable default",
    )
    _sysctl(switch, "net/ipv4/ip_forward", "1")  # or packets to the outside would get no answer at all
    run("ip", "link", "add", names.link, "type", "veth", "peer", "name", "machine", "netns", switch)
    run("ip", "address", "add", f"{subnet.machine}/{length}", "dev", names.link)
    run("ip", "link", "set", names.link, "up")
    _batch(switch, f"link set machine master {BRIDGE} up")
    for host in hosts:
        _create_host(names, subnet, host)


def _create_host(names: Names, subnet: Subnet, host: str) -> None:
    namespace = names.namespace(host)
    run("ip", "netns", "add", namespace)
    _batch(
        names.switch,
        f"link add {host} type veth peer name {UPLINK} netns {namespace}",
        f"link set {host} master {BRIDGE} up",
    )
    _batch(
        namespace,
        "link set lo up",
        f"address add {subnet.host(host)}/{subnet.network.prefixlen} dev {UPLINK}",
        f"link set {UPLINK} up",
        f"route add default via {subnet.gateway}",
    )


def set_link(names: Names, host: str, *, up: bool) -> None:
    """Pull a host's cable, or plug it in again.

    Raises:
        LabError: when the lab has no such host.
    """
    _batch(names.switch, f"link set {host} {'up' if up else 'down'}")


def cut_hosts(names: Names) -> set[str]:
    """The hosts whose cable is pulled."""
    text = run("ip", "-netns", names.switch, "-json", "link", "show", "master", BRIDGE, check=False)
    return {link["ifname"] for link in json.loads(text or "[]") if "UP" not in link["flags"]}


def namespaces(names: Names) -> list[str]:
    """The lab's namespaces that there are."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(path.name for path in NETNS.iterdir() if names.owns(path.name))
    return []


def links(names: Names) -> list[str]:
    """The lab's links in the machine's namespace."""
    return [names.link] if (Path("/sys/class/net") / names.link).exists() else []


def remove(names: Names) -> Iterator[str]:
    """Delete the lab's namespaces with all their links, and the machine's link. Yields what was removed."""
    for link in links(names):
        run("ip", "link", "delete", link, check=False)
        yield f"link {link}"
    for namespace in namespaces(names):
        run("ip", "netns", "delete", namespace)
        yield f"namespace {namespace}"


def enter(names: Names, host: str, *command: str) -> list[str]:
    """The command line that runs `command` on a host.

    nsenter, not `ip netns exec`: that one mounts another /sys, which has no cgroups, and dockerd needs them.
    """
    return ["nsenter", f"--net={NETNS / names.namespace(host)}", "--", *command]


def _batch(namespace: str, *lines: str) -> None:
    run("ip", "-netns", namespace, "-batch", "-", stdin="\n".join(lines) + "\n")


def _sysctl(namespace: str, name: str, value: str) -> None:
    run("nsenter", f"--net={NETNS / namespace}", "--", "tee", f"/proc/sys/{name}", stdin=value)
