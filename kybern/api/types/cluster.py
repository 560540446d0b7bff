"""Views of nodes, namespaces, leases and events."""

from __future__ import annotations

from datetime import datetime

import msgspec

from kybern.api.types.base import Condition, Object, View


class Taint(View):
    """What keeps pods that do not tolerate it off a node."""

    key: str
    value: str = ""
    # NoSchedule, PreferNoSchedule or NoExecute.
    effect: str = ""
    time_added: datetime | None = None


class NodeSpec(View):
    """What a node is meant to be."""

    pod_cidr: str = msgspec.field(default="", name="podCIDR")
    pod_cidrs: tuple[str, ...] = msgspec.field(default=(), name="podCIDRs")
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False


class NodeAddress(View):
    """One address of a node; `type` is InternalIP, ExternalIP or Hostname."""

    type: str
    address: str


class DaemonEndpoint(View):
    """A port that a daemon on the node listens on."""

    port: int = msgspec.field(default=0, name="Port")


class DaemonEndpoints(View):
    """The daemons on the node that listen."""

    kubelet_endpoint: DaemonEndpoint = msgspec.field(default_factory=DaemonEndpoint)


class NodeStatus(View):
    """What a node has. Quantities stay text; kybern.api.quantity reads them."""

    capacity: dict[str, str] = {}
    allocatable: dict[str, str] = {}
    conditions: tuple[Condition, ...] = ()
    addresses: tuple[NodeAddress, ...] = ()
    daemon_endpoints: DaemonEndpoints = msgspec.field(default_factory=DaemonEndpoints)


class Node(Object):
    """A machine that runs pods."""

    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)

    @property
    def internal_ip(self) -> str:
        """The address that other hosts of the cluster reach it by; empty when it has not said so yet."""
        return next((a.address for a in self.status.addresses if a.type == "InternalIP"), "")

    @property
    def ready(self) -> bool:
        """Whether its agent says, and said lately enough, that it can run pods."""
        return any(c.type == "Ready" and c.true for c in self.status.conditions)


class NamespaceSpec(View):
    """Finalizers of the namespace's content."""

    finalizers: tuple[str, ...] = ()


class NamespaceStatus(View):
    """`Active` or `Terminating`."""

    phase: str = ""


class Namespace(Object):
    """A scope for names."""

    spec: NamespaceSpec = msgspec.field(default_factory=NamespaceSpec)
    status: NamespaceStatus = msgspec.field(default_factory=NamespaceStatus)


class LeaseSpec(View):
    """Who holds the lease, and until when."""

    holder_identity: str = ""
    lease_duration_seconds: int = 0
    acquire_time: datetime | None = None
    renew_time: datetime | None = None
    lease_transitions: int = 0


class Lease(Object):
    """A sign of life, or a leadership."""

    spec: LeaseSpec = msgspec.field(default_factory=LeaseSpec)


class ObjectReference(View):
    """Points to an object."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""


class Event(Object):
    """Something that happened to an object."""

    involved_object: ObjectReference = msgspec.field(default_factory=ObjectReference)
    reason: str = ""
    message: str = ""
    type: str = ""
    count: int = 0
    first_timestamp: datetime | None = None
    last_timestamp: datetime | None = None
    event_time: datetime | None = None
