"""Events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from kybern.api.types.base import View
from kybern.api.types.cluster import Event
from master.rest.printers.base import Cell, Column, age, printer, wide


class _Source(View):
    component: str = ""
    host: str = ""


class _Series(View):
    count: int = 0
    last_observed_time: datetime | None = None


class _Event(Event):
    source: _Source = msgspec.field(default_factory=_Source)
    series: _Series | None = None
    reporting_component: str = ""
    reporting_instance: str = ""


def _event(it: _Event, now: datetime) -> Sequence[Cell]:
    first = it.first_timestamp or it.event_time
    last = it.last_timestamp or first
    count = it.count or 1
    if it.series is not None:
        last = it.series.last_observed_time or last
        count = it.series.count
    target = it.involved_object
    return (
        age(last, now),
        it.type,
        it.reason,
        f"{target.kind.lower()}/{target.name}" if target.name else target.kind.lower(),
        target.field_path,
        _source(it),
        it.message.strip(),
        age(first, now),
        count,
        it.name,
    )


def _source(it: _Event) -> str:
    component = it.source.component or it.reporting_component
    host = it.source.host or it.reporting_instance
    return f"{component}, {host}" if host else component


EVENTS = printer(
    _Event,
    (
        Column("Last Seen"), Column("Type"), Column("Reason"), Column("Object"), wide("Subobject"), wide("Source"),
        Column("Message"), wide("First Seen"), wide("Count", "integer"), Column("Name", format="name", priority=1),
    ),
    _event,
)  # fmt: skip
