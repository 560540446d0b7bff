"""Keeps an Endpoints object for every Service that has a selector, for clients that know no EndpointSlices.

Writes the Endpoints that it manages (told by a label), nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.api.types import Endpoint, EndpointPort, Object, Pod, Service
from kybern.client import kinds
from kybern.client.acting import LeadershipLost
from kybern.client.controller import Controller, ControllerContext
from kybern.client.kinds import Kind
from kybern.key import Key
from master.controllers import indices
from master.controllers.endpoints import resolving, slices

MANAGED_BY = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MOST = 1000


class Endpoints(Object):
    """The older form of a Service's endpoints; subsets stay JSON, they are compared and written whole."""

    subsets: tuple[dict[str, Any], ...] = ()


ENDPOINTS = Kind(resources.ENDPOINTS, Endpoints)


def subsets(service: Service, pods: Iterable[Pod]) -> tuple[list[dict[str, Any]], bool]:
    """The subsets, at most `MOST` addresses in all, and whether some had to be left out. Ready ones come first."""
    kept = [p for p in pods if service.spec.publish_not_ready_addresses or not p.deleting]
    groups = resolving.resolve(service, kept, lambda _: None)
    result: list[dict[str, Any]] = []
    room, truncated = MOST, False
    for group, endpoints in sorted(groups.items(), key=lambda g: (g[0].address_type, [_order(p) for p in g[0].ports])):
        subset: dict[str, Any] = {}
        for name, ready in (("addresses", True), ("notReadyAddresses", False)):
            chosen = [_address(e) for e in endpoints if bool(e.conditions.ready) is ready]
            truncated = truncated or len(chosen) > room
            if chosen := chosen[:room]:
                subset[name] = chosen
            room -= len(chosen)
        if not subset:
            continue
        if group.ports:
            subset["ports"] = [_port(p) for p in group.ports]
        result.append(subset)
    return result, truncated


def _order(port: EndpointPort) -> tuple[str, str, int]:
    return port.name, port.protocol, port.port or 0


def _port(port: EndpointPort) -> dict[str, Any]:
    optional = {"name": port.name} if port.name else {}
    extra = {"appProtocol": port.app_protocol} if port.app_protocol else {}
    return {**optional, "port": port.port, "protocol": port.protocol, **extra}


def _address(endpoint: Endpoint) -> dict[str, Any]:
    result: dict[str, Any] = {"ip": endpoint.addresses[0]}
    if endpoint.hostname:
        result["hostname"] = endpoint.hostname
    if endpoint.node_name:
        result["nodeName"] = endpoint.node_name
    if endpoint.target_ref is not None:
        result["targetRef"] = msgspec.to_builtins(endpoint.target_ref)
    return result


class EndpointsController(Controller):
    """One key is one Service, and the Endpoints of the same name."""

    name = "endpoint-controller"

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._services = self.watch(kinds.SERVICES)
        self._endpoints = self.watch(ENDPOINTS)
        self._pods = self.watch(
            kinds.PODS,
            lambda p: slices.services_of(self._services, p),
            facts=resolving.facts,
            delay=slices.GATHER,
        )
        indices.by_namespace(self._services)
        indices.by_namespace(self._pods)

    async def reconcile(self, key: Key) -> float | None:
        """Bring the Endpoints of a Service to what its pods are."""
        service = self._services.get(key)
        existing = self._endpoints.get(key)
        if service is None:
            if existing is not None and existing.metadata.labels.get(MANAGED_BY) == MANAGER:
                await self._delete(existing)
            return None
        if service.deleting or not service.spec.selector or service.spec.type == "ExternalName":
            return None
        wanted, truncated = subsets(service, slices.selected(self._pods, service))
        labels = {**service.metadata.labels, MANAGED_BY: MANAGER}
        if service.spec.headless:
            labels[slices.HEADLESS] = ""
        capacity = "truncated" if truncated else None
        meta: dict[str, Any] = {"labels": labels}
        if existing is None:
            annotations = {"annotations": {OVER_CAPACITY: capacity}} if capacity else {}
            new = {"metadata": {"name": service.name, **meta, **annotations}, "subsets": wanted}
            await self.client.create(resources.ENDPOINTS, new, service.namespace)
            return None
        same_labels = existing.metadata.labels == labels
        if same_labels and list(existing.subsets) == wanted and self._capacity(existing) == capacity:
            return None
        gone: dict[str, None] = {k: None for k in existing.metadata.labels if k not in labels}
        meta = {
            "uid": existing.uid,
            "resourceVersion": existing.metadata.resource_version,
            "labels": {**labels, **gone},
            "annotations": {OVER_CAPACITY: capacity},
        }
        patch = {"metadata": meta, "subsets": wanted or None}
        await self.client.patch(resources.ENDPOINTS, service.name, patch, service.namespace)
        return None

    def _capacity(self, existing: Endpoints) -> str | None:
        return existing.metadata.annotations.get(OVER_CAPACITY)

    async def _delete(self, surplus: Endpoints) -> None:
        try:
            await self.client.delete(resources.ENDPOINTS, surplus.name, surplus.namespace, uid=surplus.uid)
        except StatusError as error:
            if isinstance(error, LeadershipLost) or error.reason != Reason.NOT_FOUND:
                raise
