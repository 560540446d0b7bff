"""Leases."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from kybern.api.types.cluster import Lease
from master.rest.printers.base import AGE, NAME, Cell, Column, age, printer


def _lease(it: Lease, now: datetime) -> Sequence[Cell]:
    return it.name, it.spec.holder_identity, age(it.metadata.creation_timestamp, now)


LEASES = printer(Lease, (NAME, Column("Holder"), AGE), _lease)
