"""Services as iptables rules. Pure.

A packet's way through the `nat` table (all but the first two are KYB-chains):

    PREROUTING, OUTPUT -> SERVICES -> CLUSTER-IPS  -> IP-10.96.3.0   -> SVC-x (or SVL-x)
                                   -> EXTERNAL-IPS -> IP-192.0.2.0   -> EXT-x -> SVC-x (or SVL-x)
                                   -> NODE-PORTS   -> NP-30080       -> EXT-x -> ...

The first level picks a block of 256 addresses (or 64 ports), so that a packet passes at most some hundreds of rules
however many services there are; and a change rewrites one block, not one list of all services. SVC-x picks one of the
cluster's endpoints and translates the address in the same rule; SVL-x one of this node's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

from node.proxy.model import PortRoute, Target
from node.proxy.rules import NOTHING, Chain, Compiled, Entry, chain_name

NAT, FILTER = "nat", "filter"

CLUSTER_IPS = Chain(NAT, "KYB-CLUSTER-IPS")
EXTERNAL_IPS = Chain(NAT, "KYB-EXTERNAL-IPS")
NODE_PORTS = Chain(NAT, "KYB-NODE-PORTS")
HAIRPIN = Chain(NAT, "KYB-HAIRPIN")
REFUSED = Chain(FILTER, "KYB-REFUSED")

# A packet that came in by an external address or a NodePort. It leaves with this node's address as its source, unless
# its endpoint is a pod of this node: only then the answer comes back this way by itself.
FROM_OUTSIDE = "0x8000/0x8000"
MARK_OUTSIDE = f"-j MARK --set-xmark {FROM_OUTSIDE}"
REJECT = "-j REJECT --reject-with icmp-port-unreachable"
DROP = "-j DROP"
# NodePorts are not served on loopback addresses (see node.network.sysctl).
NOT_LOOPBACK = "! -d 127.0.0.0/8"

_ANYBODY = IPv4Network("0.0.0.0/0")
_PORTS_PER_BLOCK = 64
# What xt_statistic counts in.
_CERTAIN = 1 << 31


def compile_service(routes: Sequence[PortRoute], pods: IPv4Network, services: IPv4Network) -> Compiled:
    """The rules of one Service.

    Args:
        routes: of all its ports.
        pods: the range of all pods, who are never outside.
        services: the range of cluster addresses; refusing what has no endpoints is the base rules' part there.
    """
    if not routes:
        return NOTHING
    chains: dict[Chain, tuple[str, ...]] = {}
    entries: set[Entry] = set()
    for route in routes:
        _compile_endpoints(route, chains, entries)
        _compile_internal(route, entries, services)
        if route.has_external:
            _compile_external(route, chains, entries, pods, services)
    return Compiled(chains, frozenset(entries))


def _compile_endpoints(route: PortRoute, chains: dict[Chain, tuple[str, ...]], entries: set[Entry]) -> None:
    if route.endpoints and (route.has_external or not route.internal_local):
        chains[_cluster_chain(route)] = tuple(_balance(route, route.endpoints))
    if route.local and (route.internal_local or route.external_local):
        chains[_local_chain(route)] = tuple(_balance(route, route.local))
    # A pod that is its own endpoint must not see its own address as the sender, or it would answer itself directly.
    # Only pods of this node can come back to themselves through this node's rules.
    for target in route.local:
        entries.add(Entry(HAIRPIN, f"-s {target.address}/32 -d {target.address}/32 -j MASQUERADE --random-fully"))


def _balance(route: PortRoute, targets: Sequence[Target]) -> Iterable[str]:
    """Rules of which exactly one translates the packet: each target with the same probability."""
    protocol = f"-p {route.protocol}"
    if route.affinity:
        for target in targets:
            known = f"-m recent --update --seconds {route.affinity} --reap {_remembered(route, target)}"
            yield f"{protocol} {known} -j DNAT --to-destination {target}"
    for position, target in enumerate(targets):
        left = len(targets) - position
        chance = f" -m statistic --mode random --probability {_probability(left)}" if left > 1 else ""
        remember = f" -m recent --set {_remembered(route, target)}" if route.affinity else ""
        yield f"{protocol}{chance}{remember} -j DNAT --to-destination {target}"


def _remembered(route: PortRoute, target: Target) -> str:
    """The kernel's list of this target's clients: of all chains of the port, so that every address has one memory."""
    name = chain_name("AFF", route.service, route.port, route.protocol, target)
    return f"--name {name} --mask 255.255.255.255 --rsource"


def _probability(left: int) -> str:
    """One in `left`, as iptables-save prints what the kernel keeps of it."""
    return f"{round(_CERTAIN / left) / _CERTAIN:.11f}"


def _compile_internal(route: PortRoute, entries: set[Entry], services: IPv4Network) -> None:
    chain = _local_chain(route) if route.internal_local else _cluster_chain(route)
    for address in route.cluster_ips:
        if route.internal:
            _dispatch(route, address, f"-j {chain.name}", entries, services)
        elif address not in services:
            entries.add(_refuse(route, address, REJECT))


def _compile_external(
    route: PortRoute,
    chains: dict[Chain, tuple[str, ...]],
    entries: set[Entry],
    pods: IPv4Network,
    services: IPv4Network,
) -> None:
    # Clients outside are refused when there is no endpoint at all; when there is none on this node they are dropped,
    # as health checks of load balancers expect.
    refusal = DROP if route.endpoints and not route.external else REJECT
    target = ""
    if route.endpoints:
        chain = Chain(NAT, chain_name("EXT", route.service, route.port, route.protocol))
        chains[chain] = tuple(_from_outside(route, pods))
        target = f"-j {chain.name}"
    for address in dict.fromkeys((*route.external_ips, *route.ingress_ips)):
        sources = route.sources if address not in route.external_ips else None
        if target:
            _dispatch(route, address, target, entries, services, sources)
        if not route.external:
            entries.add(_refuse(route, address, refusal))
        elif sources is not None:
            entries.add(_refuse(route, address, DROP))
    if route.node_port:
        if target:
            _dispatch_node_port(route, target, entries)
        if not route.external:
            rule = f"{NOT_LOOPBACK} {_match(route, route.node_port, '-m addrtype --dst-type LOCAL ')} {refusal}"
            entries.add(Entry(REFUSED, rule))


def _from_outside(route: PortRoute, pods: IPv4Network) -> Iterable[str]:
    everywhere = f"-j {_cluster_chain(route).name}"
    if not route.external_local:
        yield MARK_OUTSIDE
        yield everywhere
        return
    # The policy is about clients outside: pods, and processes of the node, get the cluster's endpoints.
    yield f"-s {pods} {everywhere}"
    yield f"-m addrtype --src-type LOCAL {MARK_OUTSIDE}"
    yield f"-m addrtype --src-type LOCAL {everywhere}"
    if route.local:
        yield f"-j {_local_chain(route).name}"


def _dispatch(
    route: PortRoute,
    address: IPv4Address,
    jump: str,
    entries: set[Entry],
    services: IPv4Network,
    sources: Sequence[IPv4Network] | None = None,
) -> None:
    if sources is not None and not sources:
        return
    block = IPv4Network((int(address) & ~0xFF, 24))
    chain = Chain(NAT, f"KYB-IP-{block.network_address}")
    parent = CLUSTER_IPS if address in services else EXTERNAL_IPS
    entries.add(Entry(parent, f"-d {block} -j {chain.name}"))
    for source in (_ANYBODY,) if sources is None else sources:
        limit = f"-s {source} " if source.prefixlen else ""
        entries.add(Entry(chain, f"{limit}-d {address}/32 {_match(route, route.port)} {jump}"))


def _dispatch_node_port(route: PortRoute, jump: str, entries: set[Entry]) -> None:
    first = route.node_port // _PORTS_PER_BLOCK * _PORTS_PER_BLOCK
    last = first + _PORTS_PER_BLOCK - 1
    chain = Chain(NAT, f"KYB-NP-{first}")
    protocol = route.protocol
    entries.add(Entry(NODE_PORTS, f"-p {protocol} -m {protocol} --dport {first}:{last} -j {chain.name}"))
    entries.add(Entry(chain, f"{_match(route, route.node_port)} {jump}"))


def _refuse(route: PortRoute, address: IPv4Address, verdict: str) -> Entry:
    return Entry(REFUSED, f"-d {address}/32 {_match(route, route.port)} {verdict}")


def _match(route: PortRoute, port: int, extra: str = "") -> str:
    protocol = route.protocol
    comment = f'-m comment --comment "{route.label}"'
    return f"-p {protocol} {extra}{comment} -m {protocol} --dport {port}"


def _cluster_chain(route: PortRoute) -> Chain:
    return Chain(NAT, chain_name("SVC", route.service, route.port, route.protocol))


def _local_chain(route: PortRoute) -> Chain:
    return Chain(NAT, chain_name("SVL", route.service, route.port, route.protocol))
