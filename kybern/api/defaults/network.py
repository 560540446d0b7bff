"""Defaults of Services and endpoints."""

from __future__ import annotations

from typing import Any

# Three hours: how long a client is sent to the same pod.
_AFFINITY_SECONDS = 10800


def service(document: dict[str, Any]) -> None:
    """Defaults of a Service. Addresses and node ports are claimed elsewhere."""
    spec = document.setdefault("spec", {})
    kind = spec["type"] = spec.get("type") or "ClusterIP"
    _session_affinity(spec)
    for port in spec.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
        if port.get("targetPort") in (None, 0, "") and "port" in port:
            port["targetPort"] = port["port"]
    if kind == "ExternalName":
        return
    if not spec.get("internalTrafficPolicy"):
        spec["internalTrafficPolicy"] = "Cluster"
    if kind in ("NodePort", "LoadBalancer") or spec.get("externalIPs"):
        spec["externalTrafficPolicy"] = spec.get("externalTrafficPolicy") or "Cluster"
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    _families(spec)


def _session_affinity(spec: dict[str, Any]) -> None:
    affinity = spec["sessionAffinity"] = spec.get("sessionAffinity") or "None"
    if affinity == "None":
        spec.pop("sessionAffinityConfig", None)
    elif affinity == "ClientIP":
        config = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        config.setdefault("timeoutSeconds", _AFFINITY_SECONDS)


def _families(spec: dict[str, Any]) -> None:
    addresses = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    if addresses:
        spec["clusterIPs"] = addresses
        spec["clusterIP"] = spec.get("clusterIP") or addresses[0]
    if not spec.get("ipFamilies"):
        first = addresses[0] if addresses else ""
        spec["ipFamilies"] = ["IPv6" if ":" in first else "IPv4"]
    if not spec.get("ipFamilyPolicy"):
        spec["ipFamilyPolicy"] = "SingleStack"


def endpoints(document: dict[str, Any]) -> None:
    """Defaults of Endpoints."""
    for subset in document.get("subsets") or ():
        for port in subset.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"


def endpoint_slice(document: dict[str, Any]) -> None:
    """Defaults of an EndpointSlice."""
    document.setdefault("endpoints", [])
    for port in document.get("ports") or ():
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")
