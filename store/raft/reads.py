"""ReadIndex: from which applied index on a read is linearizable. Readers that come at the same time share one answer.

A leader's answer counts when a quorum has answered appends sent after the question; a follower asks the leader. While
one round runs, those who come later wait for the next: an answer must not be older than the question.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from store.raft.interface import NoLeader, RaftUnavailable
from store.raft.messages import ReadReply, ReadRequest


class Leadership(Protocol):
    """What a round needs of Raft."""

    append_sequence: int

    @property
    def commit_index(self) -> int:
        """How far the log is committed."""
        ...

    @property
    def may_read(self) -> bool:
        """Whether this member leads and has committed an entry of its term."""
        ...

    @property
    def leader(self) -> str | None:
        """The leader's name."""
        ...

    @property
    def term(self) -> int:
        """The current term."""
        ...

    def confirmed_since(self, sequence: int) -> bool:
        """Whether a quorum has answered appends after that one."""
        ...

    def heartbeat(self) -> None:
        """Send an append to everybody now."""
        ...


@dataclass(slots=True, eq=False)
class Reader:
    """Someone who waits for an index: a caller here (`future`), or a follower (`peer` and the id of its request)."""

    deadline: float
    future: asyncio.Future[None] | None = None
    peer: str = ""
    request: int = 0


@dataclass(slots=True)
class _Round:
    """A question on its way: own appends after `sequence`, or the request `id` to a leader."""

    readers: list[Reader]
    term: int
    asked: str
    started: float
    sequence: int = 0
    index: int = 0
    id: int = 0


@dataclass(slots=True)
class Reads:
    """The readers of this member."""

    name: str
    send: Callable[[str, ReadRequest | ReadReply], bool]
    # Seconds after which a leader that has not answered is asked again.
    patience: float
    waiting: list[Reader] = field(default_factory=list)
    rounds: int = 0
    _round: _Round | None = None
    _indexed: list[tuple[int, Reader]] = field(default_factory=list)
    # Questions are numbered from anywhere on: the answer to one that this member asked before it was restarted must not
    # pass for the answer to a later one, which may be about newer writes.
    next_id: int = field(default_factory=lambda: secrets.randbits(48))

    def add(self, reader: Reader) -> None:
        """Take a reader; `advance` goes on with it."""
        self.waiting.append(reader)

    @property
    def pending(self) -> bool:
        """Whether someone waits for a leader to be confirmed."""
        return self._round is not None or bool(self.waiting)

    def advance(self, raft: Leadership, applied: int, now: float) -> None:
        """Finish and begin rounds as far as Raft's state allows."""
        if self._round is not None:
            self._check(self._round, raft, now)
        if self._round is None and self.waiting:
            self._begin(raft, now)
        if self._indexed:
            self.applied(applied)

    def applied(self, index: int) -> None:
        """Entries up to `index` have been applied: wake those that waited for them."""
        later: list[tuple[int, Reader]] = []
        for needed, reader in self._indexed:
            if needed > index:
                later.append((needed, reader))
            elif reader.future is not None and not reader.future.done():
                reader.future.set_result(None)
        self._indexed = later

    def answered(self, peer: str, reply: ReadReply) -> None:
        """A leader's answer."""
        pending = self._round
        if pending is not None and pending.asked == peer and pending.id == reply.id:
            self._finish(pending, reply.index)

    def expire(self, now: float) -> None:
        """Give up those who have waited too long."""
        everyone = [*self.waiting, *(reader for _, reader in self._indexed)]
        if self._round is not None:
            everyone += self._round.readers
        asked = self._round is not None
        for reader in everyone:
            if reader.deadline <= now and reader.future is not None and not reader.future.done():
                reader.future.set_exception(
                    RaftUnavailable("no leader confirmed that it leads in time")
                    if asked
                    else NoLeader("no leader was found in time")
                )
        self.waiting = [r for r in self.waiting if r.deadline > now and not (r.future and r.future.done())]
        self._indexed = [(i, r) for i, r in self._indexed if not (r.future and r.future.done())]

    def fail(self, reason: str) -> None:
        """Nothing can be read here; `reason` says why."""
        for reader in [*self.waiting, *(self._round.readers if self._round else ()), *(r for _, r in self._indexed)]:
            if reader.future is not None and not reader.future.done():
                reader.future.set_exception(NoLeader(reason))
        self.waiting, self._round, self._indexed = [], None, []

    def _begin(self, raft: Leadership, now: float) -> None:
        leader = raft.leader
        if leader == self.name:
            if not raft.may_read:
                return
            self._round = _Round(self._take(), raft.term, leader, now, raft.append_sequence, raft.commit_index)
            self.rounds += 1
            if not raft.confirmed_since(self._round.sequence):
                raft.heartbeat()
            self._check(self._round, raft, now)
        elif leader is not None:
            # A follower's request that reached a member that does not lead is not passed on; it will be asked again.
            self.waiting = [reader for reader in self.waiting if reader.future is not None]
            if not self.waiting or not self.send(leader, ReadRequest(self.next_id)):
                return
            self._round = _Round(self._take(), raft.term, leader, now, id=self.next_id)
            self.next_id += 1
            self.rounds += 1

    def _check(self, pending: _Round, raft: Leadership, now: float) -> None:
        if raft.leader != pending.asked or raft.term != pending.term:
            self._give_back(pending)
        elif pending.asked == self.name:
            if raft.confirmed_since(pending.sequence):
                self._finish(pending, pending.index)
                if self.waiting:
                    self._begin(raft, now)
        elif now - pending.started > self.patience:
            self._give_back(pending)

    def _take(self) -> list[Reader]:
        readers, self.waiting = self.waiting, []
        return readers

    def _give_back(self, pending: _Round) -> None:
        self._round = None
        self.waiting = pending.readers + self.waiting

    def _finish(self, pending: _Round, index: int) -> None:
        self._round = None
        for reader in pending.readers:
            if reader.future is not None:
                self._indexed.append((index, reader))
            else:
                self.send(reader.peer, ReadReply(reader.request, index))
