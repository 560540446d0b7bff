"""The values that fields have when nobody sets them, by kind; Kubernetes' own.

Defaulting happens on every write, before validation, and is idempotent: what is set stays. The published definitions
hold no defaults, so the table is ours. `apply_defaults` expects documents whose types have been checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kybern.api.defaults import cluster, config, network, pods, workloads
from kybern.api.resources import Resource

__all__ = ["apply_defaults", "apply_kind_defaults"]

_DEFAULTS: Mapping[tuple[str, str], Callable[[dict[str, Any]], None]] = {
    ("", "Endpoints"): network.endpoints,
    ("", "Event"): cluster.event,
    ("", "Namespace"): cluster.namespace,
    ("", "Node"): cluster.node,
    ("", "Pod"): pods.pod,
    ("", "Secret"): config.secret,
    ("", "Service"): network.service,
    ("apps", "Deployment"): workloads.deployment,
    ("apps", "ReplicaSet"): workloads.replica_set,
    ("authentication.k8s.io", "TokenRequest"): config.token_request,
    ("discovery.k8s.io", "EndpointSlice"): network.endpoint_slice,
}


def apply_defaults(resource: Resource, document: dict[str, Any]) -> None:
    """Set the unset fields of an object that have a default, in place."""
    apply_kind_defaults(resource.group, resource.kind, document)


def apply_kind_defaults(group: str, kind: str, document: dict[str, Any]) -> None:
    """As `apply_defaults`, for kinds that are the bodies of subresources."""
    default = _DEFAULTS.get((group, kind))
    if default is not None:
        default(document)
