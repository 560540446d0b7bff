"""The state machine: what etcdctl cannot say, and what must never be said."""

from __future__ import annotations

from typing import Any

import pytest

from kybern.pb.etcd import kv_pb2
from kybern.pb.v1.store_pipe_pb2 import PipeCall, PipeRequest, StoreBatch, StoreCommand
from store.mvcc import errors, sessions
from store.mvcc.dump import dump, load
from store.mvcc.errors import StoreError
from store.mvcc.machine import StoreMachine
from store.mvcc.outcomes import DeleteOutcome, PutOutcome, RangeOutcome, TxnOutcome
from store.raft.interface import Applied, UnknownCommand
from tests.unit.store.driver import Driver, Request, delete, op, put, read, txn, version_is


@pytest.fixture
def store() -> Driver:
    return Driver()


def test_a_command_that_no_version_can_read_is_an_error_and_changes_nothing() -> None:
    machine = StoreMachine()
    assert machine.apply(b"\xff\xff", Applied(7, 1, 1000)) is errors.UNREADABLE_COMMAND
    assert (machine.keys.revision, machine.applied_index) == (1, 7)


# A field that a later version may have given out, as a command and as a call.
_LATER = b"\xfa\x07\x02\x08\x01"
_CALL = StoreCommand(calls=PipeRequest(client=1, calls=[PipeCall.FromString(b"\x08\x01" + _LATER)]))


@pytest.mark.parametrize("command", [b"", _LATER, _CALL.SerializeToString()], ids=["none", "command", "call"])
def test_a_command_of_another_version_is_not_answered(command: bytes) -> None:
    machine = StoreMachine()
    with pytest.raises(UnknownCommand, match="command 7 is of a kind"):
        machine.apply(command, Applied(7, 1, 1000))
    assert machine.keys.revision == 1


def test_a_batch_whose_numbers_do_not_fit_is_refused(store: Driver) -> None:
    batch = StoreBatch(client=1, ids=[1, 2], txns=[txn(put(b"a"))])
    assert store.apply(StoreCommand(batch=batch)) is errors.UNREADABLE_COMMAND
    assert store.revision == 1


def test_a_batch_as_earlier_versions_wrote_it_is_applied(store: Driver) -> None:
    batch = StoreBatch(client=1, ids=[1, 2], txns=[txn(put(b"a", b"1")), txn(put(b"b", b"2"))])
    assert [outcome.revision for outcome in store.apply(StoreCommand(batch=batch)).outcomes] == [2, 3]
    assert store.items() == {b"a": b"1", b"b": b"2"}


def test_nested_transactions_compare_with_the_state_before_all(store: Driver) -> None:
    inner = txn(put(b"inner", b"yes"), when=(version_is(b"a", 0),), otherwise=(put(b"inner", b"no"),))
    outcome = store.do(txn(put(b"a", b"1"), inner, read(b"a")))
    assert isinstance(outcome, TxnOutcome)
    assert store.items() == {b"a": b"1", b"inner": b"yes"}
    put_outcome, nested, seen = outcome.responses
    assert isinstance(put_outcome, PutOutcome)
    assert isinstance(nested, TxnOutcome)
    assert nested.succeeded
    assert isinstance(seen, RangeOutcome)
    assert [record.value for record in seen.records] == [b"1"]
    assert store.revision == 2
    assert {record.mod for record in store.machine.keys.live.values()} == {2}


def test_the_branches_within_may_write_the_same_key_but_not_one_of_the_outer(store: Driver) -> None:
    either = txn(put(b"k", b"1"), otherwise=(put(b"k", b"2"),))
    assert isinstance(store.do(txn(either)), TxnOutcome)
    assert store.do(txn(either, put(b"k", b"3"))) is errors.DUPLICATE_KEY
    assert store.do(txn(either, delete(b"a", b"z"))) is errors.DUPLICATE_KEY
    assert store.do(txn(delete(b"k"), either)) is errors.DUPLICATE_KEY
    assert isinstance(store.do(txn(delete(b"k\0", b"z"), either, delete(b"\0", b"k"))), TxnOutcome)


def test_comparisons_over_a_range_hold_for_every_key_of_it(store: Driver) -> None:
    store.do(put(b"d/a"))
    store.do(put(b"d/b"))
    assert store.do(txn(when=(version_is(b"d/", 1, b"d0"),))).succeeded
    store.do(put(b"d/b"))
    assert not store.do(txn(when=(version_is(b"d/", 1, b"d0"),))).succeeded
    assert store.do(txn(when=(version_is(b"e/", 0, b"e0"),))).succeeded


