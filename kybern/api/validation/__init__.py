"""The rules that objects must keep, kind by kind, with Kubernetes' wording where it is known.

Validation comes after decoding, pruning and defaulting: types are right, unknown fields are gone, defaults are set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kybern.api.errors import Cause
from kybern.api.resources import Resource
from kybern.api.validation import (
    cluster,
    config,
    endpoints,
    metadata,
    network,
    pod_updates,
    pods,
    status,
    workloads,
)
from kybern.api.validation.field import Causes

__all__ = ["validate", "validate_status"]

Rule = Callable[[Mapping[str, Any], Causes], None]
UpdateRule = Callable[[Mapping[str, Any], Mapping[str, Any], Causes], None]


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules of a kind: always, for new objects alone, and for changes (new, old)."""

    always: Rule | None = None
    create: Rule | None = None
    update: UpdateRule | None = None


_RULES: Mapping[tuple[str, str], _Rules] = {
    ("", "Binding"): _Rules(cluster.binding),
    ("", "ConfigMap"): _Rules(config.config_map, update=config.config_map_update),
    ("", "Endpoints"): _Rules(endpoints.endpoints),
    ("", "Event"): _Rules(cluster.event),
    ("", "Namespace"): _Rules(cluster.namespace),
    ("", "Node"): _Rules(cluster.node, update=cluster.node_update),
    ("", "Pod"): _Rules(pods.pod, create=pods.new_pod, update=pod_updates.validate),
    ("", "Secret"): _Rules(config.secret, update=config.secret_update),
    ("", "Service"): _Rules(network.service, update=network.service_update),
    ("apps", "Deployment"): _Rules(workloads.deployment, update=workloads.immutable_selector),
    ("apps", "ReplicaSet"): _Rules(workloads.replica_set, update=workloads.immutable_selector),
    ("coordination.k8s.io", "Lease"): _Rules(cluster.lease),
    ("discovery.k8s.io", "EndpointSlice"): _Rules(endpoints.endpoint_slice, update=endpoints.endpoint_slice_update),
}
_NONE = _Rules()


def validate(resource: Resource, new: dict[str, Any], old: dict[str, Any] | None) -> list[Cause]:
    """What is wrong with a new object (`old` is None), or with a change of one; empty when nothing is.

    The object must be decoded, pruned, checked and defaulted.
    """
    out: Causes = []
    metadata.validate(resource, new.get("metadata") or {}, out)
    rules = _RULES.get((resource.group, resource.kind), _NONE)
    if rules.always is not None:
        rules.always(new, out)
    if old is None:
        if rules.create is not None:
            rules.create(new, out)
        return out
    metadata.validate_update(new.get("metadata") or {}, old.get("metadata") or {}, out)
    if rules.update is not None:
        rules.update(new, old, out)
    return out


def validate_status(resource: Resource, new: dict[str, Any], old: dict[str, Any]) -> list[Cause]:
    """What is wrong with a change of an object's status."""
    out: Causes = []
    metadata.validate_update(new.get("metadata") or {}, old.get("metadata") or {}, out)
    rule = status.RULES.get((resource.group, resource.kind))
    if rule is not None:
        rule(new, old, out)
    return out
