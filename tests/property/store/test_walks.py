"""What looks at very many keys in portions comes to what it would have come to at once, whatever is written then."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kybern.pb.etcd import kv_pb2
from store.mvcc import walks
from store.mvcc.dump import dump, load
from store.mvcc.machine import StoreMachine
from store.mvcc.outcomes import RangeOutcome
from store.mvcc.walks import StateReplaced, Walk, checksum, finish, read_range
from tests.unit.store.driver import Driver, delete, put, txn

KEYS = [b"%c%d" % (letter, n) for letter in b"abc" for n in range(4)]
keys = st.sampled_from(KEYS)
values = st.binary(max_size=2)
changes = st.one_of(
    st.tuples(st.just("put"), keys, values),
    st.tuples(st.just("put"), keys, values),
    st.tuples(st.just("delete"), keys, st.sampled_from([b"", b"\0", b"b", b"c2"])),
    st.tuples(st.just("txn"), st.lists(keys, min_size=1, max_size=4, unique=True), values),
    st.tuples(st.just("compact"), st.integers(0, 5), st.just(b"")),
)
requests = st.builds(
    kv_pb2.RangeRequest,
    key=st.sampled_from([b"\0", b"a", b"a2", b"b1"]),
    range_end=st.sampled_from([b"\0", b"b", b"c3"]),
    limit=st.integers(0, 5),
    revision=st.integers(0, 30),
    sort_order=st.integers(0, 2),
    sort_target=st.integers(0, 4),
    keys_only=st.booleans(),
    count_only=st.booleans(),
    min_mod_revision=st.sampled_from([0, 0, 8]),
    max_mod_revision=st.sampled_from([0, 0, 20]),
    min_create_revision=st.sampled_from([0, 0, 5]),
)


@pytest.fixture(autouse=True, scope="module")
def small_portions() -> Iterator[None]:
    with patch.object(walks, "_PORTION", 2), patch.object(walks, "_SORTED", 3):
        yield


def change(store: Driver, step: tuple[object, ...]) -> None:
    match step:
        case ("put", bytes(key), bytes(value)):
            store.do(put(key, value))
        case ("delete", bytes(key), bytes(end)):
            store.do(delete(key, end))
        case ("txn", list(names), bytes(value)):
            store.do(txn(*(put(name, value) for name in names)))
        case ("compact", int(back), _):
            store.compact(store.revision - back)


def interleaved(walk: Walk[object], store: Driver, steps: list[tuple[object, ...]]) -> object:
    """Do a walk; after each of its portions something else happens."""
    following = iter(steps)
    while True:
        try:
            next(walk)
        except StopIteration as stop:
            return stop.value
        step = next(following, None)
        if step is not None:
            change(store, step)


def plain(outcome: object) -> object:
    if not isinstance(outcome, RangeOutcome):
        return outcome
    rows = [(r.key, r.value, r.create, r.mod, r.version, r.lease) for r in outcome.records]
    return outcome.revision, rows, outcome.more, outcome.count, outcome.keys_only


@given(st.lists(changes, max_size=40), st.lists(changes, max_size=12), requests)
@settings(max_examples=400, deadline=None)
def test_a_range_is_of_the_moment_in_which_it_was_begun(
    before: list[tuple[object, ...]], meanwhile: list[tuple[object, ...]], request: kv_pb2.RangeRequest
) -> None:
    store = Driver()
    for step in before:
        change(store, step)
    expected = plain(store.machine.range(request))
    assert plain(interleaved(read_range(store.machine.keys, request), store, meanwhile)) == expected
    assert store.machine.keys._pins == 0


@given(st.lists(changes, max_size=40), st.lists(changes, max_size=12))
@settings(max_examples=200, deadline=None)
def test_a_checksum_is_of_the_moment_in_which_it_was_begun(
    before: list[tuple[object, ...]], meanwhile: list[tuple[object, ...]]
) -> None:
    store = Driver()
    for step in before:
        change(store, step)
    # Another member comes to the same all at once, and has its history from a dump.
    copy = StoreMachine()
    load(copy, list(dump(store.machine)))
    expected = finish(checksum(copy.keys))
    assert interleaved(checksum(store.machine.keys), store, meanwhile) == expected
    assert store.machine.keys._pins == 0


def test_a_walk_ends_when_its_state_was_replaced() -> None:
    store = Driver()
    for key in KEYS:
        store.do(put(key))
    walk = read_range(store.machine.keys, kv_pb2.RangeRequest(key=b"\0", range_end=b"\0"))
    next(walk)
    other = Driver()
    other.do(put(b"x"))
    load(store.machine, list(dump(other.machine)))
    with pytest.raises(StateReplaced):
        finish(walk)
    assert store.machine.keys._pins == 0


def test_a_walk_that_is_given_up_keeps_nothing() -> None:
    store = Driver()
    for key in KEYS * 2:
        store.do(put(key))
    walk = checksum(store.machine.keys)
    next(walk)
    store.compact(store.revision)
    assert store.machine.keys.superfluous > 0
    walk.close()
    store.machine.caught_up()
    assert store.machine.keys.superfluous == 0
