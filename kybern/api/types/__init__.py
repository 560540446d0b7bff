"""Typed, read-only views of the kinds that Kybern's own code acts on.

A view holds the fields that some code reads; decoding drops the rest, so a view is never written back. Components write
patches. Fields are in snake_case here and in Kubernetes' camelCase on the wire; absent fields have the values that
Kubernetes gives them a meaning for. Views are immutable and hold tuples, so they can be shared freely.
"""

from kybern.api.types.apps import (
    Deployment,
    DeploymentSpec,
    DeploymentStatus,
    DeploymentStrategy,
    ReplicaSet,
    ReplicaSetSpec,
    ReplicaSetStatus,
)
from kybern.api.types.base import Condition, Object, ObjectMeta, OwnerReference, View, decode
from kybern.api.types.cluster import Event, Lease, LeaseSpec, Namespace, Node, NodeAddress, NodeSpec, NodeStatus, Taint
from kybern.api.types.config import ConfigMap, Secret, ServiceAccount
from kybern.api.types.network import (
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
    Service,
    ServicePort,
    ServiceSpec,
)
from kybern.api.types.pods import Container, ContainerStatus, Pod, PodSpec, PodStatus, PodTemplate, Toleration

__all__ = [
    "Condition",
    "ConfigMap",
    "Container",
    "ContainerStatus",
    "Deployment",
    "DeploymentSpec",
    "DeploymentStatus",
    "DeploymentStrategy",
    "Endpoint",
    "EndpointConditions",
    "EndpointPort",
    "EndpointSlice",
    "Event",
    "Lease",
    "LeaseSpec",
    "Namespace",
    "Node",
    "NodeAddress",
    "NodeSpec",
    "NodeStatus",
    "Object",
    "ObjectMeta",
    "OwnerReference",
    "Pod",
    "PodSpec",
    "PodStatus",
    "PodTemplate",
    "ReplicaSet",
    "ReplicaSetSpec",
    "ReplicaSetStatus",
    "Secret",
    "Service",
    "ServiceAccount",
    "ServicePort",
    "ServiceSpec",
    "Taint",
    "Toleration",
    "View",
    "decode",
]
