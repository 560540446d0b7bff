"""The kinds of objects that the API serves: one table, read by API servers, clients and the command line.

A `Resource` is what is known of a kind without its schema. Custom resources become further `Resource`s at run time, so
nothing may assume that the table is complete: look kinds up in a `Registry`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Subresource:
    """A part of an object with a path of its own."""

    name: str
    verbs: tuple[str, ...]
    # Kind of the bodies; the resource's own when empty.
    kind: str = ""
    group: str = ""
    version: str = ""


STATUS = Subresource("status", ("get", "patch", "update"))
SCALE = Subresource("scale", ("get", "patch", "update"), kind="Scale", group="autoscaling", version="v1")


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object in one API version."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[Subresource, ...] = ()
    # Whether `status` is written through its subresource alone, and by that nothing else is.
    status_isolated: bool = False
    # Whether metadata.generation counts changes of everything but metadata and status.
    has_generation: bool = False
    # DELETE answers with the object for some kinds and with a Status for the rest (KUBERNETES_API point 7).
    delete_returns_object: bool = False
    # Fields beyond metadata.name and metadata.namespace that field selectors may name.
    selectable_fields: tuple[str, ...] = ()
    # Seconds that a deleted object may take to end when neither request nor object says so; None: deleted at once.
    graceful: bool = False
    aliases: tuple[str, ...] = field(default=())

    @property
    def api_version(self) -> str:
        """`v1` or `group/version`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """`pods` or `deployments.apps`, as error messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def subresource(self, name: str) -> Subresource | None:
        """The subresource of that name."""
        return next((s for s in self.subresources if s.name == name), None)

    def __str__(self) -> str:
        return self.qualified


class Registry:
    """The resources that are served, by group, version and plural, and by kind."""

    def __init__(self, resources: Iterable[Resource] = ()) -> None:
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self._by_kind: dict[tuple[str, str], Resource] = {}
        for resource in resources:
            self.add(resource)

    def add(self, resource: Resource) -> None:
        """Serve a resource, in place of one with the same group, version and plural."""
        self._by_path[resource.group, resource.version, resource.plural] = resource
        self._by_kind[resource.api_version, resource.kind] = resource

    def remove(self, resource: Resource) -> None:
        """Stop serving a resource."""
        self._by_path.pop((resource.group, resource.version, resource.plural), None)
        self._by_kind.pop((resource.api_version, resource.kind), None)

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource under a REST path."""
        return self._by_path.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        """The resource of an object that names its apiVersion and kind."""
        return self._by_kind.get((api_version, kind))

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._by_path.values())


NAMESPACES = Resource(
    "", "v1", "Namespace", "namespaces", namespaced=False, short_names=("ns",), status_isolated=True,
    verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
    subresources=(STATUS, Subresource("finalize", ("update",))), selectable_fields=("status.phase",),
)  # fmt: skip
NODES = Resource(
    "", "v1", "Node", "nodes", namespaced=False, short_names=("no",), status_isolated=True,
    subresources=(STATUS,), selectable_fields=("spec.unschedulable",),
)  # fmt: skip
PODS = Resource(
    "", "v1", "Pod", "pods", short_names=("po",), categories=("all",), status_isolated=True,
    delete_returns_object=True, graceful=True, has_generation=True,
    subresources=(
        STATUS,
        Subresource("binding", ("create",), kind="Binding"),
        Subresource("eviction", ("create",), kind="Eviction", group="policy", version="v1"),
        Subresource("log", ("get",)),
        Subresource("exec", ("create", "get"), kind="PodExecOptions"),
        Subresource("attach", ("create", "get"), kind="PodAttachOptions"),
        Subresource("portforward", ("create", "get"), kind="PodPortForwardOptions"),
    ),
    selectable_fields=(
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
        "status.phase", "status.podIP", "status.nominatedNodeName",
    ),
)  # fmt: skip
SERVICES = Resource(
    "", "v1", "Service", "services", short_names=("svc",), categories=("all",), status_isolated=True,
    delete_returns_object=True, subresources=(STATUS,), selectable_fields=("spec.clusterIP", "spec.type"),
)  # fmt: skip
ENDPOINTS = Resource("", "v1", "Endpoints", "endpoints", singular="endpoints", short_names=("ep",))
CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps", short_names=("cm",))
SECRETS = Resource("", "v1", "Secret", "secrets", selectable_fields=("type",))
SERVICE_ACCOUNTS = Resource(
    "", "v1", "ServiceAccount", "serviceaccounts", short_names=("sa",), delete_returns_object=True,
    subresources=(
        Subresource("token", ("create",), kind="TokenRequest", group="authentication.k8s.io", version="v1"),
    ),
)  # fmt: skip
EVENTS = Resource(
    "", "v1", "Event", "events", short_names=("ev",),
    selectable_fields=(
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
        "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
        "reason", "reportingComponent", "source", "type",
    ),
)  # fmt: skip
REPLICA_SETS = Resource(
    "apps", "v1", "ReplicaSet", "replicasets", short_names=("rs",), categories=("all",), status_isolated=True,
    has_generation=True, subresources=(STATUS, SCALE), selectable_fields=("status.replicas",),
)  # fmt: skip
DEPLOYMENTS = Resource(
    "apps", "v1", "Deployment", "deployments", short_names=("deploy",), categories=("all",), status_isolated=True,
    has_generation=True, subresources=(STATUS, SCALE),
)  # fmt: skip
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", has_generation=True)

BUILT_IN: tuple[Resource, ...] = (
    CONFIG_MAPS, ENDPOINTS, EVENTS, NAMESPACES, NODES, PODS, SECRETS, SERVICE_ACCOUNTS, SERVICES,
    DEPLOYMENTS, REPLICA_SETS, LEASES, ENDPOINT_SLICES,
)  # fmt: skip


def built_in() -> Registry:
    """A new registry with every kind that is not a custom resource."""
    return Registry(BUILT_IN)
