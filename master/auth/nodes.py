"""What nodes may do: see the cluster's services and themselves, what their own pods need, and report on both.

A node that has been broken into must not be able to read another node's secrets or to speak for it. What depends on an
object is decided by the watch cache; before a refusal the store is asked, because the cache may be behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kybern.api import resources
from kybern.api.resources import Resource
from master.apiserver.entry import Entry
from master.apiserver.lookup import Lookup
from master.auth import users
from master.auth.request import Access

NODE_LEASES = "kube-node-lease"

_READ = frozenset({"get", "list", "watch"})
_WRITE = frozenset({"create", "update", "patch", "delete"})
# Service routing, DNS and pod network need these whole.
_OPEN = frozenset({resources.SERVICES, resources.ENDPOINT_SLICES, resources.NODES, resources.ENDPOINTS})
_REFERENCED = frozenset({resources.SECRETS, resources.CONFIG_MAPS, resources.SERVICE_ACCOUNTS})
_UNRELATED = "no relationship found between node '{}' and this object"


class NodeAuthorizer:
    """Decides about requests of nodes."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    async def check(self, access: Access) -> None:
        """Let a node's request pass.

        Raises:
            StatusError: 403 when it may not.
        """
        node, resource = users.node_name(access.user), access.resource
        if not access.subresource and access.verb in _READ and resource in _OPEN:
            return
        if resource == resources.PODS:
            await self._pods(access, node)
        elif resource == resources.NODES:
            _own_node(access, node)
        elif resource == resources.LEASES:
            _own_lease(access, node)
        elif resource == resources.EVENTS:
            if access.verb not in ("create", "update", "patch"):
                raise access.denied()
        elif resource in _REFERENCED:
            await self._referenced(access, node)
        else:
            raise access.denied()

    async def _pods(self, access: Access, node: str) -> None:
        if access.verb in ("list", "watch") and not access.subresource:
            if access.selected_node != node:
                raise access.denied("can only list pods with a field selector spec.nodeName of its own name")
            return
        allowed = (access.subresource == "" and access.verb in ("get", "delete")) or (
            access.subresource == "status" and access.verb in ("get", "update", "patch")
        )
        if not allowed and (access.subresource, access.verb) != ("eviction", "create"):
            raise access.denied()
        if not await self._pod_is_on(node, access.namespace, access.name):
            raise access.denied(_UNRELATED.format(node))

    async def _pod_is_on(self, node: str, namespace: str, name: str) -> bool:
        cached = self._lookup.cached(resources.PODS, namespace, name)
        if cached is not None and cached.fields(resources.PODS).get("spec.nodeName") == node:
            return True
        fresh = await self._lookup.fresh(resources.PODS, namespace, name)
        # A pod that is gone has nothing to hide: the request's own answer is the clearer one.
        return fresh is None or fresh.fields(resources.PODS).get("spec.nodeName") == node

    async def _referenced(self, access: Access, node: str) -> None:
        """Single objects that a pod on the node refers to, and tokens of its pods' service accounts."""
        token = access.resource == resources.SERVICE_ACCOUNTS and access.subresource == "token"
        if (access.verb not in _READ or access.subresource) and not (token and access.verb == "create"):
            raise access.denied()
        name = access.name or access.selected_name
        if not name or not access.namespace:
            raise access.denied("can only read individual resources of this type")
        wanted = (access.resource.plural, name)
        if self._refers(node, access.namespace, wanted):
            return
        # The node may have heard of its pod from another API server, whose cache is ahead of ours.
        await self._lookup.catch_up()
        if not self._refers(node, access.namespace, wanted):
            raise access.denied(_UNRELATED.format(node))

    def _refers(self, node: str, namespace: str, wanted: tuple[str, str]) -> bool:
        pods = self._lookup.pods_of_node(node)
        return any(pod.namespace == namespace and wanted in references(pod) for pod in pods)


def _own_node(access: Access, node: str) -> None:
    # A node has no name yet when it asks to create itself; admission looks into the document.
    verbs = {"": ("create", "update", "patch"), "status": ("get", "update", "patch")}.get(access.subresource, ())
    if access.verb not in verbs:
        raise access.denied()
    if access.name not in ("", node):
        raise access.denied(f"node '{node}' cannot modify node '{access.name}'")


def _own_lease(access: Access, node: str) -> None:
    allowed = access.verb in _WRITE or access.verb == "get"
    if not allowed or access.namespace != NODE_LEASES or access.name not in ("", node):
        raise access.denied(f"can only access node lease with the same name as the requesting node '{node}'")


def references(pod: Entry) -> frozenset[tuple[str, str]]:
    """The (plural, name) of everything in its namespace that a pod refers to. Kept with the entry."""
    if pod.notes is None:
        pod.notes = frozenset(_references(pod.document().get("spec") or {}))
    noted: frozenset[tuple[str, str]] = pod.notes
    return noted


def _references(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if spec.get("serviceAccountName"):
        yield resources.SERVICE_ACCOUNTS.plural, spec["serviceAccountName"]
    for secret in spec.get("imagePullSecrets") or ():
        yield resources.SECRETS.plural, secret.get("name", "")
    for volume in spec.get("volumes") or ():
        yield from _of_volume(volume)
        for source in (volume.get("projected") or {}).get("sources") or ():
            yield from _of_source(source)
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field) or ():
            yield from _of_container(container)


def _of_volume(volume: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "secret" in volume:
        yield resources.SECRETS.plural, volume["secret"].get("secretName", "")
    if "configMap" in volume:
        yield resources.CONFIG_MAPS.plural, volume["configMap"].get("name", "")


def _of_source(source: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "secret" in source:
        yield resources.SECRETS.plural, source["secret"].get("name", "")
    if "configMap" in source:
        yield resources.CONFIG_MAPS.plural, source["configMap"].get("name", "")


_ENVIRONMENT: tuple[tuple[str, Resource], ...] = (
    ("secretRef", resources.SECRETS),
    ("secretKeyRef", resources.SECRETS),
    ("configMapRef", resources.CONFIG_MAPS),
    ("configMapKeyRef", resources.CONFIG_MAPS),
)


def _of_container(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    sources = [*(container.get("envFrom") or ()), *((e.get("valueFrom") or {}) for e in container.get("env") or ())]
    for source in sources:
        for field, resource in _ENVIRONMENT:
            if field in source:
                yield resource.plural, source[field].get("name", "")
