"""The contract of `store.raft.interface` for one member without disk or network: for tests of what is above."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from kybern.clock import Clock, SystemClock
from store.raft.interface import Applied, Member, RaftStatus, RaftUnavailable, StateMachine


class LocalRaft:
    """Leads from the start and commits at once. `set_leader(False)` makes it a group without a quorum."""

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
            raise RaftUnavailable("there is no leader")
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
            raise RaftUnavailable("there is no leader")

    @property
    def is_leader(self) -> bool:
        """As `Raft.is_leader`."""
        return self._leading

    def status(self) -> RaftStatus:
        """As `Raft.status`."""
        return RaftStatus(
            member=self._member,
            leader=self._member if self._leading else None,
            term=self._term,
            commit_index=self._index,
            applied_index=self._index,
            log_bytes=0,
            members=(self._member,),
        )

    def on_leadership(self, handler: Callable[[bool], None]) -> None:
        """As `Raft.on_leadership`."""
        self._handlers.append(handler)

    def metrics(self) -> Mapping[str, float]:
        """As `Raft.metrics`."""
        return {"proposals": float(self._index), "reads": float(self._reads)}

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
