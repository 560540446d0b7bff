"""Reads of very many keys leave time to others, and are of one moment all the same."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator

import pytest

from kybern.clock import run_virtual
from kybern.pb.etcd import kv_pb2, maintenance_pb2
from store.mvcc.dump import dump, load
from store.mvcc.machine import StoreMachine
from store.mvcc.outcomes import RangeOutcome
from store.mvcc.walks import StateReplaced, Walk, checksum, finish
from store.raft.interface import Member
from store.raft.local import LocalRaft
from store.server import copies, reading, turns
from store.server.convert import delete_response, encode_range
from store.server.core import Core, Refused
from store.server.kv import KvService
from store.server.maintenance import MaintenanceService
from store.server.turns import Turns
from tests.unit.store.driver import Driver, delete, put, read

KEYS = 3000


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock finds a slice to be over."""

    class Time:
        now = 0.0

        @classmethod
        def perf_counter(cls) -> float:
            cls.now += 0.003
            return cls.now

    monkeypatch.setattr(turns, "time", Time)


def filled() -> tuple[Core, Driver]:
    store = Driver()
    for n in range(KEYS):
        store.do(put(b"k%05d" % n, b"old"))
    store.do(put(b"k00000", b"old"))
    raft = LocalRaft(Member(1, "s1", "", ""))
    return Core(raft, store.machine, "test"), store


async def test_a_range_of_all_keys_is_of_one_moment_while_everything_changes() -> None:
    core, store = filled()
    await core.raft.start(store.machine)
    revision = store.revision
    asked = asyncio.create_task(KvService(core).range(read(b"\0", b"\0", serializable=True), None))  # type: ignore[arg-type]
    # It has begun when its first slice is over.
    await asyncio.sleep(0)
    written = 0
    while not asked.done():
        store.do(put(b"k%05d" % (KEYS - 1 - written % KEYS), b"new"))
        store.do(put(b"z%05d" % written, b"new"))
        store.compact(store.revision)
        written += 1
        await asyncio.sleep(0)
    answer = kv_pb2.RangeResponse.FromString(await asked)
    assert written > 10, "others had their turns"
    assert (answer.count, answer.more, answer.header.revision) == (KEYS, False, revision)
    assert [kv.key for kv in answer.kvs] == [b"k%05d" % n for n in range(KEYS)]
    assert {kv.value for kv in answer.kvs} == {b"old"}


async def test_a_small_read_does_not_wait_for_a_large_one() -> None:
    core, _ = filled()
    large = asyncio.create_task(reading.find(core, read(b"\0", b"\0")))
    await asyncio.sleep(0)
    outcome = await reading.find(core, read(b"\0", b"\0", limit=100))
    encoded = await reading.encode(core, outcome)  # type: ignore[arg-type] # checked below
    assert len(kv_pb2.RangeResponse.FromString(encoded).kvs) == 100
    assert not large.done()
    assert len((await large).records) == KEYS  # type: ignore[union-attr] # an outcome


async def test_a_checksum_is_of_one_moment_while_everything_changes() -> None:
    core, store = filled()
    await core.raft.start(store.machine)
    expected = finish(checksum(store.machine.keys))
    service = MaintenanceService(core)
    asked = asyncio.create_task(service.hash_kv(maintenance_pb2.HashKVRequest(), None))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    written = 0
    while not asked.done():
        written += 1
        store.do(put(b"k%05d" % (KEYS - 1 - written % KEYS), b"new"))
        store.compact(store.revision)
        await asyncio.sleep(0)
    answer = await asked
    assert written > 3
    assert (answer.hash, answer.hash_revision, answer.compact_revision) == (expected.crc, expected.revision, -1)  # type: ignore[union-attr]


async def test_a_walk_whose_state_was_replaced_begins_anew() -> None:
    begun = 0

    def walk() -> Walk[str]:
        nonlocal begun
        begun += 1
        yield
        if begun == 1:
            raise StateReplaced
        return "whole"

    assert await Turns().run(walk) == "whole"
    assert begun == 2