@pytest.mark.parametrize(
    ("result", "holds"),
    [
        (kv_pb2.Compare.EQUAL, [2]),
        (kv_pb2.Compare.NOT_EQUAL, [1, 3]),
        (kv_pb2.Compare.GREATER, [1]),
        (kv_pb2.Compare.LESS, [3]),
    ],
)
def test_relations_have_the_keys_property_on_the_left(store: Driver, result: Any, holds: list[int]) -> None:
    store.do(put(b"a"))
    store.do(put(b"a"))
    compares = {n: kv_pb2.Compare(result=result, target=kv_pb2.Compare.VERSION, key=b"a", version=n) for n in (1, 2, 3)}
    assert [n for n, compare in compares.items() if store.do(txn(when=(compare,))).succeeded] == holds


def test_a_lease_can_be_compared(store: Driver) -> None:
    store.grant(5)
    store.do(put(b"a", lease=5))
    compare = kv_pb2.Compare(target=kv_pb2.Compare.LEASE, key=b"a", lease=5)
    assert store.do(txn(when=(compare,))).succeeded


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (txn(put(b"")), errors.EMPTY_KEY),
        (txn(delete(b"")), errors.EMPTY_KEY),
        (txn(read(b"")), errors.EMPTY_KEY),
        (txn(when=(version_is(b"", 0),)), errors.EMPTY_KEY),
        (kv_pb2.TxnRequest(success=[kv_pb2.RequestOp()]), errors.KEY_NOT_FOUND),
        (txn(*(put(b"%d" % n) for n in range(129))), errors.TOO_MANY_OPS),
        (txn(txn(*(put(b"%d" % n) for n in range(129)))), errors.TOO_MANY_OPS),
        (txn(put(b"a", b"1", ignore_value=True)), errors.VALUE_PROVIDED),
        (txn(put(b"a", lease=1, ignore_lease=True)), errors.LEASE_PROVIDED),
        (txn(read(b"a", sort_order=9)), errors.INVALID_SORT),
        (txn(put(b"ok"), put(b"a", ignore_lease=True)), errors.KEY_NOT_FOUND),
        (txn(put(b"ok"), put(b"a", lease=77)), errors.LEASE_NOT_FOUND),
        (txn(put(b"ok"), read(b"a", revision=50)), errors.FUTURE_REVISION),
        (txn(put(b"ok"), txn(read(b"a", revision=50))), errors.FUTURE_REVISION),
        (txn(put(b"ok"), read(b"a", revision=-1)), errors.COMPACTED),
        # All puts are looked at before all reads.
        (txn(read(b"a", revision=50), txn(put(b"a", lease=77))), errors.LEASE_NOT_FOUND),
        (txn(put(b"a", lease=77, ignore_value=True)), errors.KEY_NOT_FOUND),
    ],
)
def test_a_transaction_with_a_mistake_leaves_no_trace(
    store: Driver, request_: kv_pb2.TxnRequest, error: StoreError
) -> None:
    assert store.do(request_) is error
    assert store.revision == 1
    assert store.items() == {}


def test_endless_nesting_is_refused(store: Driver) -> None:
    nested = txn(put(b"a"))
    for _ in range(20):
        nested = kv_pb2.TxnRequest(success=[op(nested)])
    assert store.do(nested) is errors.TOO_MANY_OPS


def test_transactions_within_have_as_many_operations_as_are_left(store: Driver) -> None:
    def with_reads(count: int, *within: Request) -> kv_pb2.TxnRequest:
        return txn(*within, *(read(b"a") for _ in range(count)))

    assert isinstance(store.do(txn(with_reads(100, with_reads(26)))), TxnOutcome)
    assert isinstance(store.do(txn(with_reads(100), with_reads(126))), TxnOutcome)
    assert store.do(txn(with_reads(100, with_reads(27)))) is errors.TOO_MANY_OPS
    assert store.do(txn(txn(otherwise=(with_reads(127),)))) is errors.TOO_MANY_OPS


def test_a_put_that_stands_alone_is_told_first_of_its_lease(store: Driver) -> None:
    assert store.do(put(b"a", lease=77, ignore_value=True)) is errors.LEASE_NOT_FOUND
    assert store.do(put(b"a", ignore_value=True)) is errors.KEY_NOT_FOUND


