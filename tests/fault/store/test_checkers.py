"""The checkers: they accept what a store that does nothing wrong answers, and find each way to do wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kybern.client.store import Change, KeyValue
from tests.fault.store import kv_model
from tests.fault.store.history import History, Operation, load
from tests.fault.store.kv_model import State, linearizable
from tests.fault.store.linear import Call, Undecided, find_order
from tests.fault.store.log_check import Log, Watched, check_operations, check_watch, lost_keys, real_time
from tests.fault.store.simulation import KEYS, Perfect, simulate

START = State(1)
seeds = st.integers(0, 2**32)


def register(state: int, call: tuple[str, int]) -> int | None:
    """A register: ("w", value) or ("r", value that was read)."""
    kind, value = call
    return value if kind == "w" or state == value else None


def calls(*what: tuple[float, float, str, int]) -> list[Call[tuple[str, int]]]:
    return [Call(began, ended, (kind, value)) for began, ended, kind, value in what]


def test_overlapping_calls_may_happen_in_any_order() -> None:
    both = calls((0, 9, "w", 1), (1, 8, "w", 2), (2, 3, "r", 2), (4, 5, "r", 1))
    assert find_order(both, 0, register) == [("w", 2), ("r", 2), ("w", 1), ("r", 1)]


def test_a_read_that_goes_back_is_found() -> None:
    assert find_order(calls((0, 1, "w", 1), (2, 3, "w", 2), (4, 5, "r", 1)), 0, register) is None
    assert find_order(calls((0, 9, "w", 1), (1, 2, "r", 1), (3, 4, "r", 0)), 0, register) is None


def test_what_may_not_have_happened_may_also_happen_late() -> None:
    maybe = Call(0, float("inf"), ("w", 1), optional=True)
    assert find_order([maybe, *calls((2, 3, "r", 0), (4, 5, "r", 1))], 0, register) is not None
    assert find_order([maybe, *calls((2, 3, "r", 0))], 0, register) == [("r", 0)]
    assert find_order([maybe, *calls((2, 3, "r", 1), (4, 5, "r", 0))], 0, register) is None


def test_a_search_without_end_is_given_up() -> None:
    many = calls(*((0, 1, "w", n) for n in range(30)), (0, 1, "r", -1))
    with pytest.raises(Undecided):
        find_order(many, 0, register, limit=1000)


def log_of(store: Perfect, since: int = 1) -> Log:
    return Log(since, {}, store.changes)


@given(seeds, st.integers(1, 60))
@settings(deadline=None, max_examples=200)
def test_right_answers_are_accepted(seed: int, count: int) -> None:
    operations, store = simulate(random.Random(seed), count)
    assert linearizable(operations, START)
    log = log_of(store)
    verdict = check_operations(log, operations)
    assert (verdict.lost, verdict.wrong) == ([], [])
    assert log.state == store.state
    assert kv_model.check(operations, lambda _: b"g/", {b"g/": START}) == []


def stale_read(operations: list[Operation], rng: random.Random) -> bool:
    """A read answers with what a key was before a write that had been acknowledged when the read began."""
    pairs = [
        (read, write)
        for read in operations
        for write in operations
        if read.known
        and read.kind == "read"
        and write.known
        and write.writes
        and write.kind != "delete"
        and write.ended < read.began
        and any(kv.value == write.value for kv in read.found)
        and not any(o.kind == "delete" and not o.known and o.key == write.key for o in operations)
    ]
    if not pairs:
        return False
    read, write = rng.choice(pairs)
    read.found = tuple(kv for kv in read.found if kv.value != write.value)
    return True


def lost_write(operations: list[Operation], rng: random.Random) -> bool:
    """A write is acknowledged, and a later read of its key alone sees nothing of it although nothing came between."""
    last = max(
        (o for o in operations if o.known and o.writes and o.kind != "delete"), key=lambda o: o.revision, default=None
    )
    if last is None or any(o.outcome == "unknown" and o.would_write for o in operations):
        return False
    end = max(o.ended for o in operations if o.known)
    revision = max(o.revision for o in operations)
    operations.append(
        Operation(client="x", kind="read", key=last.key, began=end + 1, ended=end + 2, outcome="ok", revision=revision)
    )
    return not any(o.known and o.kind == "delete" and o.found and o.revision > last.revision for o in operations)


def duplicated_effect(operations: list[Operation], rng: random.Random) -> bool:
    """A compare-and-swap is acknowledged twice for one state: two clients hold the same lock."""
    won = [o for o in operations if o.known and o.kind == "cas" and o.succeeded]
    if not won:
        return False
    one = rng.choice(won)
    again = msgspec.structs.replace(one, client="x", value=b"again", began=one.ended + 0.1, ended=one.ended + 0.2)
    again.revision = one.revision
    operations.append(again)
    return True


def swapped_revisions(operations: list[Operation], rng: random.Random) -> bool:
    """A write that began after another had ended is told the lower revision."""
    writes = [o for o in operations if o.known and o.writes]
    pairs = [(a, b) for a in writes for b in writes if a.ended < b.began]
    if not pairs:
        return False
    one, other = rng.choice(pairs)
    one.revision, other.revision = other.revision, one.revision
    return True


@pytest.mark.parametrize("mutate", [stale_read, lost_write, duplicated_effect, swapped_revisions])
def test_wrong_answers_are_found_from_the_answers_alone(
    mutate: Callable[[list[Operation], random.Random], bool],
) -> None:
    @given(seeds, st.integers(5, 50))
    @settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.filter_too_much])
    def run(seed: int, count: int) -> None:
        rng = random.Random(seed)
        operations, store = simulate(rng, count)
        assume(mutate(operations, rng))
        assert not linearizable(operations, START)
        verdict = check_operations(log_of(store), operations)
        assert verdict.lost or verdict.wrong

    run()


@given(seeds)
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.filter_too_much])
def test_a_lost_write_is_missing_in_the_list(seed: int) -> None:
    operations, store = simulate(random.Random(seed), 40)
    written = [o for o in operations if o.known and o.writes]
    assume(written)
    gone = random.Random(seed).choice(written)
    # The store forgot it, and gave its revision to nobody.
    changes = [change for change in store.changes if change.value.mod_revision != gone.revision]
    verdict = check_operations(Log(1, {}, changes), operations)
    assert any(f"revision {gone.revision} is None" in problem for problem in verdict.lost)


def test_an_effect_that_happens_twice_is_found() -> None:
    store = Perfect()
    put = Operation(client="a", kind="put", key=b"k", value=b"v", began=1)
    store.do(put)
    store.do(put)
    put.outcome, put.ended = "unknown", float("inf")
    assert any("not so often" in problem for problem in check_operations(log_of(store), [put]).wrong)


def test_two_writes_never_share_a_revision_and_revisions_never_go_back() -> None:
    one = Operation(client="a", kind="put", key=b"k", value=b"1", began=1, ended=2, outcome="ok", revision=7)
    other = msgspec.structs.replace(one, key=b"l", value=b"2", began=3, ended=4)
    assert len(real_time([one, other])) == 2
    other.revision = 8
    assert real_time([one, other]) == []
    read = Operation(client="a", kind="read", key=b"x", began=5, ended=6, outcome="ok", revision=7)
    assert len(real_time([one, other, read])) == 1


def watched(store: Perfect, since: int, upto: int) -> Watched:
    changes = [c for c in store.changes if since < c.value.mod_revision <= upto and c.value.key < b"g/2"]
    return Watched("w", b"g/0", b"g/2", since, upto, changes)


@given(seeds, st.data())
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.filter_too_much])
def test_watches_are_told_everything_once_in_order(seed: int, data: st.DataObject) -> None:
    _, store = simulate(random.Random(seed), 40)
    since = data.draw(st.integers(1, store.revision))
    right = watched(store, since, data.draw(st.integers(since, store.revision)))
    log = log_of(store)
    assert check_watch(log, right) == []
    assume(len(right.changes) >= 2)
    at = data.draw(st.integers(0, len(right.changes) - 2))
    one, next_one = right.changes[at], right.changes[at + 1]
    head, tail = right.changes[:at], right.changes[at + 2 :]
    other = Change(replace(one.value, value=b"?", version=9), one.previous)
    for changes, word in (
        ([*head, next_one, *tail], "missing"),
        ([*head, one, one, next_one, *tail], "repeated"),
        ([*head, next_one, one, *tail], "out of order"),
        ([*head, other, next_one, *tail], "told"),
    ):
        assert any(word in problem for problem in check_watch(log, replace(right, changes=changes)))
    phantom = Change(KeyValue(KEYS[0], b"?", 5, store.revision + 5, 1), None)
    problems = check_watch(log, replace(right, changes=[*right.changes, phantom]))
    assert any("never happened" in problem for problem in problems)


def test_a_list_with_a_hole_or_wrong_versions_is_none() -> None:
    first = KeyValue(b"k", b"1", 2, 2, 1)
    assert Log(1, {}, [Change(first, None)]).problems == []
    assert Log(1, {}, [Change(replace(first, mod_revision=3, create_revision=3), None)]).problems
    assert Log(1, {}, [Change(first, None), Change(KeyValue(b"k", b"2", 2, 3, 3), first)]).problems
    assert Log(1, {}, [Change(first, first)]).problems


def test_lost_keys_are_those_that_were_acknowledged() -> None:
    ok = Operation(client="a", kind="put", key=b"k", value=b"1", began=1, ended=2, outcome="ok", revision=2)
    unknown = Operation(client="a", kind="put", key=b"l", value=b"2", began=3)
    assert lost_keys([ok, unknown], {b"k": b"1"}) == []
    assert lost_keys([ok, unknown], {b"l": b"2"}) == [b"k"]
    assert lost_keys([ok], {b"k": b"0"}) == [b"k"]


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    history = History()
    put = history.begin("a", "put", b"k", value=b"v")
    history.end(put, 2, found=[KeyValue(b"k", b"u", 1, 1, 1)])
    history.begin("b", "read", b"k", end=b"l")
    history.refuse(history.begin("c", "delete", b"k"))
    history.save(tmp_path / "history")
    assert load(tmp_path / "history") == history.operations
    assert [o.outcome for o in history.operations] == ["ok", "unknown", "refused"]
