"""Views of the apps group."""

from __future__ import annotations

from typing import Any

import msgspec

from kybern.api.types.base import Condition, Object, View


class RollingUpdate(View):
    """How far a rolling update may go below and above the wanted count; numbers or percentages."""

    max_unavailable: int | str | None = None
    max_surge: int | str | None = None


class DeploymentStrategy(View):
    """How old pods are replaced by new ones: `RollingUpdate` or `Recreate`."""

    type: str = "RollingUpdate"
    rolling_update: RollingUpdate | None = None


class DeploymentSpec(View):
    """What a Deployment wants. `template` stays JSON: it is compared and copied whole."""

    replicas: int = 1
    selector: dict[str, Any] | None = None
    template: dict[str, Any] = {}
    strategy: DeploymentStrategy = msgspec.field(default_factory=DeploymentStrategy)
    min_ready_seconds: int = 0
    revision_history_limit: int = 10
    paused: bool = False
    progress_deadline_seconds: int = 600


class DeploymentStatus(View):
    """What a Deployment has."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    collision_count: int = 0
    conditions: tuple[Condition, ...] = ()


class Deployment(Object):
    """Keeps a ReplicaSet per version of its template and shifts pods to the newest."""

    spec: DeploymentSpec = msgspec.field(default_factory=DeploymentSpec)
    status: DeploymentStatus = msgspec.field(default_factory=DeploymentStatus)


class ReplicaSetSpec(View):
    """What a ReplicaSet wants."""

    replicas: int = 1
    selector: dict[str, Any] | None = None
    template: dict[str, Any] = {}
    min_ready_seconds: int = 0


class ReplicaSetStatus(View):
    """What a ReplicaSet has."""

    observed_generation: int = 0
    replicas: int = 0
    fully_labeled_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    conditions: tuple[Condition, ...] = ()


class ReplicaSet(Object):
    """Keeps a number of identical pods."""

    spec: ReplicaSetSpec = msgspec.field(default_factory=ReplicaSetSpec)
    status: ReplicaSetStatus = msgspec.field(default_factory=ReplicaSetStatus)
