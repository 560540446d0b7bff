"""Rules for EndpointSlices and Endpoints."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from kybern.api import names
from kybern.api.validation.containers import PROTOCOLS
from kybern.api.validation.field import (
    IMMUTABLE,
    Causes,
    duplicate,
    in_range,
    invalid,
    not_supported,
    one_of,
    required,
    too_many,
)

_ADDRESS_TYPES = frozenset({"IPv4", "IPv6", "FQDN"})
# Kubernetes' bounds of one slice.
_MOST_ENDPOINTS = 1000
_MOST_ADDRESSES = 100
_MOST_PORTS = 20000


def endpoint_slice(document: Mapping[str, Any], out: Causes) -> None:
    """Complain about an EndpointSlice."""
    kind = document.get("addressType")
    one_of("addressType", kind, _ADDRESS_TYPES, out)
    endpoints = document.get("endpoints") or ()
    if len(endpoints) > _MOST_ENDPOINTS:
        out.append(too_many("endpoints", len(endpoints), _MOST_ENDPOINTS))
        return
    for index, endpoint in enumerate(endpoints):
        _endpoint(endpoint, str(kind), f"endpoints[{index}]", out)
    _slice_ports(document.get("ports") or (), out)


def endpoint_slice_update(new: Mapping[str, Any], old: Mapping[str, Any], out: Causes) -> None:
    """Complain about a changed address type."""
    if new.get("addressType") != old.get("addressType"):
        out.append(invalid("addressType", new.get("addressType"), IMMUTABLE))


def _endpoint(endpoint: Mapping[str, Any], kind: str, path: str, out: Causes) -> None:
    addresses = endpoint.get("addresses") or ()
    if not addresses:
        out.append(required(f"{path}.addresses", "must contain at least 1 address"))
    elif len(addresses) > _MOST_ADDRESSES:
        out.append(too_many(f"{path}.addresses", len(addresses), _MOST_ADDRESSES))
    for index, address in enumerate(addresses):
        _address(address, kind, f"{path}.addresses[{index}]", out)
    if endpoint.get("nodeName"):
        out += [invalid(f"{path}.nodeName", endpoint["nodeName"], w) for w in names.subdomain(endpoint["nodeName"])]
    if endpoint.get("hostname"):
        out += [invalid(f"{path}.hostname", endpoint["hostname"], w) for w in names.label(endpoint["hostname"])]


def _address(address: str, kind: str, path: str, out: Causes) -> None:
    if kind == "FQDN":
        out += [invalid(path, address, w) for w in names.subdomain(address)]
        return
    wrong = names.ip_address(address)
    out += [invalid(path, address, w) for w in wrong]
    if wrong:
        return
    parsed = ipaddress.ip_address(address)
    if kind in ("IPv4", "IPv6") and parsed.version != int(kind[-1]):
        out.append(invalid(path, address, f"must be an {kind} address"))
    _reachable(parsed, address, path, out)


def _reachable(parsed: ipaddress.IPv4Address | ipaddress.IPv6Address, address: str, path: str, out: Causes) -> None:
    """Complain about addresses that lead to the asking host itself, or to none."""
    if parsed.is_unspecified:
        out.append(invalid(path, address, f"may not be unspecified ({address})"))
    if parsed.is_loopback:
        out.append(invalid(path, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
    if parsed.is_link_local:
        out.append(invalid(path, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
    if parsed.is_multicast and parsed.version == 4 and address.startswith("224.0.0."):
        out.append(invalid(path, address, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"))


def _slice_ports(ports: Sequence[Mapping[str, Any]], out: Causes) -> None:
    if len(ports) > _MOST_PORTS:
        out.append(too_many("ports", len(ports), _MOST_PORTS))
        return
    seen: set[str] = set()
    for index, port in enumerate(ports):
        at = f"ports[{index}]"
        name = port.get("name") or ""
        if name:
            out += [invalid(f"{at}.name", name, w) for w in names.label(name)]
        if name in seen:
            out.append(duplicate(f"{at}.name", name))
        seen.add(name)
        one_of(f"{at}.protocol", port.get("protocol"), PROTOCOLS, out)
        if port.get("port") is not None:
            in_range(f"{at}.port", port["port"], 1, 65535, out)


def endpoints(document: Mapping[str, Any], out: Causes) -> None:
    """Complain about Endpoints."""
    for number, subset in enumerate(document.get("subsets") or ()):
        path = f"subsets[{number}]"
        addresses, not_ready = subset.get("addresses") or (), subset.get("notReadyAddresses") or ()
        if not addresses and not not_ready:
            out.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
        for field, listed in (("addresses", addresses), ("notReadyAddresses", not_ready)):
            for index, address in enumerate(listed):
                _subset_address(address, f"{path}.{field}[{index}]", out)
        ports = subset.get("ports") or ()
        for index, port in enumerate(ports):
            _subset_port(port, f"{path}.ports[{index}]", len(ports) > 1, out)


def _subset_address(address: Mapping[str, Any], path: str, out: Causes) -> None:
    ip = address.get("ip") or ""
    wrong = names.ip_address(ip)
    out += [invalid(f"{path}.ip", ip, w) for w in wrong]
    if not wrong:
        _reachable(ipaddress.ip_address(ip), ip, f"{path}.ip", out)
    if address.get("hostname"):
        out += [invalid(f"{path}.hostname", address["hostname"], w) for w in names.label(address["hostname"])]


def _subset_port(port: Mapping[str, Any], path: str, several: bool, out: Causes) -> None:
    name = port.get("name")
    if name:
        out += [invalid(f"{path}.name", name, w) for w in names.label(name)]
    elif several:
        out.append(required(f"{path}.name"))
    in_range(f"{path}.port", port.get("port") or 0, 1, 65535, out)
    protocol = port.get("protocol")
    if not protocol:
        out.append(required(f"{path}.protocol"))
    elif protocol not in PROTOCOLS:
        out.append(not_supported(f"{path}.protocol", protocol, PROTOCOLS))
