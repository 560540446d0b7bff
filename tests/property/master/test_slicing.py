"""How endpoints are spread over slices: nothing lost, nothing twice, and no write without need."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kybern.api.types import Endpoint, EndpointConditions, EndpointPort, EndpointSlice, ObjectMeta
from master.controllers.endpoints.resolving import IPV4, Group, Groups
from master.controllers.endpoints.slicing import Changes, plan

MOST = 4
GROUPS = [Group(IPV4, (EndpointPort("http", "TCP", port),)) for port in (80, 8080)]


@st.composite
def wanted(draw: st.DrawFn) -> Groups:
    result: dict[Group, tuple[Endpoint, ...]] = {}
    for number, group in enumerate(GROUPS):
        chosen = draw(st.sets(st.integers(1, 15)))
        endpoints = [
            Endpoint((f"10.{number}.0.{n}",), EndpointConditions(ready=draw(st.booleans()))) for n in sorted(chosen)
        ]
        if endpoints:
            result[group] = tuple(endpoints)
    return result


def apply(slices: list[EndpointSlice], changes: Changes, first: int) -> list[EndpointSlice]:
    gone = {s.name for s in changes.delete} | {c.of.name for c in changes.write if c.of is not None}
    result = [s for s in slices if s.name not in gone]
    for number, content in enumerate(changes.write):
        name = content.of.name if content.of is not None else f"s{first + number:04}"
        result.append(
            EndpointSlice(
                metadata=ObjectMeta(name=name),
                address_type=content.group.address_type,
                endpoints=tuple(content.endpoints),
                ports=content.group.ports,
            )
        )
    return result


@given(steps=st.lists(wanted(), min_size=1, max_size=6))
def test_slices_hold_exactly_what_is_wanted(steps: list[Groups]) -> None:
    slices: list[EndpointSlice] = []
    for number, groups in enumerate(steps):
        slices = apply(slices, plan(slices, groups, MOST), number * 100)
        held = [(Group(s.address_type, s.ports), e) for s in slices for e in s.endpoints]
        assert sorted(held, key=str) == sorted(((g, e) for g, es in groups.items() for e in es), key=str)
        assert all(len(s.endpoints) <= MOST for s in slices)
        assert slices  # a Service that was looked at has one, be it empty
        again = plan(slices, groups, MOST)
        assert not again.write
        assert not again.delete


@given(groups=wanted(), position=st.integers(0, 100))
def test_one_changed_endpoint_is_one_write(groups: Groups, position: int) -> None:
    slices = apply([], plan([], groups, MOST), 0)
    places = [(g, n) for g, endpoints in groups.items() for n in range(len(endpoints))]
    if not places:
        return
    group, at = places[position % len(places)]
    changed = list(groups[group])
    old = changed[at]
    changed[at] = Endpoint(old.addresses, EndpointConditions(ready=not old.conditions.ready))
    changes = plan(slices, {**groups, group: tuple(changed)}, MOST)
    assert len(changes.write) == 1
    assert not changes.delete
