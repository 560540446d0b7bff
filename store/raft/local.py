"""The contract of `store.raft.interface` for one member without disk or network: for tests of what is above."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from kybern.clock import Clock, SystemClock
from store.raft.interface import (
    Applied,
    Member,
    MembershipError,
    MembershipReason,
    NoLeader,
    RaftStatus,
    RaftUnavailable,
    StateMachine,
)


class LocalRaft:
    """Leads from the start and commits at once. `set_leader(False)` makes it a group without a quorum.

    Members that are added are listed and never run, so none of them is promoted.
    """

    def __init__(self, member: Member, clock: Clock | None = None) -> None:
        self._member = member
        self._clock = clock or SystemClock()
        self._machine: StateMachine | None = None
        self._queue: list[tuple[bytes, asyncio.Future[object]]] = []
        self._handlers: list[Callable[[bool], None]] = []
        self._leading = False
        self._term = 0
        self._index = 0
        self._now_ms = 0
        self._reads = 0
        self._members = {member.id: member}

    async def start(self, machine: StateMachine) -> None:
        """As `Raft.start`; there is no log to replay."""
        self._machine = machine
        self.set_leader(True)

    async def stop(self) -> None:
        """As `Raft.stop`; proposals that wait fail."""
        self.set_leader(False)
        for _, future in self._queue:
            if not future.done():
                future.set_exception(RaftUnavailable("this member stops"))
        self._queue.clear()

    def set_leader(self, leading: bool) -> None:
        """Gain or lose leadership, as if a quorum had come or gone."""
        if leading == self._leading:
            return
        self._leading = leading
        self._term += leading
        for handler in self._handlers:
            handler(leading)

    async def propose(self, command: bytes) -> object:
        """As `Raft.propose`."""
        if not self._leading:
            raise NoLeader("there is no leader")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()
        if not self._queue:
            loop.call_soon(self._apply)
        self._queue.append((command, future))
        return await future

    async def read_barrier(self) -> None:
        """As `Raft.read_barrier`."""
        self._reads += 1
        await asyncio.sleep(0)
        if not self._leading:
            raise NoLeader("there is no leader")

    @property
    def is_leader(self) -> bool:
        """As `Raft.is_leader`."""
        return self._leading

    @property
    def member_id(self) -> int:
        """As `Raft.member_id`."""
        return self._member.id

    @property
    def term(self) -> int:
        """As `Raft.term`."""
        return self._term

    def status(self) -> RaftStatus:
        """As `Raft.status`."""
        return RaftStatus(
            member=self._member,
            leader=self._member if self._leading else None,
            term=self._term,
            commit_index=self._index,
            applied_index=self._index,
            log_bytes=0,
            members=tuple(self._members.values()),
        )

    async def add_member(self, name: str, peer_address: str, client_address: str, *, learner: bool) -> Member:
        """As `Raft.add_member`; the member stays a learner."""
        await self.read_barrier()
        if name and any(member.name == name for member in self._members.values()):
            raise MembershipError(MembershipReason.ID_EXISTS)
        self._check_address(peer_address)
        added = Member(max(self._members) + 1, name, peer_address, client_address, learner=True)
        self._members[added.id] = added
        return added

    async def promote_member(self, member_id: int) -> Member:
        """As `Raft.promote_member`, for learners that never catch up."""
        member = await self._known(member_id)
        raise MembershipError(MembershipReason.LEARNER_NOT_READY if member.learner else MembershipReason.NOT_LEARNER)

    async def remove_member(self, member_id: int) -> None:
        """As `Raft.remove_member`."""
        member = await self._known(member_id)
        if member is self._member:
            raise MembershipError(MembershipReason.NOT_ENOUGH_STARTED)
        del self._members[member_id]

    async def update_member(self, member_id: int, peer_address: str) -> Member:
        """As `Raft.update_member`."""
        member = await self._known(member_id)
        if member.peer_address != peer_address:
            self._check_address(peer_address)
        self._members[member_id] = replace(member, peer_address=peer_address)
        if member is self._member:
            self._member = self._members[member_id]
        return self._members[member_id]

    async def transfer_leadership(self, member_id: int) -> None:
        """As `Raft.transfer_leadership`: there is only this member to lead."""
        if not self._leading:
            raise MembershipError(MembershipReason.NOT_LEADER)
        if member_id != self._member.id:
            raise MembershipError(MembershipReason.BAD_TRANSFEREE)

    def on_leadership(self, handler: Callable[[bool], None]) -> None:
        """As `Raft.on_leadership`."""
        self._handlers.append(handler)

    def metrics(self) -> Mapping[str, float]:
        """As `Raft.metrics`."""
        return {"proposals": float(self._index), "reads": float(self._reads)}

    async def _known(self, member_id: int) -> Member:
        await self.read_barrier()
        member = self._members.get(member_id)
        if member is None:
            raise MembershipError(MembershipReason.NOT_FOUND)
        return member

    def _check_address(self, peer_address: str) -> None:
        if any(member.peer_address == peer_address for member in self._members.values()):
            raise MembershipError(MembershipReason.ADDRESS_EXISTS)

    def _apply(self) -> None:
        """Apply what was proposed since the last turn of the loop, as group commit does."""
        batch, self._queue = self._queue, []
        if self._machine is None or not batch:
            return
        self._now_ms = max(self._now_ms, int(self._clock.now().timestamp() * 1000))
        for command, future in batch:
            self._index += 1
            outcome = self._machine.apply(command, Applied(self._index, self._term, self._now_ms))
            if not future.done():
                future.set_result(outcome)
        self._machine.caught_up()
