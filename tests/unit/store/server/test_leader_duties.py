"""What the leader does by itself: ending leases and compacting history."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kybern.clock import LoopClock, run_virtual
from kybern.pb.etcd import kv_pb2, lease_pb2
from kybern.pb.v1.store_pipe_pb2 import StoreCommand, StoreLeaseRevoke
from store.mvcc.machine import StoreMachine
from store.mvcc.outcomes import LeaseOutcome, PutOutcome
from store.raft.interface import Applied, Member, NoLeader, RaftUnavailable
from store.raft.local import LocalRaft
from store.server.compaction import Compactor
from store.server.core import Core, Refused, unavailable
from store.server.expiry import LeaseClock


class FakeClock:
    """Moves when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds


def new_core() -> tuple[Core, LocalRaft]:
    raft = LocalRaft(Member(1, "s1", "", ""), LoopClock())
    return Core(raft, StoreMachine(), "test"), raft


async def grant(core: Core, lease: int, ttl: int) -> None:
    await core.propose(StoreCommand(lease_grant=lease_pb2.LeaseGrantRequest(ID=lease, TTL=ttl)), LeaseOutcome)


async def renew(core: Core, lease: int) -> None:
    await core.propose(StoreCommand(lease_renew=lease_pb2.LeaseKeepAliveRequest(ID=lease)), LeaseOutcome)


async def put(core: Core, key: bytes, lease: int = 0) -> None:
    await core.propose(StoreCommand(put=kv_pb2.PutRequest(key=key, lease=lease)), PutOutcome)


def test_a_lease_ends_when_it_is_not_renewed() -> None:
    async def scenario() -> None:
        core, raft = new_core()
        clock = LeaseClock(core, LoopClock())
        core.machine.lease_observer = clock
        await raft.start(core.machine)
        ending = asyncio.create_task(clock.run())
        await grant(core, 5, 10)
        await put(core, b"a", 5)
        for _ in range(5):
            await asyncio.sleep(8)
            await renew(core, 5)
        assert b"a" in core.machine.keys.live
        assert clock.remaining(5) == 10
        await asyncio.sleep(9)
        assert (clock.remaining(5), b"a" in core.machine.keys.live) == (1, True)
        await asyncio.sleep(2)
        assert 5 not in core.machine.leases
        assert b"a" not in core.machine.keys.live
        ending.cancel()

    run_virtual(scenario())


class RenewedLate(LeaseClock):
    """A renewal is applied after the look that finds its lease's time to be over, and before its end is proposed."""

    def overdue(self) -> list[int]:
        found = super().overdue()
        if found and self._core.machine.leases.leases[found[0]].renewals == 0:
            command = StoreCommand(lease_renew=lease_pb2.LeaseKeepAliveRequest(ID=found[0])).SerializeToString()
            applied = Applied(self._core.machine.applied_index + 1, 1, 0)
            asyncio.get_running_loop().call_soon(self._core.machine.apply, command, applied)
        return found


def test_a_renewal_that_comes_between_the_look_and_the_proposal_saves_the_lease() -> None:
    async def scenario() -> None:
        core, raft = new_core()
        clock = RenewedLate(core, LoopClock())
        core.machine.lease_observer = clock
        await raft.start(core.machine)
        ending = asyncio.create_task(clock.run())
        await grant(core, 5, 10)
        await asyncio.sleep(12)
        assert core.machine.leases.leases[5].renewals == 1
        await asyncio.sleep(7)
        assert 5 in core.machine.leases
        await asyncio.sleep(3)
        assert 5 not in core.machine.leases
        ending.cancel()

    run_virtual(scenario())


class RegrantedLate(LeaseClock):
    """The lease is revoked and granted anew after the look, as while its end waits for the next leader."""

    def overdue(self) -> list[int]:
        found = super().overdue()
        if found and self._core.machine.leases.leases[found[0]].ttl == 10:
            for number, command in enumerate(
                (
                    StoreCommand(lease_revoke=StoreLeaseRevoke(id=found[0], renewals=-1)),
                    StoreCommand(lease_grant=lease_pb2.LeaseGrantRequest(ID=found[0], TTL=20)),
                ),
                self._core.machine.applied_index + 1,
            ):
                applied = Applied(number, 1, 0)
                asyncio.get_running_loop().call_soon(self._core.machine.apply, command.SerializeToString(), applied)
        return found


def test_a_lease_that_is_granted_anew_is_not_ended_for_the_one_before() -> None:
    async def scenario() -> None:
        core, raft = new_core()
        clock = RegrantedLate(core, LoopClock())
        core.machine.lease_observer = clock
        await raft.start(core.machine)
        ending = asyncio.create_task(clock.run())
        await grant(core, 5, 10)
        await asyncio.sleep(29)
        assert core.machine.leases.leases[5].ttl == 20
        await asyncio.sleep(4)
        assert 5 not in core.machine.leases
        ending.cancel()

    run_virtual(scenario())


