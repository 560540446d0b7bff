"""The NOSPACE alarm: what it refuses, and that it is part of the state."""

from __future__ import annotations

from kybern.pb.etcd.maintenance_pb2 import CORRUPT, NONE, NOSPACE, AlarmRequest
from kybern.pb.v1.store_pipe_pb2 import StoreCommand
from store.mvcc.alarms import grows
from store.mvcc.dump import dump, load
from store.mvcc.errors import NO_SPACE
from store.mvcc.machine import StoreMachine
from store.mvcc.outcomes import AlarmOutcome, DeleteOutcome, PutOutcome, TxnOutcome
from tests.unit.store.driver import Driver, delete, put, read, txn, version_is


def alarm(store: Driver, action: AlarmRequest.AlarmAction.ValueType, member: int, kind: int = NOSPACE) -> AlarmOutcome:
    request = AlarmRequest(action=action, memberID=member, alarm=kind)  # type: ignore[arg-type] # any number comes
    outcome = store.apply(StoreCommand(alarm=request))
    assert isinstance(outcome, AlarmOutcome)
    return outcome


def test_growth_is_refused_and_the_rest_goes_on() -> None:
    store = Driver()
    store.do(put(b"a", b"1"))
    store.grant(7)
    alarm(store, AlarmRequest.ACTIVATE, 5)
    revision = store.revision
    assert store.do(put(b"a", b"2")) is NO_SPACE
    assert store.do(txn(delete(b"a"), otherwise=(put(b"b"),))) is NO_SPACE
    assert store.do(txn(txn(put(b"b")))) is NO_SPACE
    assert store.grant(8) is NO_SPACE
    assert store.revision == revision
    assert store.renew(7).ttl == 60
    assert store.items() == {b"a": b"1"}
    assert isinstance(store.do(txn(delete(b"a"), read(b"a"), when=(version_is(b"a", 1),))), TxnOutcome)
    assert isinstance(store.do(delete(b"a")), DeleteOutcome)
    assert store.compact(store.revision).revision == store.revision


def test_a_batch_is_refused_call_by_call() -> None:
    store = Driver()
    alarm(store, AlarmRequest.ACTIVATE, 5)
    refused, done = store.batch(1, {1: txn(put(b"a")), 2: txn(delete(b"a"))}).outcomes
    assert refused is NO_SPACE
    assert isinstance(done, TxnOutcome)
    # The outcome is kept: sending again does not do it once there is space.
    alarm(store, AlarmRequest.DEACTIVATE, 5)
    assert store.batch(1, {1: txn(put(b"a"))}).outcomes == [NO_SPACE]
    assert isinstance(store.batch(1, {3: txn(put(b"a"))}).outcomes[0], TxnOutcome)


def test_the_alarm_is_off_when_no_member_has_it() -> None:
    store = Driver()
    for member in (5, 6):
        alarm(store, AlarmRequest.ACTIVATE, member)
    alarm(store, AlarmRequest.ACTIVATE, 5)
    assert store.machine.alarms.matching() == [(5, NOSPACE), (6, NOSPACE)]
    assert alarm(store, AlarmRequest.DEACTIVATE, 5, CORRUPT).alarms == []
    assert alarm(store, AlarmRequest.DEACTIVATE, 5).alarms == [(5, NOSPACE)]
    assert store.do(put(b"a")) is NO_SPACE
    assert alarm(store, AlarmRequest.DEACTIVATE, 0, NONE).alarms == [(6, NOSPACE)]
    assert isinstance(store.do(put(b"a")), PutOutcome)


def test_a_dump_carries_alarms() -> None:
    store = Driver()
    alarm(store, AlarmRequest.ACTIVATE, 5)
    machine = StoreMachine()
    load(machine, dump(store.machine))
    assert machine.alarms.matching() == [(5, NOSPACE)]
    alarm(store, AlarmRequest.DEACTIVATE, 5)
    load(machine, dump(store.machine))
    assert not machine.alarms.no_space


def test_what_grows() -> None:
    assert grows(StoreCommand(put=put(b"a")))
    assert grows(StoreCommand(txn=txn(otherwise=(put(b"a"),))))
    assert not grows(StoreCommand(txn=txn(delete(b"a"), read(b"b"), txn(delete(b"c")))))
    assert not grows(StoreCommand(delete_range=delete(b"a")))


def test_the_footprint_shrinks_with_deletion_and_compaction() -> None:
    store = Driver()
    empty = store.machine.keys.footprint
    for n in range(100):
        store.do(put(b"%d" % n, b"v" * 1000))
    full = store.machine.keys.footprint
    assert full > 100_000
    store.do(delete(b"\0", b"\0"))
    store.do(put(b"z"))
    store.compact(store.revision)
    assert store.machine.keys.footprint < empty + 1000
