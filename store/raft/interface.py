"""What the state machine and the etcd services see of Raft, and what Raft sees of the state machine.

Implementations: `store.raft.node` (PySyncObj, hardened) and `store.raft.local` (one member without disk or network, for
tests of what is above).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class RaftUnavailable(Exception):  # noqa: N818 - a state of the cluster, not a mistake
    """No leader could be reached in time, or leadership was lost. A proposal may or may not have been committed."""


class NoLeader(RaftUnavailable):
    """No leader took it, so it has had no effect and never will: another member may be asked the same."""


class MembershipReason(StrEnum):
    """Why members are not changed or leadership is not handed over, with etcd's meanings."""

    NOT_FOUND = "there is no such member"
    ID_EXISTS = "there is a member of this name"
    ADDRESS_EXISTS = "another member has this peer address"
    NOT_LEARNER = "only a learner can be promoted"
    LEARNER_NOT_READY = "the learner has not caught up with the leader"
    TOO_MANY_LEARNERS = "there are too many learners already"
    NOT_ENOUGH_STARTED = "too few members would be left that run"
    UNHEALTHY = "too few members that can be reached would be left for a quorum"
    IN_PROGRESS = "the change of members before this one is not committed yet"
    NOT_LEADER = "this member does not lead"
    BAD_TRANSFEREE = "leadership can be given to a voting member alone"
    TRANSFER_TIMEOUT = "the other member did not take over in time"


