"""The quota on a member: when the alarm is raised, and by whom it is cleared."""

from __future__ import annotations

import asyncio

import pytest

from kybern.pb.etcd.maintenance_pb2 import NOSPACE, AlarmRequest
from kybern.pb.v1.store_pipe_pb2 import StoreBatch, StoreCommand
from store.mvcc.errors import NO_SPACE
from store.mvcc.machine import StoreMachine
from store.mvcc.outcomes import AlarmOutcome, BatchOutcome, DeleteOutcome, PutOutcome, TxnOutcome
from store.raft.interface import Member
from store.raft.local import LocalRaft
from store.server.core import Core, Refused
from tests.unit.store.driver import delete, put, txn


async def started(limit: int) -> Core:
    raft = LocalRaft(Member(5, "s1", "", ""))
    core = Core(raft, StoreMachine(), "test", quota_bytes=limit)
    await raft.start(core.machine)
    return core


async def test_a_write_beyond_the_quota_raises_the_alarm_and_is_refused() -> None:
    core = await started(10_000)
    await core.propose(StoreCommand(put=put(b"a", b"v" * 5000)), PutOutcome)
    with pytest.raises(Refused) as caught:
        await core.propose(StoreCommand(put=put(b"b", b"v" * 6000)), PutOutcome)
    assert caught.value.error is NO_SPACE
    assert core.machine.alarms.matching() == [(5, NOSPACE)]
    # Also what would fit, until somebody has seen to it.
    with pytest.raises(Refused):
        await core.propose(StoreCommand(put=put(b"c")), PutOutcome)
    await core.propose(StoreCommand(delete_range=delete(b"a")), DeleteOutcome)
    off = AlarmRequest(action=AlarmRequest.DEACTIVATE)
    await core.propose(StoreCommand(alarm=off), AlarmOutcome)
    await core.propose(StoreCommand(put=put(b"c")), PutOutcome)


async def test_what_does_not_grow_raises_no_alarm() -> None:
    core = await started(1)
    await core.propose(StoreCommand(delete_range=delete(b"a")), DeleteOutcome)
    await core.propose(StoreCommand(txn=txn(delete(b"a"))), TxnOutcome)
    assert core.machine.alarms.matching() == []


async def test_writes_at_the_same_time_leave_one_alarm_and_all_are_refused() -> None:
    core = await started(1000)
    await core.propose(StoreCommand(put=put(b"a", b"v" * 500)), PutOutcome)
    batch = StoreCommand(batch=StoreBatch(client=1, ids=[1, 2], txns=[txn(put(b"b", b"v" * 500)), txn(delete(b"a"))]))
    outcome, refused = await asyncio.gather(
        core.propose(batch, BatchOutcome),
        core.propose(StoreCommand(put=put(b"c", b"v" * 500)), PutOutcome),
        return_exceptions=True,
    )
    assert isinstance(outcome, BatchOutcome)
    # Of the batch, the deletion is done.
    assert outcome.outcomes[0] is NO_SPACE
    assert isinstance(outcome.outcomes[1], TxnOutcome)
    assert isinstance(refused, Refused)
    assert core.machine.alarms.matching() == [(5, NOSPACE)]
