"""Shared values: the addresses and node ports of Services, the pod ranges of Nodes.

Each value that an object uses is claimed by a key of its own in the transaction that stores the object, and released
in the one that takes it away; so three API servers allocate at once, and nothing leaks. This module chooses values;
whether they are free the transaction finds out. A chooser that has lost a race learns what is taken and chooses again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from random import Random
from typing import Any

from kybern.api import errors
from kybern.api.errors import Cause, CauseType, StatusError
from kybern.api.resources import Resource
from kybern.api.validation.field import show
from kybern.config.models import Cluster
from master.apiserver.keys import Claim

Document = dict[str, Any]

CLUSTER_IP = "clusterip"
NODE_PORT = "nodeport"
POD_CIDR = "podcidr"

# So many random guesses before the range is searched from its beginning.
_GUESSES = 16


class ExhaustedError(Exception):
    """Every value of a range is taken."""


@dataclass
class Taken:
    """The values that are known to be taken, by kind. Grows while one request tries again."""

    values: dict[str, set[str]] = field(default_factory=dict)

    def has(self, kind: str, value: str) -> bool:
        """Whether a value is known to be taken."""
        return value in self.values.get(kind, ())

    def add(self, claim: Claim) -> None:
        """A value turned out to be taken."""
        self.values.setdefault(claim.kind, set()).add(claim.value)


class Allocator:
    """Chooses values out of the cluster's ranges."""

    def __init__(self, cluster: Cluster, rng: Random) -> None:
        self.services = ipaddress.ip_network(cluster.service_cidr)
        self.pods = ipaddress.ip_network(cluster.pod_cidr)
        self.node_bits = cluster.node_cidr_bits
        self.first_port, self.last_port = cluster.node_port_first, cluster.node_port_last
        self._rng = rng

    def cluster_ip(self, taken: Taken) -> str:
        """A free Service address; the lower band of the range is left to those who ask for an address."""
        count = self.services.num_addresses - 2
        band = min(max(16, count // 16), 256)
        index = self._choose(1, count, band, lambda i: taken.has(CLUSTER_IP, str(self.services[i])))
        return str(self.services[index])

    def node_port(self, taken: Taken) -> int:
        """A free node port, likewise."""
        count = self.last_port - self.first_port + 1
        band = min(max(16, count // 32), 128)
        return self._choose(self.first_port, self.last_port, band, lambda p: taken.has(NODE_PORT, str(p)))

    def pod_cidr(self, taken: Taken) -> str:
        """The lowest free range for a node's pods."""
        if self.pods.prefixlen > self.node_bits:
            raise ExhaustedError(f"pod_cidr {self.pods} is smaller than a node's range of /{self.node_bits}")
        for subnet in self.pods.subnets(new_prefix=self.node_bits):
            if not taken.has(POD_CIDR, str(subnet)):
                return str(subnet)
        raise ExhaustedError(f"every /{self.node_bits} of {self.pods} is taken")

    def _choose(self, first: int, last: int, band: int, is_taken: Callable[[int], bool]) -> int:
        upper = first + band
        for _ in range(_GUESSES if upper <= last else 0):
            guess = self._rng.randint(upper, last)
            if not is_taken(guess):
                return guess
        for candidate in chain(range(upper, last + 1), range(first, min(upper, last + 1))):
            if not is_taken(candidate):
                return candidate
        raise ExhaustedError("range is full")


# --- what objects claim


def claims_of(resource: Resource, document: Mapping[str, Any] | None) -> frozenset[Claim]:
    """The values that an object uses."""
    if document is None:
        return frozenset()
    reader = _CLAIMS.get((resource.group, resource.kind))
    return frozenset(claim for claim, _ in reader(document)) if reader is not None else frozenset()


def _service_claims(document: Mapping[str, Any]) -> Iterator[tuple[Claim, str]]:
    spec = document.get("spec") or {}
    if spec.get("type") != "ExternalName":
        addresses = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
        for address in addresses:
            if address != "None":
                yield Claim(CLUSTER_IP, address), "spec.clusterIPs"
    if spec.get("type") in ("NodePort", "LoadBalancer"):
        for index, port in enumerate(spec.get("ports") or ()):
            if port.get("nodePort"):
                yield Claim(NODE_PORT, str(port["nodePort"])), f"spec.ports[{index}].nodePort"
        if spec.get("healthCheckNodePort"):
            yield Claim(NODE_PORT, str(spec["healthCheckNodePort"])), "spec.healthCheckNodePort"


def _node_claims(document: Mapping[str, Any]) -> Iterator[tuple[Claim, str]]:
    spec = document.get("spec") or {}
    for value in spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else []):
        yield Claim(POD_CIDR, value), "spec.podCIDR"


_CLAIMS: Mapping[tuple[str, str], Callable[[Mapping[str, Any]], Iterator[tuple[Claim, str]]]] = {
    ("", "Service"): _service_claims,
    ("", "Node"): _node_claims,
}


# --- giving values to objects


def allocate(resource: Resource, document: Document, allocator: Allocator, taken: Taken) -> frozenset[Claim]:
    """Fill in what the object does not ask for itself; returns the claims that were chosen here, not asked for.

    Raises:
        StatusError: 422 when a value that is asked for lies outside of its range; 500 when a range is full.
    """
    giver = _GIVERS.get((resource.group, resource.kind))
    if giver is None:
        return frozenset()
    asked = claims_of(resource, document)
    try:
        giver(document, allocator, taken)
    except ExhaustedError as error:
        raise errors.internal(
            f"failed to allocate for {resource.kind} {document['metadata'].get('name')}: {error}"
        ) from error
    return claims_of(resource, document) - asked


def check_ranges(resource: Resource, document: Document, old: Document | None, allocator: Allocator) -> list[Cause]:
    """What is wrong with the values that an object asks for and did not have before."""
    if (resource.group, resource.kind) != ("", "Service"):
        return []
    known, causes = claims_of(resource, old), []
    for claim, path in _service_claims(document):
        if claim in known:
            continue
        if claim.kind == CLUSTER_IP and ipaddress.ip_address(claim.value) not in allocator.services:
            text = (
                f"failed to allocate IP {claim.value}: the provided IP ({claim.value}) is not in the valid range. "
                f"The range of valid IPs is {allocator.services}"
            )
            causes.append(_refused(path, claim, text))
        if claim.kind == NODE_PORT and not allocator.first_port <= int(claim.value) <= allocator.last_port:
            valid = f"{allocator.first_port}-{allocator.last_port}"
            text = f"provided port is not in the valid range. The range of valid ports is {valid}"
            causes.append(_refused(path, claim, text))
    return causes


def taken_error(resource: Resource, document: Document, taken: frozenset[Claim]) -> StatusError:
    """422: values that the object asks for belong to others."""
    reader = _CLAIMS[resource.group, resource.kind]
    causes = [_refused(path, c, _TAKEN[c.kind].format(c.value)) for c, path in reader(document) if c in taken]
    return errors.invalid(resource.kind, resource.group, document["metadata"].get("name", ""), causes)


_TAKEN = {
    CLUSTER_IP: "failed to allocate IP {}: provided IP is already allocated",
    NODE_PORT: "provided port is already allocated",
    POD_CIDR: "the range {} belongs to another node",
}


def _refused(path: str, claim: Claim, text: str) -> Cause:
    value: Any = [claim.value] if claim.kind == CLUSTER_IP else claim.value
    shown = claim.value if claim.kind == NODE_PORT else show(value)
    return Cause(path, f"Invalid value: {shown}: {text}", CauseType.INVALID)


def _give_service(document: Document, allocator: Allocator, taken: Taken) -> None:
    spec = document["spec"]
    kind = spec.get("type")
    if kind == "ExternalName":
        return
    if not spec.get("clusterIP"):
        address = allocator.cluster_ip(taken)
        spec["clusterIP"], spec["clusterIPs"] = address, [address]
    else:
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
    if kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False):
        _give_node_ports(spec, allocator, taken)
    if kind == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local" and not spec.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = allocator.node_port(_with_own(spec, taken))


def _give_node_ports(spec: dict[str, Any], allocator: Allocator, taken: Taken) -> None:
    for port in spec.get("ports") or ():
        if not port.get("nodePort"):
            # The same port on TCP and UDP has the same node port, as in Kubernetes.
            twin = next((p["nodePort"] for p in spec["ports"] if p.get("nodePort") and _twins(p, port)), None)
            port["nodePort"] = twin or allocator.node_port(_with_own(spec, taken))


def _twins(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.get("port") == other.get("port") and one.get("protocol") != other.get("protocol")


def _with_own(spec: Mapping[str, Any], taken: Taken) -> Taken:
    own = {str(p["nodePort"]) for p in spec.get("ports") or () if p.get("nodePort")}
    return Taken({NODE_PORT: taken.values.get(NODE_PORT, set()) | own})


def _give_node(document: Document, allocator: Allocator, taken: Taken) -> None:
    spec = document.setdefault("spec", {})
    if not spec.get("podCIDR"):
        cidr = (spec.get("podCIDRs") or [None])[0] or allocator.pod_cidr(taken)
        spec["podCIDR"] = cidr
    spec.setdefault("podCIDRs", [spec["podCIDR"]])


_GIVERS: Mapping[tuple[str, str], Callable[[Document, Allocator, Taken], None]] = {
    ("", "Service"): _give_service,
    ("", "Node"): _give_node,
}


# --- what updates keep and drop


def carry_over(new: Document, old: Mapping[str, Any]) -> None:
    """Before an update of a Service is defaulted: keep what it leaves out, drop what its new type cannot have."""
    spec, before = new.setdefault("spec", {}), old.get("spec") or {}
    now, then = spec.get("type") or "ClusterIP", before.get("type") or "ClusterIP"
    if now != "ExternalName" and then != "ExternalName":
        _keep_addresses(spec, before)
    if now == "ExternalName" and then != "ExternalName":
        _drop_addresses(spec, before)
    external = ("NodePort", "LoadBalancer")
    if now in external and then in external:
        _keep_ports(spec, before)
    elif now not in external and then in external:
        _drop_ports(spec, before)


def _keep_addresses(spec: dict[str, Any], before: Mapping[str, Any]) -> None:
    if not spec.get("clusterIP") and not spec.get("clusterIPs"):
        for key in ("clusterIP", "clusterIPs"):
            if key in before:
                spec[key] = before[key]
    elif spec.get("clusterIP") == before.get("clusterIP") and not spec.get("clusterIPs") and "clusterIPs" in before:
        spec["clusterIPs"] = before["clusterIPs"]
    for key in ("ipFamilies", "ipFamilyPolicy"):
        if not spec.get(key) and key in before:
            spec[key] = before[key]


def _drop_addresses(spec: dict[str, Any], before: Mapping[str, Any]) -> None:
    """A patch of the type alone brings the old addresses along."""
    for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
        if spec.get(key) == before.get(key):
            spec.pop(key, None)


def _keep_ports(spec: dict[str, Any], before: Mapping[str, Any]) -> None:
    then = {(p.get("protocol") or "TCP", p.get("port")): p.get("nodePort") for p in before.get("ports") or ()}
    used = {p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")}
    for port in spec.get("ports") or ():
        kept = then.get((port.get("protocol") or "TCP", port.get("port")))
        if not port.get("nodePort") and kept and kept not in used:
            port["nodePort"] = kept
    if not spec.get("healthCheckNodePort") and before.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = before["healthCheckNodePort"]


def _drop_ports(spec: dict[str, Any], before: Mapping[str, Any]) -> None:
    then = {p.get("nodePort") for p in before.get("ports") or ()}
    for port in spec.get("ports") or ():
        if port.get("nodePort") in then:
            port.pop("nodePort", None)
    for key in ("externalTrafficPolicy", "allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"):
        if spec.get(key) == before.get(key):
            spec.pop(key, None)