async def test_a_call_that_is_given_up_ends_its_walk() -> None:
    core, store = filled()
    asked = asyncio.create_task(reading.find(core, read(b"\0", b"\0")))
    await asyncio.sleep(0)
    store.compact(store.revision)
    assert store.machine.keys.superfluous > 0
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    store.machine.caught_up()
    assert store.machine.keys.superfluous == 0
    assert isinstance(await reading.find(core, read(b"k00001", b"")), RangeOutcome), "nothing is locked"


# --- copies for clients


def stream(core: Core) -> Iterator[bytes]:
    return copies.ClientDump(core.machine)


def test_a_snapshot_that_nobody_reads_ends_and_keeps_nothing() -> None:
    async def scenario() -> None:
        core, store = filled()
        reader = MaintenanceService(core).snapshot(maintenance_pb2.SnapshotRequest(), None)  # type: ignore[arg-type]
        await anext(reader)
        await asyncio.sleep(copies.PATIENCE / 2)
        store.compact(store.revision)
        assert store.machine.keys.superfluous > 0
        await anext(reader)
        await asyncio.sleep(copies.PATIENCE + 1)
        store.machine.caught_up()
        assert store.machine.keys.superfluous == 0
        with pytest.raises(Refused) as refused:
            await anext(reader)
        assert refused.value.error.code == "ABORTED"
        assert "was not read for 30 s" in refused.value.error.message

    run_virtual(scenario())


def test_a_snapshot_that_keeps_too_much_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_MOST_HELD", 100)

    async def scenario() -> None:
        core, store = filled()
        portions = stream(core)
        for n in range(KEYS):
            next(portions) if n < 2 else None
            store.do(put(b"k%05d" % n, b"new"))
        store.compact(store.revision)
        assert store.machine.keys.superfluous > KEYS
        await asyncio.sleep(2)
        with pytest.raises(Refused, match="too slowly"):
            next(portions)
        store.machine.caught_up()
        assert store.machine.keys.superfluous == 0

    run_virtual(scenario())


def test_a_snapshot_of_a_state_that_was_replaced_says_so() -> None:
    async def scenario() -> None:
        core, _ = filled()
        portions = stream(core)
        next(portions)
        load(core.machine, list(dump(filled()[1].machine)))
        with pytest.raises(Refused) as refused:
            list(portions)
        assert refused.value.error.code == "UNAVAILABLE"

    run_virtual(scenario())


def test_a_snapshot_that_is_read_is_whole() -> None:
    async def scenario() -> None:
        core, store = filled()
        reader = MaintenanceService(core).snapshot(maintenance_pb2.SnapshotRequest(), None)  # type: ignore[arg-type]
        data = b"".join([part.blob async for part in reader])  # type: ignore[attr-defined] # a SnapshotResponse
        assert hashlib.sha256(data[:-32]).digest() == data[-32:]
        copy = StoreMachine()
        load(copy, [data[:-32]])
        assert finish(checksum(copy.keys)) == store.checksum

    run_virtual(scenario())


async def test_a_large_answer_is_joined_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    core, _ = filled()
    outcome = await reading.find(core, read(b"\0", b"\0"))
    assert isinstance(outcome, RangeOutcome)
    expected = encode_range(outcome)
    monkeypatch.setattr(reading, "_JOINED", 10_000)
    assert await reading.encode(core, outcome) == expected
    monkeypatch.setattr(reading, "_LARGEST", len(expected) - 1)
    with pytest.raises(Refused) as refused:
        await reading.encode(core, outcome)
    assert refused.value.error.code == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("end", [b"", b"\0"])
async def test_what_was_deleted_is_told_whole(end: bytes) -> None:
    core, store = filled()
    first = next(iter(store.machine.keys.live))
    outcome = store.do(delete(first, end, prev_kv=True))
    assert len(outcome.previous) == (1 if not end else outcome.deleted) > 0
    header = core.header(outcome.revision)
    encoded = await reading.encode_deletion(core, outcome, header)
    assert kv_pb2.DeleteRangeResponse.FromString(encoded) == delete_response(outcome, header)
