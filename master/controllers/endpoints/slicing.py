"""How endpoints are spread over slices, with as few writes as possible. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kybern.api.types import Endpoint, EndpointSlice
from master.controllers.endpoints.resolving import IPV4, Group, Groups

MOST = 100


@dataclass(slots=True)
class Content:
    """What a slice is to hold; `of` is the existing slice, None for a new one."""

    group: Group
    endpoints: list[Endpoint]
    of: EndpointSlice | None = None


@dataclass(slots=True)
class Changes:
    """Slices to write and to delete."""

    write: list[Content] = field(default_factory=list)
    delete: list[EndpointSlice] = field(default_factory=list)


def plan(existing: Iterable[EndpointSlice], wanted: Groups, most: int = MOST) -> Changes:
    """Changes to the slices of a Service. A Service without endpoints has one empty slice."""
    changes = Changes()
    by_group: dict[Group, list[EndpointSlice]] = {}
    for current in sorted(existing, key=lambda s: s.name):
        by_group.setdefault(Group(current.address_type, current.ports), []).append(current)
    if not wanted:
        _placeholder(by_group, changes)
        return changes
    for group, endpoints in wanted.items():
        _plan_group(group, by_group.pop(group, []), endpoints, most, changes)
    changes.delete += [s for slices in by_group.values() for s in slices]
    return changes


def _placeholder(by_group: dict[Group, list[EndpointSlice]], changes: Changes) -> None:
    """So that whoever looks sees that the Service was looked at."""
    slices = [s for group in by_group.values() for s in group]
    kept = next((s for s in slices if not s.endpoints), None) or next(iter(slices), None)
    changes.delete += [s for s in slices if s is not kept]
    if kept is None:
        changes.write.append(Content(Group(IPV4, ()), []))
    elif kept.endpoints or kept.ports:
        changes.write.append(Content(Group(kept.address_type, ()), [], kept))


def _plan_group(
    group: Group, slices: Sequence[EndpointSlice], endpoints: Sequence[Endpoint], most: int, changes: Changes
) -> None:
    missing = {e.addresses[0]: e for e in endpoints}
    touched: list[Content] = []
    untouched: list[Content] = []
    for current in slices:
        kept = [missing.pop(e.addresses[0]) for e in current.endpoints if e.addresses and e.addresses[0] in missing]
        content = Content(group, kept[:most], current)
        missing.update({e.addresses[0]: e for e in kept[most:]})
        (untouched if tuple(content.endpoints) == current.endpoints else touched).append(content)
    rest = list(missing.values())
    # Slices that are written anyway take new endpoints for nothing.
    for content in touched:
        rest = _fill(content, rest, most)
    if rest and len(rest) < most:
        roomy = [c for c in untouched if len(c.endpoints) + len(rest) <= most]
        if roomy:
            fullest = max(roomy, key=lambda c: len(c.endpoints))
            rest = _fill(fullest, rest, most)
            touched.append(fullest)
    while rest:
        content = Content(group, [])
        rest = _fill(content, rest, most)
        touched.append(content)
    changes.delete += [c.of for c in touched if not c.endpoints and c.of is not None]
    changes.delete += [c.of for c in untouched if not c.endpoints and c.of is not None]
    changes.write += [c for c in touched if c.endpoints]


def _fill(content: Content, endpoints: list[Endpoint], most: int) -> list[Endpoint]:
    room = most - len(content.endpoints)
    content.endpoints += endpoints[:room]
    return endpoints[room:]
