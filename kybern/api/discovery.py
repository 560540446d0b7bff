"""What the API serves, for clients to discover: the documents under `/api` and `/apis`.

Each comes in two forms: the plain lists, one document per group-version, and the aggregated form
(`APIGroupDiscoveryList`), which tells everything in two documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from kybern.api.resources import Registry, Resource, Subresource

AGGREGATED_MEDIA_TYPE = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")
_STABILITY = {"": 2, "beta": 1, "alpha": 0}


def groups(registry: Registry) -> list[str]:
    """The named API groups, in alphabetical order; the core group is not among them."""
    return sorted({r.group for r in registry if r.group})


def versions(registry: Registry, group: str) -> list[str]:
    """The versions of a group, the preferred one first: stable before beta before alpha, newer before older."""
    return sorted({r.version for r in registry if r.group == group}, key=_version_order, reverse=True)


def _version_order(version: str) -> tuple[int, int, int, str]:
    match = _VERSION.fullmatch(version)
    if match is None:
        return (-1, 0, 0, version)
    major, stage, minor = match.groups()
    return (_STABILITY[stage or ""], int(major), int(minor or 0), version)


# --- plain


def api_versions(registry: Registry, server_address: str) -> dict[str, Any]:
    """The document at `/api`: the versions of the core group."""
    return {
        "kind": "APIVersions",
        "versions": versions(registry, ""),
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    }


def group_list(registry: Registry) -> dict[str, Any]:
    """The document at `/apis`: the named groups."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(registry, g) for g in groups(registry)]}


def group(registry: Registry, name: str) -> dict[str, Any] | None:
    """The document at `/apis/GROUP`; None when the group is not served."""
    if not name or not versions(registry, name):
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(registry, name)}


def _group(registry: Registry, name: str) -> dict[str, Any]:
    listed = [{"groupVersion": f"{name}/{v}", "version": v} for v in versions(registry, name)]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def resource_list(registry: Registry, group_name: str, version: str) -> dict[str, Any] | None:
    """The document at `/api/v1` or `/apis/GROUP/VERSION`; None when the version is not served."""
    served = _served(registry, group_name, version)
    if not served:
        return None
    entries = [entry for resource in served for entry in _entries(resource)]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group_name}/{version}" if group_name else version,
        "resources": entries,
    }


def _served(registry: Registry, group_name: str, version: str) -> list[Resource]:
    served = (r for r in registry if r.group == group_name and r.version == version)
    return sorted(served, key=lambda r: r.plural)


def _entries(resource: Resource) -> Iterable[dict[str, Any]]:
    entry: dict[str, Any] = {
        "name": resource.plural,
        "singularName": singular(resource),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": sorted(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    yield entry
    for subresource in resource.subresources:
        yield _subresource_entry(resource, subresource)


def _subresource_entry(resource: Resource, subresource: Subresource) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": f"{resource.plural}/{subresource.name}",
        "singularName": "",
        "namespaced": resource.namespaced,
    }
    if subresource.version:
        entry["group"], entry["version"] = subresource.group, subresource.version
    entry["kind"] = subresource.kind or resource.kind
    entry["verbs"] = sorted(subresource.verbs)
    return entry


def singular(resource: Resource) -> str:
    """The name of one object of the resource, for command lines."""
    return resource.singular or resource.kind.lower()


# --- aggregated


def aggregated_core(registry: Registry) -> dict[str, Any]:
    """The document at `/api` in its aggregated form."""
    return _aggregated([_aggregated_group(registry, "")] if versions(registry, "") else [])


def aggregated_groups(registry: Registry) -> dict[str, Any]:
    """The document at `/apis` in its aggregated form."""
    return _aggregated([_aggregated_group(registry, g) for g in groups(registry)])


def _aggregated(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _aggregated_group(registry: Registry, name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name} if name else {},
        "versions": [
            {
                "version": version,
                "resources": [_aggregated_resource(r) for r in _served(registry, name, version)],
                "freshness": "Current",
            }
            for version in versions(registry, name)
        ],
    }


def _aggregated_resource(resource: Resource) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": singular(resource),
        "verbs": sorted(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if resource.subresources:
        entry["subresources"] = [_aggregated_subresource(resource, s) for s in resource.subresources]
    return entry


def _aggregated_subresource(resource: Resource, subresource: Subresource) -> dict[str, Any]:
    if subresource.version:
        group_name, version = subresource.group, subresource.version
    else:
        group_name, version = resource.group, resource.version
    kind = subresource.kind or resource.kind
    return {
        "subresource": subresource.name,
        "responseKind": {"group": group_name, "version": version, "kind": kind},
        "verbs": sorted(subresource.verbs),
    }