@pytest.mark.parametrize("limit", [2**31, 2**63 - 1])
def test_a_limit_may_be_larger_than_anything(store: Driver, limit: int) -> None:
    store.do(txn(put(b"a"), put(b"b")))
    assert list(store.items(limit=limit)) == [b"a", b"b"]
    assert list(store.items(limit=limit, revision=2, sort_target=kv_pb2.RangeRequest.MOD)) == [b"a", b"b"]
    written, found = store.do(txn(put(b"c"), read(b"\0", b"\0", limit=limit))).responses
    assert [record.key for record in found.records] == [b"a", b"b", b"c"]
    assert (written.revision, found.more, store.revision) == (3, False, 3)


def test_a_read_of_the_past_within_a_transaction_does_not_see_its_writes(store: Driver) -> None:
    store.do(put(b"a", b"1"))
    outcome = store.do(txn(put(b"a", b"2"), read(b"a", revision=2)))
    assert [record.value for record in outcome.responses[1].records] == [b"1"]


def test_bounds_on_revisions_and_counting(store: Driver) -> None:
    for name in (b"a", b"b", b"c"):
        store.do(put(name))
    store.do(put(b"a"))
    assert list(store.items(min_mod_revision=4)) == [b"a", b"c"]
    assert list(store.items(max_mod_revision=3)) == [b"b"]
    assert list(store.items(min_create_revision=3, max_create_revision=3)) == [b"b"]
    counted = store.do(read(b"a", b"c", count_only=True))
    assert (counted.count, list(counted.records)) == (2, [])
    past = store.do(read(b"a", b"\0", count_only=True, revision=3))
    assert past.count == 2


def test_compaction_keeps_what_is_current_and_watchable(store: Driver) -> None:
    store.do(put(b"a", b"1"))
    store.do(put(b"a", b"2"))
    store.do(put(b"b", b"x"))
    store.do(delete(b"b"))
    store.do(put(b"a", b"3"))
    store.compact(5)
    assert store.items(revision=5) == {b"a": b"2"}
    assert store.items() == {b"a": b"3"}
    assert store.do(read(b"a", revision=4)) is errors.COMPACTED
    assert [record.mod for record in store.machine.keys.log.all()] == [5, 6]
    store.compact(6)
    assert store.machine.keys.dead == {}
    assert store.machine.keys.bytes == len(b"a3")


def test_memory_is_given_back_by_compaction(store: Driver) -> None:
    for n in range(100):
        store.do(put(b"k", b"%03d" % n))
        store.do(put(b"gone/%d" % n, b"x"))
        store.do(delete(b"gone/%d" % n))
    store.compact(store.revision)
    keys = store.machine.keys
    record = keys.live[b"k"]
    assert record.previous is None
    # The deletion at the compacted revision itself can still be watched.
    assert [r.key for r in keys.log.all()] == [b"gone/99"]
    assert keys.bytes == len(b"k099") + len(b"gone/99")


def test_a_lease_takes_its_keys_with_it_as_one_revision(store: Driver) -> None:
    store.grant(5)
    store.do(put(b"b", lease=5))
    store.do(put(b"a", lease=5))
    store.do(put(b"c", lease=5))
    store.do(put(b"c"))
    store.do(put(b"a", b"kept", ignore_lease=True))
    before = store.revision
    outcome = store.revoke(5)
    assert (outcome.revision, store.revision) == (before + 1, before + 1)
    assert list(store.items()) == [b"c"]
    assert [r.key for r in store.machine.keys.log.between(before + 1, before + 1, 10)] == [b"a", b"b"]
    assert store.revoke(5) is errors.LEASE_NOT_FOUND
    assert store.renew(5).ttl == 0


def test_an_expiry_that_a_renewal_overtook_does_nothing(store: Driver) -> None:
    store.grant(5)
    store.do(put(b"a", lease=5))
    store.renew(5)
    store.revoke(5, renewals=0)
    assert list(store.items()) == [b"a"]
    store.revoke(5, renewals=1)
    assert list(store.items()) == []


def test_an_expiry_that_was_meant_for_an_earlier_lease_of_the_number_does_nothing(store: Driver) -> None:
    store.grant(5)
    first = store.machine.leases.leases[5].granted
    store.revoke(5)
    store.grant(5)
    # As a snapshot has it: whoever loads one must not decide otherwise.
    other = Driver()
    load(other.machine, dump(store.machine))
    for each in (store, other):
        each.revoke(5, renewals=0, granted=first)
        lease = each.machine.leases.leases[5]
        each.revoke(5, renewals=0, granted=lease.granted)
        assert 5 not in each.machine.leases