def test_a_member_that_does_not_lead_ends_nothing_and_a_new_leader_gives_full_time() -> None:
    async def scenario() -> None:
        core, raft = new_core()
        clock = LeaseClock(core, LoopClock())
        core.machine.lease_observer = clock
        await raft.start(core.machine)
        ending = asyncio.create_task(clock.run())
        await grant(core, 5, 10)
        raft.set_leader(False)
        await asyncio.sleep(60)
        assert 5 in core.machine.leases
        raft.set_leader(True)
        await asyncio.sleep(9)
        assert 5 in core.machine.leases
        await asyncio.sleep(2)
        assert 5 not in core.machine.leases
        ending.cancel()

    run_virtual(scenario())


def test_time_in_which_the_process_was_stopped_does_not_count() -> None:
    core, _ = new_core()
    time = FakeClock()
    clock = LeaseClock(core, time)
    clock.lease_renewed(5, 10)
    for _ in range(10):
        time.seconds += 0.5
        assert clock.overdue() == []
    time.seconds += 30
    assert clock.overdue() == []
    assert clock.remaining(5) in (4, 5, 6)
    for _ in range(20):
        time.seconds += 0.5
        overdue = clock.overdue()
    assert overdue == [5]
    clock.lease_ended(5)
    assert clock.overdue() == []


def test_time_in_which_the_disk_hung_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    core, raft = new_core()
    time = FakeClock()
    clock = LeaseClock(core, time)
    clock.lease_renewed(5, 10)
    healthy = raft.status()
    monkeypatch.setattr(raft, "status", lambda: replace(healthy, trouble="the disk does not answer"))
    for _ in range(60):
        time.seconds += 0.5
        assert clock.overdue() == []
    assert clock.remaining(5) == 10
    monkeypatch.setattr(raft, "status", lambda: healthy)
    for _ in range(20):
        assert clock.overdue() == []
        time.seconds += 0.5
    assert clock.overdue() == [5]


def test_proposals_of_a_group_without_a_leader_fail_and_errors_are_refusals() -> None:
    async def scenario() -> None:
        core, raft = new_core()
        await raft.start(core.machine)
        revoke = StoreCommand(lease_revoke=StoreLeaseRevoke(id=5, renewals=-1))
        with pytest.raises(Refused, match="lease not found"):
            await core.propose(revoke, LeaseOutcome)
        large = StoreCommand(put=kv_pb2.PutRequest(key=b"a", value=bytes(1536 * 1024 + 100)))
        with pytest.raises(Refused, match="too large"):
            await core.propose(large, PutOutcome)
        await raft.stop()
        with pytest.raises(RaftUnavailable) as nobody:
            await core.propose(revoke, LeaseOutcome)
        assert unavailable(nobody.value).message == "etcdserver: no leader"

    run_virtual(scenario())


def test_no_leader_is_only_said_of_what_no_leader_took() -> None:
    # Clients ask another member the same then, whatever it is.
    assert unavailable(NoLeader("too many proposals wait")).message == "etcdserver: no leader"
    assert unavailable(RaftUnavailable("it may be committed yet")).message == "etcdserver: request timed out"


def compactor(core: Core, clock: FakeClock, revisions: int, seconds: float) -> Compactor:
    return Compactor(core, clock, revisions=revisions, seconds=seconds)


def test_history_is_bounded_by_its_length() -> None:
    core, _ = new_core()
    clock = FakeClock()
    choosing = compactor(core, clock, revisions=100, seconds=300)
    core.machine.keys.revision = 100
    assert choosing.choose() == 0
    core.machine.keys.revision = 105
    assert choosing.choose() == 0
    core.machine.keys.revision = 150
    assert choosing.choose() == 50


def test_history_is_bounded_by_its_age_but_what_is_current_stays() -> None:
    core, _ = new_core()
    clock = FakeClock()
    choosing = compactor(core, clock, revisions=10_000, seconds=300)
    chosen = []
    for second in range(1000):
        clock.seconds += 1
        if second < 100:
            core.machine.keys.revision += 1
        target = choosing.choose()
        if target:
            core.machine.keys.compacted = target
            chosen.append((second, target))
    # Not an entry per revision: they are gathered for a minute.
    assert 1 <= len(chosen) <= 5
    assert chosen[0][0] >= 299
    assert chosen[-1][1] == 101
    assert core.machine.keys.revision == 101
