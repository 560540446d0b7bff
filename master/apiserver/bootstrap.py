"""The objects that a cluster has from the start, and the endpoints of its own API. Every master keeps them alike.

Writes the namespaces `default`, `kube-system`, `kube-public`, `kube-node-lease`, the Services `default/kubernetes` and
`kube-system/kube-dns`, and the Endpoints and EndpointSlices of the former.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.api.resources import Resource
from kybern.backoff import Backoff
from kybern.client.interface import Client, WriteOptions
from kybern.client.store import StoreClient, StoreRefused, StoreUnavailable
from kybern.config.models import Cluster
from master.apiserver.entry import Document, Entry
from master.apiserver.living import Address, living

log = logging.getLogger(__name__)

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
# Services that every node answers by itself; the proxy leaves them alone.
NODE_LOCAL = "kybern.io/node-local"

_OPTIONS = WriteOptions(field_manager="kybern-apiserver")
_INTERVAL = 2.0
_API = "kubernetes"
_SERVICE_LABEL = "kubernetes.io/service-name"
# How an object is known to be another's work in the meantime.
_LOST_RACES = (Reason.ALREADY_EXISTS, Reason.CONFLICT)


class Bootstrap:
    """Keeps those objects; run it in a task."""

    def __init__(self, client: Client, store: StoreClient, cluster: Cluster) -> None:
        self._client = client
        self._store = store
        self._cluster = cluster

    async def run(self) -> None:
        """Make what is missing, then keep the endpoints, until cancelled."""
        backoff = Backoff(base=0.2, cap=5.0)
        made = False
        while True:
            try:
                if not made:
                    await self.make()
                    made = True
                await self.reconcile()
            except (StatusError, StoreUnavailable, StoreRefused) as error:
                wait = backoff.next()
                log.warning("the cluster's own objects are not as they should be (%s), again in %.1f s", error, wait)
                await asyncio.sleep(wait)
            else:
                backoff.reset()
                await asyncio.sleep(_INTERVAL)

    async def make(self) -> None:
        """Make the namespaces and Services that are missing.

        Raises:
            StatusError: when the API or the store fails.
        """
        for name in NAMESPACES:
            await self._create(resources.NAMESPACES, {"metadata": {"name": name}})
        await self._create(resources.SERVICES, api_service(self._cluster), "default")
        await self._create(resources.SERVICES, dns_service(self._cluster), "kube-system")

    async def _create(self, resource: Resource, document: Mapping[str, Any], namespace: str = "") -> None:
        try:
            await self._client.get(resource, document["metadata"]["name"], namespace)
        except StatusError as error:
            if error.reason != Reason.NOT_FOUND:
                raise
        else:
            return
        try:
            await self._client.create(resource, document, namespace, options=_OPTIONS)
            log.info("created %s %s", resource, document["metadata"]["name"])
        except StatusError as error:
            if error.reason not in _LOST_RACES:
                raise

    async def reconcile(self) -> None:
        """Bring the endpoints of the API in step with the masters that live.

        Raises:
            StatusError: when the API fails.
            StoreUnavailable: when the store does not answer.
        """
        masters = await living(self._store)
        if not masters:
            return
        endpoints = [api_endpoints(masters)]
        slices = api_slices(masters)
        await self._bring(resources.ENDPOINTS, endpoints, await self._present(resources.ENDPOINTS))
        await self._bring(resources.ENDPOINT_SLICES, slices, await self._present(resources.ENDPOINT_SLICES))

    async def _present(self, resource: Resource) -> dict[str, Document]:
        if resource == resources.ENDPOINTS:
            listed = await self._client.list(resource, "default", fields=f"metadata.name={_API}")
        else:
            listed = await self._client.list(resource, "default", labels=f"{_SERVICE_LABEL}={_API}")
        documents = (Entry(b"", "", "", raw, 0).document() for raw in listed.items)
        return {d["metadata"]["name"]: d for d in documents}

    async def _bring(self, resource: Resource, wanted: Sequence[Document], present: Mapping[str, Document]) -> None:
        names = {d["metadata"]["name"] for d in wanted}
        try:
            for document in wanted:
                there = present.get(document["metadata"]["name"])
                if there is None:
                    await self._client.create(resource, document, "default", options=_OPTIONS)
                elif not _covers(there, document):
                    version = there["metadata"]["resourceVersion"]
                    document["metadata"]["resourceVersion"] = version
                    await self._client.update(resource, _name(document), document, "default", options=_OPTIONS)
            for name in present.keys() - names:
                await self._client.delete(resource, name, "default", options=_OPTIONS)
        except StatusError as error:
            # Another master was quicker, with what is the same to within a moment.
            if error.reason not in (*_LOST_RACES, Reason.NOT_FOUND):
                raise


def _name(document: Document) -> str:
    return str(document["metadata"]["name"])


def _covers(there: Any, wanted: Any) -> bool:
    """Whether everything that is wanted is there; lists must be the same."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(_covers(there.get(k), v) for k, v in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(there, list)
            and len(there) == len(wanted)
            and all(_covers(a, b) for a, b in zip(there, wanted, strict=True))
        )
    return bool(there == wanted)


def api_address(cluster: Cluster) -> str:
    """The address of the Service `kubernetes`: the first of the range."""
    return str(ipaddress.ip_network(cluster.service_cidr)[1])


def api_service(cluster: Cluster) -> Document:
    """The Service by which pods reach the API."""
    return {
        "metadata": {"name": _API, "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": api_address(cluster),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
        },
    }


def dns_service(cluster: Cluster) -> Document:
    """The Service by which pods reach the cluster's DNS; each node answers it by itself."""
    labels = {
        "k8s-app": "kube-dns",
        "kubernetes.io/cluster-service": "true",
        "kubernetes.io/name": "KubeDNS",
    }
    return {
        "metadata": {"name": "kube-dns", "labels": labels, "annotations": {NODE_LOCAL: "true"}},
        "spec": {
            "clusterIP": cluster.dns_address,
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    }


def _by_port(masters: Iterable[Address]) -> list[tuple[int, list[str]]]:
    ordered = sorted(masters, key=lambda m: (m.port, m.host))
    return [(port, [m.host for m in group]) for port, group in groupby(ordered, key=lambda m: m.port)]


def api_endpoints(masters: Sequence[Address]) -> Document:
    """The Endpoints of the API."""
    subsets = [
        {"addresses": [{"ip": h} for h in hosts], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}
        for port, hosts in _by_port(masters)
    ]
    metadata = {"name": _API, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}
    return {"metadata": metadata, "subsets": subsets}


def api_slices(masters: Sequence[Address]) -> list[Document]:
    """The EndpointSlices of the API: one, unless masters listen on different ports."""
    documents: list[Document] = []
    for port, hosts in _by_port(masters):
        documents.append(
            {
                "metadata": {
                    "name": f"{_API}-{port}" if documents else _API,
                    "labels": {_SERVICE_LABEL: _API},
                },
                "addressType": "IPv6" if ":" in hosts[0] else "IPv4",
                "endpoints": [{"addresses": [h], "conditions": {"ready": True}} for h in hosts],
                "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
            }
        )
    return documents
