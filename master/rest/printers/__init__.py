"""How kinds look in tables (`kubectl get`): columns and cells, computed by the server, one file per group of kinds.

A kind without a printer of its own is shown by name and age.
"""

from __future__ import annotations

from kybern.api.resources import Resource
from master.rest.printers import apps, config, coordination, core, discovery, events, pods
from master.rest.printers.base import FALLBACK, Column, Printer, Row

__all__ = ["Column", "Printer", "Row", "printer_of"]

_PRINTERS: dict[tuple[str, str], Printer] = {
    ("", "Pod"): pods.PODS,
    ("", "Namespace"): core.NAMESPACES,
    ("", "Node"): core.NODES,
    ("", "Service"): core.SERVICES,
    ("", "Endpoints"): core.ENDPOINTS,
    ("", "ConfigMap"): config.CONFIG_MAPS,
    ("", "Secret"): config.SECRETS,
    ("", "ServiceAccount"): config.SERVICE_ACCOUNTS,
    ("", "Event"): events.EVENTS,
    ("apps", "Deployment"): apps.DEPLOYMENTS,
    ("apps", "ReplicaSet"): apps.REPLICA_SETS,
    ("autoscaling", "Scale"): apps.SCALES,
    ("coordination.k8s.io", "Lease"): coordination.LEASES,
    ("discovery.k8s.io", "EndpointSlice"): discovery.ENDPOINT_SLICES,
}


def printer_of(resource: Resource, subresource: str = "") -> Printer:
    """The printer of a resource, or of the kind that a subresource answers with."""
    group, kind = resource.group, resource.kind
    found = resource.subresource(subresource) if subresource else None
    if found is not None and found.kind:
        group, kind = found.group or group, found.kind
    return _PRINTERS.get((group, kind), FALLBACK)
