"""The arrays against a count by hand: whatever comes and goes, they say what is there."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kybern.api import selectors
from master.scheduler.pods import Matcher, PodInfo
from master.scheduler.profile import Profile
from master.scheduler.snapshot import Snapshot
from tests.unit.master.scheduler.objects import info, node

NODES = [f"n{number}" for number in range(40)]  # more than the first arrays have rows
MATCHER = Matcher(frozenset(("default",)), selectors.parse_labels("app=a"))

names = st.one_of(st.sampled_from(NODES[:3]), st.sampled_from(NODES))
moves = st.one_of(
    st.tuples(st.just("node"), names, st.integers(1, 8)),
    st.tuples(st.just("gone"), names, st.just(0)),
    st.tuples(st.just("place"), st.integers(0, 15), names),
    st.tuples(st.just("remove"), st.integers(0, 15), st.just(0)),
    st.tuples(st.just("count"), st.just(0), st.just(0)),
)


def pod(number: int) -> PodInfo:
    extra = {"example.com/thing": "1"} if number % 5 == 0 else {}
    ports = [{"containerPort": 1, "hostPort": 1000 + number % 3, "protocol": "TCP"}] if number % 4 == 0 else None
    return info(
        f"p{number}",
        labels={"app": "ab"[number % 2]},
        owner=f"rs{number % 3}",
        requests={"cpu": f"{100 * number}m", **extra},
        ports=ports,
    )


@given(st.lists(moves, max_size=60))
def test_the_arrays_say_what_is_there(script: list[tuple[str, object, object]]) -> None:
    snapshot, nodes, placed = Snapshot(), {}, {}
    for move, what, where in script:
        match move, what, where:
            case "node", str(name), int(cpu):
                snapshot.set_node(node(name, cpu=str(cpu)))
                nodes[name] = cpu
            case "gone", str(name), _:
                snapshot.remove_node(name)
                nodes.pop(name, None)
            case "place", int(number), str(name):
                snapshot.place(pod(number), name)
                placed[number] = name
            case "remove", int(number), _:
                assert snapshot.remove(f"uid-p{number}") == (placed.pop(number, None) is not None)
            case _:
                snapshot.count(MATCHER)
    assert set(snapshot.rows) == set(nodes)
    assert int(np.count_nonzero(snapshot.valid)) == len(nodes)
    counted, owners = snapshot.count(MATCHER), [snapshot.owned(f"rs{n}") for n in range(3)]
    for name, row in snapshot.rows.items():
        there = [number for number, at in placed.items() if at == name]
        assert snapshot.allocatable[row, 0] == 1000 * nodes[name]
        assert snapshot.requested[row, 0] == sum(100 * n for n in there)
        assert snapshot.requested[row, snapshot.columns["pods"]] == len(there)
        assert counted[row] == sum(n % 2 == 0 for n in there)
        for number, counts in enumerate(owners):
            assert (0 if counts is None else counts[row]) == sum(n % 3 == number for n in there)
        for port in range(3):
            taken = snapshot.ports.get(("TCP", 1000 + port), {}).get(row, [])
            assert len(taken) == sum(n % 4 == 0 and n % 3 == port for n in there)


@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=8),
    requests=st.lists(st.integers(1, 3000), min_size=1, max_size=30),
    seed=st.integers(0, 5),
)
def test_no_node_is_overdrawn_and_nobody_is_refused_while_there_is_room(
    sizes: list[int], requests: list[int], seed: int
) -> None:
    snapshot, profile = Snapshot(), Profile(random.Random(seed))
    for number, cpu in enumerate(sizes):
        snapshot.set_node(node(f"n{number}", cpu=str(cpu)))
    left = {f"n{number}": 1000 * cpu for number, cpu in enumerate(sizes)}
    for number, request in enumerate(requests):
        wanted = info(f"p{number}", requests={"cpu": f"{request}m"})
        choice = profile.decide(wanted, snapshot)
        if isinstance(choice, str):
            assert left[choice] >= request
            left[choice] -= request
            snapshot.place(wanted, choice)
        else:
            assert max(left.values()) < request
            assert choice.reasons == {"Insufficient cpu": len(sizes)}
