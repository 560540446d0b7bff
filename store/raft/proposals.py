"""Commands on their way: proposed here, forwarded to the leader or appended by it, and recognised when applied.

A command is sent to the leader of one term, which appends it in that term or refuses it. So once an entry of a later
term has been applied and the command has not, it never will be, and it is proposed again: nothing is applied twice, and
a change of leader costs a proposer time, not an error.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from store.raft.entries import Run, encode_group
from store.raft.interface import NoLeader, RaftUnavailable

MAX_GROUP_COMMANDS = 512
MAX_GROUP_BYTES = 1 << 20
MAX_COMMAND_BYTES = 8 << 20
# What may wait here for a leader; more is refused at once.
_MAX_WAITING_BYTES = 64 << 20


@dataclass(slots=True, eq=False)
class Proposal:
    """A command, and who waits for it."""

    command: bytes
    deadline: float
    future: asyncio.Future[object]
    # The term in which it was given to a leader; 0 while it waits.
    term: int = 0


@dataclass(slots=True)
class Taken:
    """A run that a leader has accepted and not yet appended; `peer` is empty for its own."""

    peer: str
    term: int
    run: Run


@dataclass(slots=True)
class _Group:
    """What becomes one entry."""

    runs: list[Run] = field(default_factory=list)
    commands: int = 0
    size: int = 0

    def add(self, run: Run) -> None:
        """Take a run."""
        self.runs.append(run)
        self.commands += len(run.commands)
        self.size += run.size

    @property
    def full(self) -> bool:
        """Whether it takes no more."""
        return self.commands >= MAX_GROUP_COMMANDS or self.size >= MAX_GROUP_BYTES


@dataclass(slots=True)
class Proposals:
    """All commands of this member's callers, and on a leader those of the others too."""

    origin: int
    refuse: Callable[[Taken], None]
    waiting: deque[Proposal] = field(default_factory=deque)
    sent: dict[int, Proposal] = field(default_factory=dict)
    # Of commands that wait for a leader, and of those that this leader has not appended yet.
    waiting_bytes: int = 0
    forwarded_bytes: int = 0
    _forwarded: deque[Taken] = field(default_factory=deque)
    _next_sequence: int = 1
    _last_term: int = 0
    # Whether this leader's own callers came first in the last entry.
    _own_first: bool = True

    def submit(self, command: bytes, deadline: float, future: asyncio.Future[object]) -> None:
        """Take a command of a caller here.

        Raises:
            NoLeader: when too much waits already.
        """
        if self.waiting_bytes > _MAX_WAITING_BYTES:
            raise NoLeader("too many proposals wait for a leader")
        self.waiting.append(Proposal(command, deadline, future))
        self.waiting_bytes += len(command)

    def accept(self, taken: Taken) -> None:
        """As a leader, take commands that another member sent."""
        self._forwarded.append(taken)
        self.forwarded_bytes += taken.run.size

    def run_for(self, term: int) -> Run | None:
        """The next commands for the leader of `term`, as one run; they are `sent` from now on."""
        commands: list[bytes] = []
        first, size = self._next_sequence, 0
        while self.waiting and len(commands) < MAX_GROUP_COMMANDS and size < MAX_GROUP_BYTES:
            proposal = self.waiting.popleft()
            self.waiting_bytes -= len(proposal.command)
            if proposal.future.done():
                continue
            proposal.term = term
            self.sent[self._next_sequence] = proposal
            self._next_sequence += 1
            size += len(proposal.command)
            commands.append(proposal.command)
        return Run(self.origin, first, commands) if commands else None

    def take_back(self, first: int, count: int) -> None:
        """Commands that a leader did not take wait again, before all others."""
        back = [self.sent.pop(sequence) for sequence in range(first, first + count) if sequence in self.sent]
        self._wait_again(back)

    def next_group(self, term: int, now_ms: int, least_bytes: int = 1) -> bytes | None:
        """As the leader of `term`: the next entry out of what was forwarded and what waits here, if it is enough.

        The two go first in turn: where each fills an entry by itself, neither waits for the other to have nothing.
        """
        if self.to_append < least_bytes:
            return None
        self._own_first = not self._own_first
        group = _Group()
        for own in (self._own_first, not self._own_first):
            if own:
                self._add_own(group, term)
            else:
                self._add_forwarded(group, term)
        return encode_group(now_ms, group.runs) if group.runs else None

    def _add_own(self, group: _Group, term: int) -> None:
        run = None if group.full else self.run_for(term)
        if run is not None:
            group.add(run)

    def _add_forwarded(self, group: _Group, term: int) -> None:
        while self._forwarded and not group.full:
            taken = self._forwarded.popleft()
            self.forwarded_bytes -= taken.run.size
            if taken.term == term:
                group.add(taken.run)
            else:
                self.refuse(taken)

    @property
    def to_append(self) -> int:
        """Bytes of commands that this member would append as the leader."""
        return self.waiting_bytes + self.forwarded_bytes

    @property
    def commands_to_append(self) -> int:
        """How many those are."""
        return len(self.waiting) + sum(len(taken.run.commands) for taken in self._forwarded)

    def drop_forwarded(self) -> None:
        """No longer the leader: what was not appended is refused."""
        while self._forwarded:
            self.refuse(self._forwarded.popleft())
        self.forwarded_bytes = 0

    def entry_applied(self, term: int) -> None:
        """An entry of `term` is about to be applied: what was sent in earlier terms is lost, and waits again."""
        if term == self._last_term:
            return
        self._last_term = term
        lost = [sequence for sequence, proposal in self.sent.items() if proposal.term < term]
        self._wait_again([self.sent.pop(sequence) for sequence in lost])

    def claim(self, run: Run) -> Sequence[Proposal | None]:
        """The proposals behind an applied run, if it is one of ours."""
        if run.origin != self.origin:
            return [None] * len(run.commands)
        return [self.sent.pop(run.first_sequence + i, None) for i in range(len(run.commands))]

    def expire(self, now: float) -> None:
        """Give up what has waited too long; what was sent may be applied all the same."""
        for proposal in [*self.waiting, *self.sent.values()]:
            if proposal.deadline <= now and not proposal.future.done():
                proposal.future.set_exception(
                    RaftUnavailable("the command was not committed in time; it may be yet")
                    if proposal.term
                    else NoLeader("the command found no leader in time")
                )
        while self.waiting and self.waiting[0].future.done():
            self.waiting_bytes -= len(self.waiting.popleft().command)
        # Those given up stay known while they may be applied, but without their bytes.
        for proposal in self.sent.values():
            if proposal.future.done():
                proposal.command = b""

    def fail_sent(self, reason: str) -> None:
        """The state has moved on by a snapshot: whether what was given to a leader is part of it is not known."""
        for proposal in self.sent.values():
            if not proposal.future.done():
                proposal.future.set_exception(RaftUnavailable(reason))
        self.sent.clear()

    def fail(self, reason: str) -> None:
        """Nothing will be heard here of any command; `reason` says why."""
        for proposal in [*self.waiting, *self.sent.values()]:
            if not proposal.future.done():
                proposal.future.set_exception(RaftUnavailable(reason) if proposal.term else NoLeader(reason))
        self.waiting.clear()
        self.sent.clear()
        self._forwarded.clear()
        self.waiting_bytes = self.forwarded_bytes = 0

    def _wait_again(self, proposals: list[Proposal]) -> None:
        for proposal in reversed(proposals):
            if not proposal.future.done():
                proposal.term = 0
                self.waiting.appendleft(proposal)
                self.waiting_bytes += len(proposal.command)
