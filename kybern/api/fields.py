"""The values that field selectors compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from kybern.api.resources import Resource

_ALWAYS = ("metadata.name", "metadata.namespace")


def supported(resource: Resource) -> tuple[str, ...]:
    """The paths that field selectors of a resource may name."""
    always = _ALWAYS if resource.namespaced else _ALWAYS[:1]
    return (*always, *resource.selectable_fields)


def selectable(resource: Resource, document: Mapping[str, Any]) -> dict[str, str]:
    """The value under every path that field selectors of a resource may name; absent values are empty."""
    return {path: read(document) for path, read in _readers(resource)}


Reader = Callable[[Mapping[str, Any]], str]


@cache
def _readers(resource: Resource) -> tuple[tuple[str, Reader], ...]:
    return tuple((path, _SPECIAL.get((resource.kind, path)) or _reader(path)) for path in supported(resource))


def _reader(path: str) -> Reader:
    keys = path.split(".")

    def read(document: Mapping[str, Any]) -> str:
        value: Any = document
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
            if value is None:
                return _ABSENT.get(path, "")
        return _text(value)

    return read


# Absent booleans and counts have the text of their zero value, as in Kubernetes.
_ABSENT: Mapping[str, str] = {"spec.unschedulable": "false", "spec.hostNetwork": "false", "status.replicas": "0"}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _event_source(document: Mapping[str, Any]) -> str:
    """The component that reported, where newer clients write it to another field."""
    source = document.get("source") or {}
    return str(source.get("component") or document.get("reportingComponent") or "")


def _pod_ip(document: Mapping[str, Any]) -> str:
    status = document.get("status") or {}
    first: Mapping[str, Any] = next(iter(status.get("podIPs") or ()), {})
    return str(first.get("ip") or status.get("podIP") or "")


def _cluster_ip(document: Mapping[str, Any]) -> str:
    spec = document.get("spec") or {}
    return str(spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or ()), ""))


_SPECIAL: Mapping[tuple[str, str], Reader] = {
    ("Event", "source"): _event_source,
    ("Pod", "status.podIP"): _pod_ip,
    ("Service", "spec.clusterIP"): _cluster_ip,
}
