"""A small world for the Raft core: a lossy network, disks that forget what was not synced, and a clock, all by seed.

Harsher than the real transport: messages are lost, repeated and overtake each other, also on a connection that lives.
Members crash at any moment and come back with what their disk had, with a torn last batch now and then.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from store.raft import messages, segments
from store.raft.configuration import Configuration, Configurations
from store.raft.core import HardenedRaft
from store.raft.datadir import Vote
from store.raft.elections import Timing
from store.raft.entries import decode_group
from store.raft.journal import Journal
from store.raft.messages import Message
from store.raft.proposals import Proposals, Taken
from store.raft.reads import Reader, Reads
from tests.unit.store.raft.rig import group

TIMING = Timing(heartbeat=0.1, election_min=1.0, election_max=2.5)
STEP = 0.02


class Waiter(Protocol):
    """What `Proposals` and `Reads` use of a future."""

    def done(self) -> bool: ...


@dataclass(eq=False)
class Answer:
    """A future without a loop: what was asked, and what must be true when it is answered."""

    world: World
    # For a read: how far anything was committed when it was asked.
    at_least: int = 0
    result: object = None
    finished: bool = False
    # Its fate is not known.
    failed: bool = False

    def done(self) -> bool:
        return self.finished

    def set_result(self, result: object) -> None:
        self.result, self.finished = result, True

    def set_exception(self, _error: Exception) -> None:
        self.finished = self.failed = True


@dataclass
class World:
    """All members, the network between them and what was ever committed."""

    directory: Path
    rng: random.Random
    names: tuple[str, ...]
    now: float = 1000.0
    members: dict[str, SimulatedMember] = field(default_factory=dict)
    committed: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    leaders: dict[int, str] = field(default_factory=dict)
    acknowledged: set[bytes] = field(default_factory=set)
    blocked: set[tuple[str, str]] = field(default_factory=set)
    loss: float = 0.0
    # How many entries apart members take snapshots; 0: never.
    snapshot_every: int = 0
    snapshots_installed: int = 0
    # How likely each member crashes in a round.
    crashes: float = 0.0
    _queue: list[tuple[float, int, str, str, Message]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)
    reads_answered: int = 0
    snapshots: dict[str, Kept] = field(default_factory=dict)
    # What a snapshot up to an entry says of the members: the same whoever takes it.
    snapshot_members: dict[int, Configuration] = field(default_factory=dict)
    # Told of everything that is sent, when set: (time, from, to, bytes).
    heard: Callable[[float, str, str, bytes], None] | None = None

    def initial(self, _name: str) -> Configuration:
        """What a member goes by before its log says more."""
        return group(*self.names)

    def start(self) -> None:
        for name in self.names:
            self.members[name] = self.make(name)

    def make(self, name: str) -> SimulatedMember:
        """A member with what its disk has."""
        return SimulatedMember(self, name)

    def send(self, source: str, target: str, message: Message) -> bool:
        if self.heard is not None:
            self.heard(self.now, source, target, messages.encode(message))
        if (source, target) in self.blocked or self.rng.random() < self.loss:
            # Lost on the way: the sender does not know.
            return True
        # Commands rely on what the transport promises, that nothing arrives twice; Raft itself does not.
        once = isinstance(message, messages.Forward | messages.ChangeRequest)
        repeats = not once and self.rng.random() < self.loss
        copies = 2 if repeats else 1
        for _ in range(copies):
            delay = self.rng.choice((0.001, 0.001, 0.01, 0.3 if self.loss else 0.02))
            heapq.heappush(self._queue, (self.now + delay, next(self._order), source, target, message))
        return True

    def step(self) -> None:
        self.now += STEP
        while self._queue and self._queue[0][0] <= self.now:
            _, _, source, target, message = heapq.heappop(self._queue)
            member = self.members.get(target)
            if member is not None and source in self.members:
                member.receive(source, message)
        for name, member in list(self.members.items()):
            if member.doomed:
                self.crash(name)
            else:
                member.turn()

    def crash(self, name: str) -> None:
        self.members.pop(name).crash(self.rng)

    def restart(self, name: str) -> None:
        self.members[name] = self.make(name)

    def commit(self, index: int, term: int, entry: bytes) -> None:
        """A member applies an entry: it must be the one that every other member applies there."""
        known = self.committed.setdefault(index, (term, entry))
        assert known == (term, entry), f"entry {index} differs between members"

    @property
    def highest_commit(self) -> int:
        return max(self.committed, default=1)


@dataclass(frozen=True)
class Kept:
    """A snapshot, as a member's disk keeps it."""

    index: int
    term: int
    applied: tuple[bytes, ...]
    configuration: Configuration
    installed: bool = False


