"""Keeps EndpointSlices for every Service that has a selector. Writes the EndpointSlices that it manages alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from kybern.api import resources, selectors
from kybern.api.errors import Reason, StatusError
from kybern.api.types import EndpointPort, EndpointSlice, Pod, Service
from kybern.client import kinds
from kybern.client.acting import LeadershipLost
from kybern.client.controller import Controller, ControllerContext
from kybern.client.informer import Informer
from kybern.key import Key
from master.controllers import batches, indices
from master.controllers.endpoints import resolving, slicing
from master.controllers.endpoints.slicing import Content

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
HEADLESS = "service.kubernetes.io/headless"
ZONE = "topology.kubernetes.io/zone"

# Seconds in which changes of pods are gathered: a rollout changes many of them together.
GATHER = 0.1


def services_of(services: Informer[Service], pod: Pod) -> Iterable[Key]:
    """The Services that select a pod."""
    labels = pod.metadata.labels.items()
    return [
        s.key
        for s in indices.in_namespace(services, pod.namespace)
        if s.spec.selector and s.spec.selector.items() <= labels
    ]


def selected(pods: Informer[Pod], service: Service) -> list[Pod]:
    """The pods that a Service selects."""
    selector = selectors.from_mapping(service.spec.selector)
    if selector is None:
        return []
    return [p for p in indices.in_namespace(pods, service.namespace) if selector.matches(p.metadata.labels)]


def labels_of(service: Service) -> dict[str, str]:
    """The labels of a Service's slices."""
    headless = {HEADLESS: ""} if service.spec.headless else {}
    inherited = {k: v for k, v in service.metadata.labels.items() if k not in (SERVICE_NAME, MANAGED_BY, HEADLESS)}
    return {**inherited, **headless, SERVICE_NAME: service.name, MANAGED_BY: MANAGER}


def document(service: Service, content: Content) -> dict[str, Any]:
    """A slice's fields but for its name."""
    return {
        "metadata": {"labels": labels_of(service)},
        "addressType": content.group.address_type,
        "endpoints": [{**msgspec.to_builtins(e), "addresses": list(e.addresses)} for e in content.endpoints],
        "ports": [_port(p) for p in content.group.ports],
    }


def _port(port: EndpointPort) -> dict[str, Any]:
    optional = {"appProtocol": port.app_protocol} if port.app_protocol else {}
    return {"name": port.name, "protocol": port.protocol, "port": port.port, **optional}


class EndpointSliceController(Controller):
    """One key is one Service."""

    name = "endpointslice-controller"

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._services = self.watch(kinds.SERVICES)
        self._slices = self.watch(kinds.ENDPOINT_SLICES, self._of_slice)
        self._nodes = self.read(kinds.NODES)
        self._pods = self.watch(
            kinds.PODS, lambda p: services_of(self._services, p), facts=resolving.facts, delay=GATHER
        )
        indices.by_namespace(self._services)
        indices.by_namespace(self._pods)
        self._slices.index("service", lambda s: (f"{s.namespace}/{s.service}",) if _managed(s) else ())

    def _of_slice(self, changed: EndpointSlice) -> Iterable[Key]:
        return (Key(changed.namespace, changed.service),) if _managed(changed) else ()

    async def reconcile(self, key: Key) -> float | None:
        """Bring the slices of a Service to what its pods are."""
        service = self._services.get(key)
        if service is None or service.deleting or not service.spec.selector:
            return None  # the garbage collector takes the slices of a deleted Service
        if service.spec.type == "ExternalName":
            return None
        existing = [s for s in self._slices.indexed("service", str(key)) if not s.deleting]
        changes = slicing.plan(existing, resolving.resolve(service, selected(self._pods, service), self._zone))
        relabelled = self._relabelled(service, existing, changes)
        for content in (*changes.write, *relabelled):
            await self._write(service, content)
        refused = await batches.together(self._delete(s) for s in changes.delete)
        if refused:
            raise refused[0]
        return None

    def _zone(self, node: str) -> str | None:
        found = self._nodes.get(Key("", node))
        return found.metadata.labels.get(ZONE) or None if found is not None else None

    def _relabelled(
        self, service: Service, existing: Iterable[EndpointSlice], changes: slicing.Changes
    ) -> list[Content]:
        """Slices whose content is right and whose labels are not."""
        done = {s.name for s in changes.delete} | {c.of.name for c in changes.write if c.of is not None}
        labels = labels_of(service)
        return [
            Content(resolving.Group(s.address_type, s.ports), list(s.endpoints), s)
            for s in existing
            if s.name not in done and s.metadata.labels != labels
        ]

    async def _write(self, service: Service, content: Content) -> None:
        new = document(service, content)
        if content.of is None:
            new["metadata"]["generateName"] = f"{service.name}-"
            new["metadata"]["namespace"] = service.namespace
            new["metadata"]["ownerReferences"] = [service.owner_reference()]
            await self.client.create(resources.ENDPOINT_SLICES, new, service.namespace)
            return
        del new["addressType"]
        new["metadata"] |= {"uid": content.of.uid, "resourceVersion": content.of.metadata.resource_version}
        gone: Mapping[str, None] = {k: None for k in content.of.metadata.labels if k not in new["metadata"]["labels"]}
        new["metadata"]["labels"] |= gone
        await self.client.patch(resources.ENDPOINT_SLICES, content.of.name, new, service.namespace)

    async def _delete(self, surplus: EndpointSlice) -> None:
        try:
            await self.client.delete(resources.ENDPOINT_SLICES, surplus.name, surplus.namespace, uid=surplus.uid)
        except StatusError as error:
            if isinstance(error, LeadershipLost) or error.reason != Reason.NOT_FOUND:
                raise


def _managed(candidate: EndpointSlice) -> bool:
    return bool(candidate.service) and candidate.metadata.labels.get(MANAGED_BY) == MANAGER