def test_leases_have_bounds_and_numbers_of_their_own(store: Driver) -> None:
    assert store.grant(5, ttl=1).ttl == 2
    assert store.grant(5) is errors.LEASE_EXISTS
    assert store.grant(6, ttl=9_000_000_001) is errors.TTL_TOO_LARGE
    assert store.grant(5, ttl=9_000_000_001) is errors.TTL_TOO_LARGE
    assert store.grant(0) is errors.UNREADABLE_COMMAND


def test_a_numbered_transaction_is_done_once(store: Driver) -> None:
    first = store.batch(9, {1: txn(put(b"a", b"1")), 2: txn(put(b"a", b"2"))})
    again = store.batch(9, {2: txn(put(b"a", b"2")), 1: txn(put(b"a", b"1"))})
    assert [o.revision for o in first.outcomes] == [2, 3]
    assert again.outcomes == [first.outcomes[1], first.outcomes[0]]
    assert store.revision == 3
    # Another client's numbers are its own.
    assert store.batch(8, {1: txn(put(b"a", b"3"))}).outcomes[0].revision == 4


def test_an_error_is_an_outcome_too(store: Driver) -> None:
    store.batch(9, {1: txn(put(b"a", lease=5))})
    store.grant(5)
    assert store.batch(9, {1: txn(put(b"a", lease=5))}).outcomes == [errors.LEASE_NOT_FOUND]


def test_outcomes_are_forgotten_when_the_client_has_seen_them(store: Driver) -> None:
    store.batch(9, {n: txn(put(b"a")) for n in range(1, 11)})
    store.batch(9, {11: txn(put(b"a"))}, answered_below=8)
    assert sorted(store.machine.sessions.sessions[9].outcomes) == [8, 9, 10, 11]
    late = store.batch(9, {3: txn(put(b"late"))})
    assert late.outcomes == [errors.OUTCOME_FORGOTTEN]
    assert store.items(b"late", b"") == {}


def test_sessions_and_outcomes_are_bounded(store: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 3)
    monkeypatch.setattr(sessions, "MAX_OUTCOMES", 2)
    for client in (1, 2, 3):
        store.batch(client, {1: txn(put(b"a"))})
    store.batch(1, {2: txn(put(b"a"))})
    store.batch(4, {1: txn(put(b"a"))})
    assert list(store.machine.sessions.sessions) == [3, 1, 4]
    store.batch(1, {3: txn(put(b"a"))})
    assert sorted(store.machine.sessions.sessions[1].outcomes) == [2, 3]
    assert store.batch(1, {1: txn(put(b"a"))}).outcomes == [errors.OUTCOME_FORGOTTEN]


def test_outcomes_of_single_commands(store: Driver) -> None:
    assert store.do(put(b"a", b"1", prev_kv=True)) == PutOutcome(2, None)
    second = store.do(put(b"a", b"2", prev_kv=True))
    assert second.previous.value == b"1"
    gone = store.do(delete(b"a", b"b", prev_kv=True))
    assert isinstance(gone, DeleteOutcome)
    assert (gone.revision, gone.deleted, [r.value for r in gone.previous]) == (4, 1, [b"2"])
    assert store.do(delete(b"a")) == DeleteOutcome(4, 0, ())


@pytest.mark.parametrize(("start", "end"), [(b"k", b"l"), (b"k0100", b"k0300"), (b"k0500", b"\0")])
def test_many_keys_are_deleted_as_each_by_itself_would_be(start: bytes, end: bytes) -> None:
    at_once, in_turn = Driver(), Driver()
    for store in (at_once, in_turn):
        store.grant(7)
        for n in range(600):
            store.do(put(b"k%04d" % n, b"v", lease=7 if n % 3 == 0 else 0))
        # Some were deleted before, and one of them is there again.
        store.do(delete(b"k0120", b"k0140"))
        store.do(put(b"k0130", b"again"))
    outcome = at_once.do(delete(start, end, prev_kv=True))
    gone = sorted(in_turn.items(start, end))
    for first in range(0, len(gone), 50):
        part = gone[first : first + 50]
        in_turn.machine.keys.revision = outcome.revision - 1
        in_turn.do(delete(part[0], part[-1] + b"\0"))
    assert [record.key for record in outcome.previous] == gone
    assert at_once.checksum == in_turn.checksum
    assert at_once.machine.keys.bytes == in_turn.machine.keys.bytes
    assert at_once.items() == in_turn.items()
    assert at_once.items(revision=outcome.revision - 1) == in_turn.items(revision=outcome.revision - 1)
    for store in (at_once, in_turn):
        store.revoke(7)
    assert at_once.items() == in_turn.items()
    assert at_once.machine.leases.leases == in_turn.machine.leases.leases