class SimulatedMember:
    """What `RaftNode` is, without a loop, sockets or threads."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.journal = Journal(world.directory / name, segment_bytes=2000, cache_bytes=500)
        (world.directory / name).mkdir(exist_ok=True)
        self.journal.open()
        self.proposals = Proposals(world.rng.getrandbits(63), self.refuse)
        self.reads = Reads(name, self.send, patience=0.5, next_id=world.rng.getrandbits(48))
        # How likely the disk finishes a write within a step.
        self.disk_speed = 0.7
        # It has to crash at once.
        self.doomed = False
        self.applied: list[bytes] = []
        self.snapshot: Kept | None = world.snapshots.get(name)
        if self.snapshot is not None:
            self._reconcile(self.snapshot)
            self.applied = list(self.snapshot.applied)
        self.pending: list[tuple[Answer, bytes]] = []
        self.pending_reads: list[Answer] = []
        others = [other for other in world.names if other != name]
        if self.snapshot is None:
            self.configurations = Configurations(world.initial(name), entries=self.journal.configurations)
        else:
            self.configurations = Configurations(
                self.snapshot.configuration, self.snapshot.index, self.journal.configurations
            )
        self.raft = HardenedRaft(name, self.configurations, TIMING, self.journal, self, self, self)
        if self.snapshot is not None:
            self.raft.restored(self.snapshot.index, 0)
        for other in others:
            self.raft.connected(other)

    # --- what happens to it

    def propose(self, command: bytes) -> None:
        answer = Answer(self.world)
        self.pending.append((answer, command))
        self.proposals.submit(command, float("inf"), answer)  # type: ignore[arg-type]

    def read(self) -> None:
        answer = Answer(self.world, at_least=self.world.highest_commit)
        self.pending_reads.append(answer)
        self.reads.add(Reader(float("inf"), answer))  # type: ignore[arg-type]

    def receive(self, source: str, message: Message) -> None:
        match message:
            case messages.Forward():
                taken = Taken(source, message.term, message.run)
                if self.raft.leads and self.raft.term == message.term:
                    self.proposals.accept(taken)
                else:
                    self.refuse(taken)
            case messages.ForwardRefused():
                self.proposals.take_back(message.first_sequence, message.count)
            case messages.ReadRequest():
                self.reads.add(Reader(float("inf"), None, source, message.id))
            case messages.ReadReply():
                self.reads.answered(source, message)
            case messages.SnapshotPart():
                self._take_part(source, message)
            case messages.SnapshotReply():
                if message.installed and message.term == self.raft.term and self.raft.leads:
                    self.raft.snapshot_installed(source, message.offset)
            case _:
                self.raft.receive(source, message)

    def turn(self) -> None:
        self.raft.tick()
        leader = self.raft.leader
        if leader is not None and leader != self.name:
            run = self.proposals.run_for(self.raft.term)
            if run is not None:
                self.send(leader, messages.Forward(self.raft.term, run))
        self.reads.advance(self.raft, self.raft.applied_index, self.world.now)
        for answer in [answer for answer in self.pending_reads if answer.finished]:
            assert self.raft.applied_index >= answer.at_least, "a read that misses a committed write"
            self.world.reads_answered += 1
            self.pending_reads.remove(answer)
        for answer, command in [pair for pair in self.pending if pair[0].finished]:
            if not answer.failed:
                self.world.acknowledged.add(command)
            self.pending.remove((answer, command))
        self._snapshots()
        if self.world.rng.random() < self.disk_speed:
            batch = self.journal.take()
            if batch is not None:
                self.journal.write(batch)
                self.journal.done(batch)
                self.raft.on_durable()

    def crash(self, rng: random.Random) -> None:
        batch = self.journal.take()
        self.journal.close()
        if batch is not None and batch.header is None and rng.random() < 0.5:
            data = segments.encode_batch(batch.sequence, [segments.encode_record(*entry) for entry in batch.entries])
            with (self.world.directory / self.name / f"{batch.segment:010d}.log").open("r+b") as file:
                file.seek(batch.offset)
                file.write(data[: rng.randrange(len(data))])

    # --- snapshots: taken, trimmed, sent whole (their parts are the real transfer's matter)

    def _snapshots(self) -> None:
        rng = self.world.rng
        every = self.world.snapshot_every
        done = self.snapshot.index if self.snapshot is not None else 1
        if every and self.raft.applied_index - done >= every and rng.random() < 0.3:
            index = self.raft.applied_index
            self.snapshot = Kept(
                index, self.journal.term_at(index), tuple(self.applied), self.configurations.as_of(index)
            )
            self.world.snapshot_members[index] = self.snapshot.configuration
            self.world.snapshots[self.name] = self.snapshot
            # A crash may come between the two, or between the segments.
            if rng.random() < 0.8:
                self.journal.trim(index - rng.randrange(10))
                if rng.random() < 0.8:
                    self.journal.remove()
        for peer in sorted(self.raft.behind):
            if self.snapshot is not None and rng.random() < 0.3:
                kept = self.snapshot
                part = messages.SnapshotPart(self.raft.term, 1, kept.index, kept.term, 1, 0, b"\0".join(kept.applied))
                self.send(peer, part)

    def _take_part(self, source: str, part: messages.SnapshotPart) -> None:
        if part.term != self.raft.term:
            return
        # A write that runs is waited for, as the real node does before it installs.
        journal = self.journal
        overtaken = (
            journal.base_index <= part.index <= journal.durable_index and journal.term_at(part.index) == part.index_term
        )
        if part.index > self.raft.applied_index and not overtaken:
            applied = tuple(part.data.split(b"\0"))
            self.snapshot = Kept(
                part.index, part.index_term, applied, self.world.snapshot_members[part.index], installed=True
            )
            self.world.snapshots[self.name] = self.snapshot
            self.world.snapshots_installed += 1
            if self.world.rng.random() < 0.2:
                # Durable under its name, and nothing else done.
                self.doomed = True
                return
            self.journal.reset(part.index, part.index_term)
            self.journal.remove()
            self.raft.restored(part.index, 0)
            self.raft.adopt(part.index, self.snapshot.configuration)
            self.applied = list(applied)
            self.proposals.fail_sent("snapshot")
        self.send(source, messages.SnapshotReply(part.term, 1, part.index, installed=True))

    def _reconcile(self, kept: Kept) -> None:
        """As `Snapshots._reconcile`."""
        assert kept.index >= self.journal.base_index
        if not (kept.index <= self.journal.last_index and self.journal.term_at(kept.index) == kept.term):
            assert kept.installed
            self.journal.reset(kept.index, kept.term)
            self.journal.remove()

    # --- what the core asks

    def load_vote(self) -> Vote:
        path = self.world.directory / f"{self.name}.vote"
        if not path.exists():
            return Vote()
        term, voted = path.read_text().split("/")
        return Vote(int(term), voted)

    def save_vote(self, vote: Vote) -> None:
        (self.world.directory / f"{self.name}.vote").write_text(f"{vote.term}/{vote.voted_for}")

    def send(self, peer: str, message: Message) -> bool:
        return self.world.send(self.name, peer, message)

    def apply(self, index: int, term: int, entry: bytes) -> int:
        self.world.commit(index, term, entry)
        self.proposals.entry_applied(term)
        group = decode_group(entry)
        for run in group[1] if group else ():
            for command, proposal in zip(run.commands, self.proposals.claim(run), strict=True):
                self.applied.append(command)
                if proposal is not None:
                    proposal.future.set_result(None)
        return 1

    def next_group(self, term: int, not_before_ms: int, least_bytes: int) -> tuple[int, bytes] | None:
        entry = self.proposals.next_group(term, not_before_ms, least_bytes)
        return None if entry is None else (not_before_ms, entry)

    def leading(self, leads: bool) -> None:
        if leads:
            other = self.world.leaders.setdefault(self.raft.term, self.name)
            assert other == self.name, f"two leaders of term {self.raft.term}"
        else:
            self.proposals.drop_forwarded()

    def kick(self) -> None:
        return

    def remind(self) -> None:
        self.raft.news_awaited = True

    def configured(self) -> None:
        return

    def refuse(self, taken: Taken) -> None:
        run = taken.run
        self.send(taken.peer, messages.ForwardRefused(taken.term, run.first_sequence, len(run.commands)))
