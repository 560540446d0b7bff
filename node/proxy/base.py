"""The rules that hold without any Service: forwarding of pods, masquerading, and the frame that services hang in. Pure.

Marks: packets that came from outside carry 0x8000 from the `nat` table to POSTROUTING.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from node.network.links import BRIDGE
from node.network.settings import NetworkSettings
from node.proxy.compiler import (
    CLUSTER_IPS,
    DROP,
    EXTERNAL_IPS,
    FILTER,
    FROM_OUTSIDE,
    HAIRPIN,
    MARK_OUTSIDE,
    NAT,
    NODE_PORTS,
    NOT_LOOPBACK,
    REFUSED,
    REJECT,
)
from node.proxy.rules import Chain, Compiled, Hook

SERVICES = Chain(NAT, "KYB-SERVICES")
POSTROUTING = Chain(NAT, "KYB-POSTROUTING")
EGRESS = Chain(NAT, "KYB-EGRESS")
FORWARD = Chain(FILTER, "KYB-FORWARD")
INPUT = Chain(FILTER, "KYB-INPUT")
OUTPUT = Chain(FILTER, "KYB-OUTPUT")

ACCEPT = "-j ACCEPT"
MASQUERADE = "-j MASQUERADE --random-fully"
_NEW = "-m conntrack --ctstate NEW"
_MULTICAST = "224.0.0.0/4"


def _hook(table: str, chain: str, target: Chain) -> Hook:
    return Hook(Chain(table, chain), f"-m comment --comment kybern -j {target.name}")


HOOKS = (
    _hook(NAT, "PREROUTING", SERVICES),
    _hook(NAT, "OUTPUT", SERVICES),
    _hook(NAT, "POSTROUTING", POSTROUTING),
    _hook(FILTER, "INPUT", INPUT),
    # At the top: a Docker engine sets the policy of FORWARD to DROP, and what its chains do not know falls through.
    _hook(FILTER, "FORWARD", FORWARD),
    _hook(FILTER, "OUTPUT", OUTPUT),
)


def compile_base(settings: NetworkSettings, nodes: Iterable[IPv4Address]) -> Compiled:
    """The base rules of a node.

    Args:
        settings: the cluster's ranges.
        nodes: the addresses of all nodes; pods talk to them under their own address.
    """
    pods, services, dns = settings.pods, settings.services, f"{settings.dns}/32"
    return Compiled(
        {
            SERVICES: (
                # Somebody who routes the services' range to this node: the answer must come back this way.
                f"! -s {pods} -d {services} {MARK_OUTSIDE}",
                f"-d {services} -j {CLUSTER_IPS.name}",
                f"-j {EXTERNAL_IPS.name}",
                f"{NOT_LOOPBACK} -m addrtype --dst-type LOCAL -j {NODE_PORTS.name}",
            ),
            POSTROUTING: (
                "-o lo -j RETURN",
                f"-o {BRIDGE} -j {HAIRPIN.name}",
                f"! -o {BRIDGE} -m mark --mark {FROM_OUTSIDE} {MASQUERADE}",
                f"-s {pods} ! -o {BRIDGE} -j {EGRESS.name}",
            ),
            EGRESS: (
                f"-d {pods} -j RETURN",
                f"-d {_MULTICAST} -j RETURN",
                *(f"-d {address}/32 -j RETURN" for address in sorted(set(nodes))),
                MASQUERADE,
            ),
            FORWARD: (
                # What connection tracking cannot place was not translated either: a pod that answers a client with its
                # own address instead of the service's would have the connection reset.
                f"-s {pods} -m conntrack --ctstate INVALID {DROP}",
                f"{_NEW} -j {REFUSED.name}",
                # Translated packets have another destination by now: no Service has this address and port.
                f"-d {services} {REJECT}",
                f"-m mark --mark {FROM_OUTSIDE} {ACCEPT}",
                f"-m conntrack --ctstate RELATED,ESTABLISHED {ACCEPT}",
                f"-s {pods} {ACCEPT}",
                f"-d {pods} {ACCEPT}",
            ),
            INPUT: (
                # The cluster DNS serves this host and its pods, and is no open resolver for the neighbours.
                f"-d {dns} -i {BRIDGE} {ACCEPT}",
                f"-d {dns} -i lo {ACCEPT}",
                f"-d {dns} {DROP}",
                f"{_NEW} -j {REFUSED.name}",
            ),
            OUTPUT: (
                f"{_NEW} -j {REFUSED.name}",
                f"-d {services} -m addrtype ! --dst-type LOCAL {REJECT}",
            ),
            # Services fill these in; they exist even when none does.
            CLUSTER_IPS: (),
            EXTERNAL_IPS: (),
            NODE_PORTS: (),
            HAIRPIN: (),
            REFUSED: (),
        }
    )