class MembershipError(Exception):
    """A change of members, or a transfer of leadership, that was refused and has not happened.

    After TRANSFER_TIMEOUT this member goes on leading, unless an election was held all the same.
    """

    def __init__(self, reason: MembershipReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Member:
    """A member, as the group knows it. `id` is stable over restarts (etcd's uint64 member id).

    `name` is empty while a member that was added by its peer address has not been heard of; `client_address` may be.
    """

    id: int
    name: str
    peer_address: str
    client_address: str
    # Receives the log, but neither votes nor counts for a quorum.
    learner: bool = False
    # Of the data directory that it came with first; 0 while it has not been heard of.
    directory_id: int = 0


@dataclass(frozen=True, slots=True)
class RaftStatus:
    """What this member knows now. `leader` is None while there is none that it has heard of recently."""

    member: Member
    leader: Member | None
    term: int
    commit_index: int
    applied_index: int
    log_bytes: int
    members: Sequence[Member]
    # Why this member can do nothing for its callers, though the group may; empty when it can. It knows no leader then.
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """What goes with a command into the state machine, the same on every member."""

    # Index of the command: grows by one with every command, group commit or not.
    index: int
    term: int
    # The leader's wall clock when it appended the command, in milliseconds since the epoch; never goes back along the
    # log. The only clock that the state machine may use.
    now_ms: int


@dataclass(frozen=True, slots=True)
class Levels:
    """Which levels of the state machine some software can apply: what a command means may differ between levels."""

    lowest: int = 1
    highest: int = 1

    def __contains__(self, level: int) -> bool:
        return self.lowest <= level <= self.highest

    def __str__(self) -> str:
        return f"level {self.highest}" if self.lowest == self.highest else f"levels {self.lowest} to {self.highest}"


class UnknownLevel(Exception):  # noqa: N818 - said of the log
    """The log, or a snapshot, is at a level that this software cannot apply."""

    def __init__(self, level: int) -> None:
        super().__init__(f"level {level}")
        self.level = level


class UnknownCommand(Exception):  # noqa: N818 - said of the log
    """The log holds a command that this software does not know: whatever it answered, others would not."""


class Loading(Protocol):
    """A dump on its way into a state machine, which goes on as it was until `finish`."""

    def feed(self, part: bytes) -> None:
        """Take bytes of the dump, cut anywhere. Short: other work of the loop comes in between.

        Raises:
            Exception: when they are not a dump's.
        """
        ...

    def finish(self) -> None:
        """Replace the machine's state, and tell those who follow it.

        Raises:
            Exception: when the dump is not whole; the machine is as it was.
        """
        ...


class StateMachine(Protocol):
    """Applies committed commands. Deterministic, and never raises: errors are results."""

    @property
    def levels(self) -> Levels:
        """What this software can apply."""
        ...

    @property
    def level(self) -> int:
        """The group's level: what commands mean from here on. Part of the state, 1 at first."""
        ...

    def apply(self, command: bytes, applied: Applied) -> object:
        """Apply one command; the result reaches the proposer, when it waits on this member, and nobody else.

        Raises:
            UnknownCommand: it is of a kind that came with another version; the member must end. Nothing else is raised.
        """
        ...

    def rise(self, level: int) -> None:
        """The group has risen to a level, one of `levels`; a lower one than the present changes nothing."""
        ...

    def caught_up(self) -> None:
        """Called after each batch of applied commands: the time to wake watchers."""
        ...

    def dump(self) -> Iterator[bytes]:
        """The state as it is now, in portions, consistent however much is applied while they are read.

        To begin takes no time that grows with the state. Read to its end, or thrown away.
        """
        ...

    def load(self) -> Loading:
        """Begin to take a dump."""
        ...


class Raft(Protocol):
    """One member. Proposals and reads may be made on any member: followers pass them to the leader."""

    async def start(self, machine: StateMachine) -> None:
        """Replay the log's committed part into the machine as it becomes known, join the group and take part.

        Raises:
            StartupError: when the data directory cannot be used (another member's, corrupt, not writable) or the peer
                address cannot be listened on.
        """
        ...

    async def stop(self) -> None:
        """Leave the loop in order; everything acknowledged is on disk already."""
        ...

    async def propose(self, command: bytes) -> object:
        """Commit a command and return what the state machine of *this* member made of it.

        The command is durable on a majority, and applied here, when this returns: a read that follows on this member
        sees it.

        Raises:
            NoLeader: it was not given to a leader.
            RaftUnavailable: lost leadership, or no answer in time; the command may have been committed all the same.
        """
        ...

    async def read_barrier(self) -> None:
        """Wait until this member has applied everything that was committed before the call (ReadIndex).

        Callers that wait at the same time share one round of heartbeats.

        Raises:
            RaftUnavailable: when no leader confirms that it still leads.
        """
        ...

    @property
    def is_leader(self) -> bool:
        """Whether this member leads, as far as it knows."""
        ...

    @property
    def member_id(self) -> int:
        """This member's id, 0 while it is not known; as `status` has it, but cheap: every answer's header names it."""
        ...

    @property
    def term(self) -> int:
        """The current term; as `status` has it."""
        ...

    def status(self) -> RaftStatus:
        """What this member knows now."""
        ...

    async def add_member(self, name: str, peer_address: str, client_address: str, *, learner: bool) -> Member:
        """Let another member join; it is a learner at first, also when `learner` is False.

        Then it becomes a voting member by itself once it has caught up. `name` may be empty: it is learnt from the
        certificate of the member that comes from `peer_address`.

        This and the changes below may be made on any member, and return when the change is committed.

        Raises:
            MembershipError: the group does not allow it; nothing was changed.
            RaftUnavailable: no leader, or lost leadership; the change may have been made all the same.
        """
        ...

    async def promote_member(self, member_id: int) -> Member:
        """Make a learner that has caught up a voting member; errors as `add_member`."""
        ...

    async def remove_member(self, member_id: int) -> None:
        """Let a member leave for good; errors as `add_member`. A leader hands over before it is removed.

        The removed process ends itself. Its id is never used again: to come back, it is added anew with an empty data
        directory.
        """
        ...

    async def update_member(self, member_id: int, peer_address: str) -> Member:
        """Change where the others reach a member; errors as `add_member`."""
        ...

    async def transfer_leadership(self, member_id: int) -> None:
        """As the leader, let another voting member lead; returns when it does. Proposals wait meanwhile.

        Raises:
            MembershipError: NOT_LEADER, BAD_TRANSFEREE or TRANSFER_TIMEOUT.
            RaftUnavailable: this member does not run.
        """
        ...

    def on_leadership(self, handler: Callable[[bool], None]) -> None:
        """Call `handler` on the loop whenever this member begins (True) or ceases (False) to lead."""
        ...

    def metrics(self) -> Mapping[str, float]:
        """Counters and gauges by name, for people and tests: proposals, appends, fsync seconds and so on."""
        ...
