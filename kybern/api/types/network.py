"""Views of Services and their endpoints."""

from __future__ import annotations

import msgspec

from kybern.api.types.base import Object, View
from kybern.api.types.cluster import ObjectReference


class ServicePort(View):
    """One port of a Service."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    # Number or name of the pods' port; the Service's own port when absent.
    target_port: int | str | None = None
    node_port: int = 0
    app_protocol: str | None = None


class ClientIP(View):
    """Affinity by the client's address."""

    timeout_seconds: int = 10800


class SessionAffinityConfig(View):
    """Settings of the affinity."""

    client_ip: ClientIP | None = msgspec.field(default=None, name="clientIP")


class ServiceSpec(View):
    """What a Service offers, and which pods serve it."""

    type: str = "ClusterIP"
    selector: dict[str, str] = {}
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    external_ips: tuple[str, ...] = msgspec.field(default=(), name="externalIPs")
    external_name: str = ""
    # Client ranges that a load balancer address is open to; empty for all.
    load_balancer_source_ranges: tuple[str, ...] = ()
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    external_traffic_policy: str = ""
    internal_traffic_policy: str = "Cluster"
    publish_not_ready_addresses: bool = False

    @property
    def headless(self) -> bool:
        """Whether it has no address of its own on purpose."""
        return self.cluster_ip == "None"


class LoadBalancerIngress(View):
    """One address of a load balancer. `ip_mode` says whether packets arrive with it (`VIP`) or not (`Proxy`)."""

    ip: str = ""
    hostname: str = ""
    ip_mode: str = "VIP"


class LoadBalancerStatus(View):
    """What a load balancer gave the Service."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(View):
    """What a Service has."""

    load_balancer: LoadBalancerStatus = msgspec.field(default_factory=LoadBalancerStatus)


class Service(Object):
    """A stable name and address for a set of pods."""

    spec: ServiceSpec = msgspec.field(default_factory=ServiceSpec)
    status: ServiceStatus = msgspec.field(default_factory=ServiceStatus)


class EndpointConditions(View):
    """What an endpoint can do now. Absent means: ready and serving, not terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(View):
    """One address that serves."""

    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = msgspec.field(default_factory=EndpointConditions)
    hostname: str | None = None
    node_name: str | None = None
    target_ref: ObjectReference | None = None
    zone: str | None = None


class EndpointPort(View):
    """One port that every endpoint of a slice serves."""

    name: str = ""
    protocol: str = "TCP"
    port: int | None = None
    app_protocol: str | None = None


class EndpointSlice(Object):
    """Some of the endpoints of a Service."""

    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()

    @property
    def service(self) -> str:
        """Name of the Service that it belongs to; empty when it belongs to none."""
        return self.metadata.labels.get("kubernetes.io/service-name", "")
