"""Pairs of a resource and the typed view that reads it: what informers and controllers are written in terms of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from kybern.api import resources, types
from kybern.api.resources import Resource
from kybern.api.types.base import Object, decode

T = TypeVar("T", bound=Object)


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A resource with its view."""

    resource: Resource
    view: type[T]

    def read(self, document: bytes) -> T:
        """The view of a document.

        Raises:
            msgspec.ValidationError: when a field that the view holds has another type in the document.
        """
        return decode(document, self.view)

    def __str__(self) -> str:
        return self.resource.qualified


NAMESPACES = Kind(resources.NAMESPACES, types.Namespace)
NODES = Kind(resources.NODES, types.Node)
PODS = Kind(resources.PODS, types.Pod)
SERVICES = Kind(resources.SERVICES, types.Service)
CONFIG_MAPS = Kind(resources.CONFIG_MAPS, types.ConfigMap)
SECRETS = Kind(resources.SECRETS, types.Secret)
SERVICE_ACCOUNTS = Kind(resources.SERVICE_ACCOUNTS, types.ServiceAccount)
EVENTS = Kind(resources.EVENTS, types.Event)
REPLICA_SETS = Kind(resources.REPLICA_SETS, types.ReplicaSet)
DEPLOYMENTS = Kind(resources.DEPLOYMENTS, types.Deployment)
LEASES = Kind(resources.LEASES, types.Lease)
ENDPOINT_SLICES = Kind(resources.ENDPOINT_SLICES, types.EndpointSlice)
