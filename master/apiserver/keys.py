"""Where things lie in the store (docs/design/architecture.md): objects, claims, fences, living masters."""

from __future__ import annotations

from typing import NamedTuple

from kybern.api.resources import Resource
from kybern.client.interface import Fence

REGISTRY = b"/registry/"
CLAIMS = b"/kybern/claims/"
FENCES = b"/kybern/fences/"
MASTERS = b"/kybern/masters/"


class Claim(NamedTuple):
    """A value that one object alone may have. `kind`: `clusterip`, `nodeport`, `podcidr`."""

    kind: str
    value: str

    @property
    def key(self) -> bytes:
        """Its key; the value under it is the store key of the owner."""
        return CLAIMS + f"{self.kind}/{self.value}".encode()


def resource_prefix(resource: Resource) -> bytes:
    """What the keys of all objects of a resource begin with."""
    # Custom resources of two groups may share a plural; the built-in ones do not.
    grouped = f"{resource.group}/" if "." in resource.group and not resource.group.endswith(".k8s.io") else ""
    return REGISTRY + f"{grouped}{resource.plural}/".encode()


def namespace_prefix(resource: Resource, namespace: str) -> bytes:
    """What the keys of a resource's objects in a namespace begin with; of all objects when it is empty."""
    prefix = resource_prefix(resource)
    return prefix + f"{namespace}/".encode() if namespace else prefix


def object_key(resource: Resource, namespace: str, name: str) -> bytes:
    """The key of one object."""
    return namespace_prefix(resource, namespace if resource.namespaced else "") + name.encode()


def split_object_key(key: bytes, prefix: bytes, *, namespaced: bool) -> tuple[str, str] | None:
    """Namespace and name in a key below a resource's prefix; None when it is not the key of an object."""
    parts = key[len(prefix) :].decode("utf-8", "replace").split("/")
    if len(parts) != (2 if namespaced else 1):
        return None
    return (parts[0], parts[1]) if namespaced else ("", parts[0])


def fence_key(fence: Fence) -> bytes:
    """The key whose last change marks the beginning of the reign."""
    return lease_fence_key(fence.namespace, fence.name)


def lease_fence_key(namespace: str, name: str) -> bytes:
    """The key that is put whenever the holder of the Lease changes."""
    return FENCES + f"{namespace}/{name}".encode()
