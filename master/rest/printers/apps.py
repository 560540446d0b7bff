"""Deployments, ReplicaSets, and the scale of either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from kybern.api.types.apps import Deployment, ReplicaSet
from kybern.api.types.base import Object, View
from master.rest.printers.base import AGE, NAME, Cell, Column, age, joined, number, printer, selector, wide

_TEMPLATE_COLUMNS = (wide("Containers"), wide("Images"), wide("Selector"))


def _template_cells(template: Mapping[str, Any], chosen: Mapping[str, Any] | None) -> tuple[str, str, str]:
    containers = (template.get("spec") or {}).get("containers") or ()
    names = joined(str(c.get("name", "")) for c in containers)
    return names, joined(str(c.get("image", "")) for c in containers), selector(chosen)


def _deployment(it: Deployment, now: datetime) -> Sequence[Cell]:
    return (
        it.name,
        f"{it.status.ready_replicas}/{it.spec.replicas}",
        it.status.updated_replicas,
        it.status.available_replicas,
        age(it.metadata.creation_timestamp, now),
        *_template_cells(it.spec.template, it.spec.selector),
    )


DEPLOYMENTS = printer(
    Deployment,
    (NAME, Column("Ready"), number("Up-to-date"), number("Available"), AGE, *_TEMPLATE_COLUMNS),
    _deployment,
)


def _replica_set(it: ReplicaSet, now: datetime) -> Sequence[Cell]:
    return (
        it.name,
        it.spec.replicas,
        it.status.replicas,
        it.status.ready_replicas,
        age(it.metadata.creation_timestamp, now),
        *_template_cells(it.spec.template, it.spec.selector),
    )


REPLICA_SETS = printer(
    ReplicaSet,
    (NAME, number("Desired"), number("Current"), number("Ready"), AGE, *_TEMPLATE_COLUMNS),
    _replica_set,
)


class _Replicas(View):
    replicas: int = 0


class _Scale(Object):
    spec: _Replicas = msgspec.field(default_factory=_Replicas)
    status: _Replicas = msgspec.field(default_factory=_Replicas)


def _scale(it: _Scale, now: datetime) -> Sequence[Cell]:
    return it.name, it.spec.replicas, it.status.replicas, age(it.metadata.creation_timestamp, now)


SCALES = printer(_Scale, (NAME, number("Desired"), number("Available"), AGE), _scale)
