"""The quick ways for the commonest transaction against the general way: the same outcomes and the same state."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from kybern.pb.etcd import kv_pb2
from kybern.pb.v1.store_pipe_pb2 import PipeCall, PipeRequest, StoreCommand, Swap
from store.mvcc import machine, swap
from store.mvcc.dump import dump
from store.mvcc.errors import StoreError
from store.mvcc.outcomes import RangeOutcome, SwapOutcome, TxnOutcome
from tests.unit.store.driver import Driver, op

_Compare = kv_pb2.Compare
# Few values each, so that most transactions are nearly or wholly of the kind that is done the quick way.
keys = st.sampled_from([b"a", b"b", b""])
revisions = st.sampled_from([0, 1, 2, 3, 4])
leases = st.sampled_from([0, 0, 0, 7, 8, 9])
flags = st.sampled_from([False, False, False, False, True])
compares = st.builds(
    _Compare,
    key=keys,
    mod_revision=revisions,
    result=st.sampled_from([_Compare.EQUAL, _Compare.EQUAL, _Compare.EQUAL, _Compare.NOT_EQUAL]),
    target=st.sampled_from([_Compare.MOD, _Compare.MOD, _Compare.MOD, _Compare.VERSION]),
    range_end=st.sampled_from([b"", b"", b"", b"c"]),
) | st.builds(_Compare, key=keys, target=st.just(_Compare.MOD), version=revisions)
puts = st.builds(
    kv_pb2.PutRequest,
    key=keys,
    value=st.binary(max_size=2),
    lease=leases,
    prev_kv=flags,
    ignore_value=flags,
    ignore_lease=flags,
)
reads = st.builds(kv_pb2.RangeRequest, key=keys, sort_order=st.sampled_from([0, 0, 1, 7]), revision=revisions)
deletes = st.builds(kv_pb2.DeleteRangeRequest, key=keys)
nothing = st.builds(kv_pb2.RequestOp)
ops = st.one_of(puts.map(op), puts.map(op), reads.map(op), deletes.map(op), nothing)
txns = st.builds(
    kv_pb2.TxnRequest,
    compare=st.lists(compares, max_size=2),
    success=st.lists(puts.map(op), min_size=1, max_size=1) | st.lists(ops, max_size=2),
    failure=st.lists(reads.map(op), max_size=1) | st.lists(ops, max_size=2),
)


@given(st.lists(st.tuples(txns, st.booleans()), max_size=30))
@settings(max_examples=400, deadline=None)
def test_it_is_as_the_general_way(plan: list[tuple[kv_pb2.TxnRequest, bool]]) -> None:
    quick, general = Driver(), Driver()
    for store in (quick, general):
        store.grant(7)
        store.grant(8)
    for number, (request, compact) in enumerate(plan):
        # As its client would: most comparisons name the revision that the key really has.
        for compare in request.compare:
            record = quick.machine.keys.live.get(compare.key)
            if compare.mod_revision >= 3:
                compare.mod_revision = 0 if record is None else record.mod
        done = quick.batch(1, {number + 1: request}, answered_below=number)
        with patch.object(machine, "swap", return_value=None):
            expected = general.batch(1, {number + 1: request}, answered_below=number)
        # Records are compared by what they hold.
        assert repr(done) == repr(expected)
        if compact:
            assert quick.compact(quick.revision) == general.compact(general.revision)
    assert b"".join(dump(quick.machine)) == b"".join(dump(general.machine))


swaps = st.builds(
    Swap,
    key=st.sampled_from([b"a", b"b", b"c", b""]),
    mod_revision=st.sampled_from([-1, 0, 0, 2, 3, 4, 5, 6]),
    value=st.binary(max_size=2),
    lease=leases,
    read=st.booleans(),
)


def as_transaction(swap: Swap) -> kv_pb2.TxnRequest:
    """What the pipe's short form stands for."""
    return kv_pb2.TxnRequest(
        compare=[_Compare(key=swap.key, target=_Compare.MOD, mod_revision=swap.mod_revision)],
        success=[op(kv_pb2.PutRequest(key=swap.key, value=swap.value, lease=swap.lease))],
        failure=[op(kv_pb2.RangeRequest(key=swap.key))] if swap.read else [],
    )


@given(st.lists(st.tuples(swaps, st.sampled_from(["", "", "", "delete", "again", "full"])), max_size=30))
@settings(max_examples=400, deadline=None)
def test_the_short_form_is_as_the_transaction_it_stands_for(plan: list[tuple[Swap, str]]) -> None:
    short, general = Driver(), Driver()
    for store in (short, general):
        store.grant(7)
        store.grant(8)
    for number, (wish, then) in enumerate(plan, 1):
        if then == "full":
            for store in (short, general):
                store.machine.alarms.activate(1, 1)
        command = StoreCommand(
            calls=PipeRequest(client=1, answered_below=number, calls=[PipeCall(id=number, swap=wish)])
        )
        (done,) = short.apply(command).outcomes
        with patch.object(machine, "swap", return_value=None):
            (expected,) = general.batch(1, {number: as_transaction(wish)}, answered_below=number).outcomes
        match expected:
            case StoreError():
                assert done == expected
            case TxnOutcome(revision, succeeded, responses):
                read = responses[0] if responses and not succeeded else None
                current = read.records[0] if isinstance(read, RangeOutcome) and read.records else None
                # Records are compared by what they hold.
                assert repr(done) == repr(SwapOutcome(revision, succeeded, current))
        if then == "again":
            assert short.apply(command).outcomes == [done]
        for store in (short, general):
            if then == "delete":
                store.do(kv_pb2.DeleteRangeRequest(key=wish.key or b"a"))
            store.machine.alarms.deactivate(1, 1)
    assert short.items() == general.items()
    assert short.checksum == general.checksum
    for lease in (7, 8):
        ours, theirs = short.machine.leases.get(lease), general.machine.leases.get(lease)
        assert ours is not None
        assert theirs is not None
        assert ours.keys == theirs.keys


def test_it_does_what_control_planes_write() -> None:
    store = Driver()
    create = kv_pb2.TxnRequest(
        compare=[_Compare(key=b"a", target=_Compare.MOD)],
        success=[op(kv_pb2.PutRequest(key=b"a", value=b"1"))],
        failure=[op(kv_pb2.RangeRequest(key=b"a"))],
    )
    done = swap.swap(store.machine.keys, store.machine.leases, create)
    assert done is not None
    assert done.succeeded
    assert store.items() == {b"a": b"1"}
    assert swap.swap(store.machine.keys, store.machine.leases, create) is None
    assert store.revision == done.revision
