"""One member of the store's Raft group, on the daemon's loop: what `store.raft.interface.Raft` promises.

Nearly everything happens in `_turn`, which runs soon after something did (a proposal, a message, the disk), and at
least twice per heartbeat. It ticks Raft, forwards proposals, advances reads and lets the disk write what is new. What
is seen to only now and then (`_look_after`) is done by the timer's turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Mapping

from kybern.clock import Clock, SystemClock
from kybern.config.models import StoreConfig
from kybern.daemon import StartupError, unusable
from kybern.logs import Seldom
from store.raft import excluded, failpoints, messages, older, overrides
from store.raft.applying import Applying
from store.raft.configuration import (
    Add,
    Change,
    Configuration,
    Configurations,
    Promote,
    Remove,
    Update,
    decode,
    initial,
)
from store.raft.core import CommittedConflict, HardenedRaft
from store.raft.datadir import DataDir, Identity
from store.raft.disk import DiskWriter
from store.raft.elections import Timing
from store.raft.entries import CONFIGURATION, LEVEL, InvalidEntry
from store.raft.gathering import Gathering
from store.raft.identity import itself, learn_id
from store.raft.interface import (
    Member,
    MembershipError,
    MembershipReason,
    NoLeader,
    RaftStatus,
    RaftUnavailable,
    StateMachine,
    UnknownCommand,
    UnknownLevel,
)
from store.raft.journal import Journal
from store.raft.level import Rising, check_log, not_applied, unsupported
from store.raft.members import check_members, find_id, newcomer
from store.raft.members import member_id as id_of
from store.raft.membership import Changes, Seen, Wish
from store.raft.proposals import MAX_COMMAND_BYTES, Proposals, Taken
from store.raft.reads import Reader, Reads
from store.raft.segments import CorruptJournal
from store.raft.snapshots import Header
from store.raft.snapshotting import Position, Snapshots
from store.raft.standing import Standings
from store.raft.transport import TlsTransport, Transport

log = logging.getLogger(__name__)

_EXPIRE_SECONDS = 0.25
# How long news of what is committed waits for entries to go with them, while no other member has asked for it.
_NEWS_SECONDS = 0.004
# How long a leader that stops waits for the other member to take over.
_TRANSFER_SECONDS = 1.0


class RaftNode:
    """A member on PySyncObj, hardened. All methods are called on the loop that `start` ran on."""

    def __init__(
        self,
        config: StoreConfig,
        *,
        clock: Clock | None = None,
        transport: Callable[[StoreConfig, Clock], Transport] = TlsTransport,
        request_timeout: float | None = None,
    ) -> None:
        """`request_timeout`: seconds that a proposal or a read may wait; by default enough for two elections."""
        self._config = config
        self._clock = clock or SystemClock()
        self._transport = transport(config, self._clock)
        self._timeout = request_timeout or 2 * config.election_timeout_max + 2.0
        self._configurations = Configurations(initial(config))
        self._id = self._directory_id = 0
        self._behind = True
        self._proposals = Proposals(secrets.randbits(63), self._refuse)
        self._reads = Reads(config.name, self._send, patience=5 * config.heartbeat_interval)
        self._standings = Standings()
        self._changes = Changes(config.name, config.cluster_name, self._send, config.election_timeout_max)
        self._rising = Rising()
        self._handlers: list[Callable[[bool], None]] = []
        self._applying: Applying | None = None
        self._directory: DataDir | None = None
        self._raft: HardenedRaft | None = None
        self._disk: DiskWriter | None = None
        self._snapshots: Snapshots | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._gathering = Gathering(self._soon)
        self._reminder: asyncio.TimerHandle | None = None
        self._turning = False
        # Whether the next turn is for more than proposals, and whether it is the timer's.
        self._whole = True
        self._timely = False
        # A leader that gave up without another one yet: it is not asked the same in every turn.
        self._refused_term, self._refused_until = 0, 0.0
        self._deposed = asyncio.Event()
        self._heard = asyncio.Event()
        self._running = False
        self._began = self._next_expiry = 0.0
        self._counters = dict.fromkeys(("proposals", "groups", "forwarded", "reads"), 0.0)
        self._failure: asyncio.Future[None] | None = None
        # Each append of a leader that a hanging disk keeps this member from following would be said.
        self._seldom = Seldom(self._clock.monotonic)
        self._leaving: asyncio.Task[None] | None = None

    # --- life

    async def start(self, machine: StateMachine) -> None:
        """Lock and read the data directory, listen, and take part; see `Raft.start`."""
        check_members(self._config)
        overrides.check(HardenedRaft)
        failpoints.from_environment(os.environ)
        self._loop = asyncio.get_running_loop()
        self._failure = self._loop.create_future()
        # Looked at here, so that a failure nobody waits for is no warning at exit; it is logged when it happens.
        self._failure.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._applying = Applying(machine, self._proposals)
        identity = Identity(self._config.cluster_name, self._config.name)
        directory = await asyncio.to_thread(DataDir.open, self._config.data_dir, identity)
        # A fraction of what may lie between two snapshots: only whole segments are ever removed.
        journal = Journal(directory.log_path, segment_bytes=max(1, self._config.snapshot_log_bytes // 4))
        self._snapshots = Snapshots(self._config, directory.path / "snapshot", journal, machine, self)
        try:
            await asyncio.to_thread(journal.open)
            header = await self._snapshots.restore()
            check_log(self._config, machine.levels, journal.rises)
            timing = Timing(
                self._config.heartbeat_interval, self._config.election_timeout_min, self._config.election_timeout_max
            )
            if header is None:
                self._configurations = Configurations(initial(self._config), entries=journal.configurations)
            else:
                self._configurations = Configurations(header.configuration, header.index, journal.configurations)
            self._id = await asyncio.to_thread(find_id, self._config, directory)
            own, self._directory_id = self._config, await asyncio.to_thread(directory.load_directory_id)
            highest = machine.levels.highest
            self._changes.heard(own.name, Seen(0, own.peer_address, own.client_address, self._directory_id, highest))
            owed = await asyncio.to_thread(older.load, directory, own.name, self._configurations.current.group)
            self._raft = HardenedRaft(
                self._config.name, self._configurations, timing, journal, directory, self._transport, self
            )
            overrides.check_instance(self._raft)
            self._raft.owed = owed
            self._standings.join(self._raft)
            if header is not None:
                self._raft.restored(header.index, header.now_ms)
                self.restored(header)
            self._disk = DiskWriter(
                journal,
                # A leader whose disk is silent for that long is of no more use than one that is silent itself.
                patience=self._config.election_timeout_max,
                on_durable=self._on_durable,
                on_unable=self._on_disk_unable,
                on_lost=self._fail,
            )
            self._snapshots.join(self._raft, self._disk, self._transport.send)
            self._directory = directory
            self._running, self._began = True, self._clock.monotonic()
            await self._transport.start(self, self._directory_id, self._standings, highest)
        except (InvalidEntry, OSError) as error:
            self._running = False
            self._raft = None
            await self._snapshots.stop()
            journal.close()
            directory.close()
            if isinstance(error, OSError):
                raise unusable(directory.path, error) from error
            raise StartupError(f"the data directory {directory.path} cannot be used: {error}") from error
        except BaseException:
            self._running = False
            self._raft = None
            await self._snapshots.stop()
            journal.close()
            directory.close()
            raise
        log.info(
            "member %s of %s: term %d, log up to entry %d",
            self._config.name,
            self._config.cluster_name,
            self._raft.term,
            journal.last_index,
        )
        self._on_timer()

    async def stop(self) -> None:
        """Hand leadership over if there is one to take it, then leave."""
        if self._raft is None or self._disk is None or self._directory is None or self._snapshots is None:
            return
        if self._running and self._raft.leads:
            self._deposed.clear()
            if self._raft.transfer():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TRANSFER_SECONDS):
                        await self._deposed.wait()
        self._running = False
        self._gathering.stop()
        for timer in (self._timer, self._reminder):
            if timer is not None:
                timer.cancel()
        await self._transport.stop()
        failed = self._failure is not None and self._failure.done()
        await self._snapshots.stop(last=not failed)
        await self._disk.stop()
        self._end("this member stops")
        self._raft.journal.close()
        self._directory.close()

    async def failed(self) -> None:
        """Wait until this member cannot go on; a daemon runs this beside its servers, and ends when it raises.

        Raises:
            StartupError: the disk failed or gave back something else than was written, or the log contradicts what
                the others have committed. The member has left the group by then.
        """
        if self._failure is None:
            raise RaftUnavailable("this member was not started")
        try:
            await asyncio.shield(self._failure)
        except OSError as error:
            raise StartupError(
                f"the data directory {self._config.data_dir} cannot be used: {error}", retry=True
            ) from error
        except (CommittedConflict, CorruptJournal, excluded.Excluded) as error:
            raise StartupError(str(error)) from error

    # --- the contract

    async def propose(self, command: bytes) -> object:
        """Commit a command and return what this member's machine made of it; see `Raft.propose`.

        Raises:
            NoLeader: it was not given to a leader.
            RaftUnavailable: its fate is not known in time.
            ValueError: a command larger than 8 MiB.
        """
        if len(command) > MAX_COMMAND_BYTES:
            raise ValueError(f"a command of {len(command)} bytes is larger than {MAX_COMMAND_BYTES}")
        loop = self._must_run()
        future: asyncio.Future[object] = loop.create_future()
        self._proposals.submit(command, self._clock.monotonic() + self._timeout, future)
        self._counters["proposals"] += 1
        raft, size = self._raft, self._proposals.to_append
        # On a leader, what no entry is made of now goes with the next one.
        if raft is None or not raft.leads or (raft.appends_now(size) and self._gathering.takes(size)):
            self._soon()
        return await future

    async def read_barrier(self) -> None:
        """Wait until everything committed before this call is applied here; see `Raft.read_barrier`."""
        loop = self._must_run()
        future: asyncio.Future[None] = loop.create_future()
        self._reads.add(Reader(self._clock.monotonic() + self._timeout, future))
        self._counters["reads"] += 1
        self.kick()
        await future

    @property
    def is_leader(self) -> bool:
        """Whether this member leads, as far as it knows."""
        return self._running and self._raft is not None and self._raft.leads

    @property
    def member_id(self) -> int:
        """This member's id; see `Raft.member_id`."""
        return self._id or id_of(self._config.cluster_name, self._config.name)

    @property
    def term(self) -> int:
        """The current term."""
        return self._raft.term if self._raft is not None else 0

    def status(self) -> RaftStatus:
        """What this member knows now; indices are those of log entries."""
        current = self._configurations.current
        member = current.with_id(self._id) or newcomer(self._config)
        raft = self._raft
        if raft is None:
            return RaftStatus(member, None, 0, 0, 0, 0, current.members)
        trouble = self._disk.trouble if self._disk is not None else ""
        leader = raft.leader if self._running and not trouble else None
        return RaftStatus(
            member=member,
            leader=current.named(leader) if leader else None,
            term=raft.term,
            commit_index=raft.commit_index,
            applied_index=raft.applied_index,
            log_bytes=raft.journal.log_bytes,
            members=current.members,
            trouble=trouble,
        )

    async def add_member(self, name: str, peer_address: str, client_address: str, *, learner: bool) -> Member:
        """Let another member join; see `Raft.add_member`."""
        return await self._change(Add(name, peer_address, client_address, learner))

    async def promote_member(self, member_id: int) -> Member:
        """Make a learner that has caught up a voting member; see `Raft.promote_member`."""
        return await self._change(Promote(member_id))

    async def remove_member(self, member_id: int) -> None:
        """Let a member leave for good; see `Raft.remove_member`."""
        await self._change(Remove(member_id))

    async def update_member(self, member_id: int, peer_address: str) -> Member:
        """Change where the others reach a member; see `Raft.update_member`."""
        return await self._change(Update(member_id, peer_address))

    async def transfer_leadership(self, member_id: int) -> None:
        """As the leader, let another voting member lead; see `Raft.transfer_leadership`."""
        self._must_run()
        raft = self._raft
        if raft is None or not raft.leads:
            raise MembershipError(MembershipReason.NOT_LEADER)
        target = self._configurations.current.with_id(member_id)
        if target is None or target.learner:
            raise MembershipError(MembershipReason.BAD_TRANSFEREE)
        if target.name != self._config.name and not await self._hand_over(raft, target.name):
            raise MembershipError(MembershipReason.TRANSFER_TIMEOUT)

    def on_leadership(self, handler: Callable[[bool], None]) -> None:
        """Call `handler` whenever this member begins (True) or ceases (False) to lead."""
        self._handlers.append(handler)

    def metrics(self) -> Mapping[str, float]:
        """Counters and gauges by name."""
        found = dict(self._counters)
        found["read_rounds"] = self._reads.rounds
        if self._applying is not None:
            found |= self._applying.metrics()
        if self._raft is not None and self._disk is not None:
            found |= self._raft.metrics() | self._disk.metrics() | {"is_leader": float(self.is_leader)}
        if self._snapshots is not None:
            found |= self._snapshots.metrics()
        return found

    # --- turns

    def kick(self) -> None:
        """Run a whole turn in the loop's next round, once."""
        self._whole = True
        self._soon()

    def _soon(self) -> None:
        if not self._turning and self._loop is not None:
            self._turning = True
            self._loop.call_soon(self._turn)

    def _on_timer(self) -> None:
        if self._running and self._loop is not None:
            self._timer = self._loop.call_later(self._config.heartbeat_interval / 2, self._on_timer)
            if self._disk is not None:
                self._disk.waited(self._config.heartbeat_interval / 2)
            self._timely = True
            self.kick()

    def _turn(self) -> None:
        self._turning = False
        raft, disk = self._raft, self._disk
        if not self._running or raft is None or disk is None:
            return
        # A leader whose disk hangs leads on while nobody has the log, as when all members' disks hang.
        raft.may_lead = disk.healthy and not raft.paused and (raft.leads or not disk.stalled) and self._has_a_vote
        raft.may_vote = not disk.stalled
        whole, self._whole = self._whole, False
        try:
            if whole:
                raft.tick()
            else:
                raft.append_waiting()
        except CorruptJournal as error:
            self._fail(error)
            return
        except OSError as error:
            self._vote_not_saved(error)
        if self._proposals.waiting:
            self._forward(raft)
        if not whole:
            disk.pump()
            return
        now = self._clock.monotonic()
        self._reads.advance(raft, raft.applied_index, now)
        if not self._id and self._directory is not None:
            self._learn_id(raft, self._directory)
        timely, self._timely = self._timely, False
        if timely or self._changes.pending:
            self._changes.advance(raft, now)
        disk.pump()
        if timely:
            self._look_after(raft, now)
        if self._applying is not None:
            self._applying.caught_up()

    @property
    def _awaiting_leader(self) -> bool:
        """Whether something goes on when a leader is heard."""
        return self._reads.pending or bool(self._proposals.waiting) or self._changes.pending

    def _look_after(self, raft: HardenedRaft, now: float) -> None:
        """What nobody waits for, or not for a few hundredths of a second."""
        if raft.leader is not None:
            self._heard.set()
        if raft.leads and self._disk is not None and self._disk.stalled:
            self._on_disk_unable()
        self._look_around(raft)
        if self._applying is not None:
            self._rising.advance(raft, self._applying.levels, self._applying.level, self._changes.seen)
        if now >= self._next_expiry:
            self._next_expiry = now + _EXPIRE_SECONDS
            self._proposals.expire(now)
            self._reads.expire(now)
            self._changes.expire(raft, now)
        if self._snapshots is not None:
            self._snapshots.turn()
        if raft.owed is not None and self._directory is not None:
            older.look_after(raft, self._directory)

    def _forward(self, raft: HardenedRaft) -> None:
        """Give waiting commands to the leader, when that is another member."""
        leader = raft.leader
        if raft.term == self._refused_term and self._clock.monotonic() < self._refused_until:
            return
        while self._proposals.waiting and leader is not None and leader != self._config.name:
            run = self._proposals.run_for(raft.term)
            if run is None:
                return
            if not self._transport.send(leader, messages.Forward(raft.term, run)):
                self._proposals.take_back(run.first_sequence, len(run.commands))
                return
            self._counters["forwarded"] += len(run.commands)

    # --- what Raft asks (core.Hooks)

    def apply(self, index: int, term: int, entry: bytes) -> int:
        """Apply a committed entry's commands."""
        assert self._applying is not None  # noqa: S101 - set by start
        if not self._running:
            return 1  # The entry before ended this member.
        self._applying.counted()
        if self._snapshots is not None:
            self._snapshots.applied(len(entry))
        self._proposals.entry_applied(term)
        if entry[0] == CONFIGURATION:
            self._configuration_committed(index, entry)
            return 1
        try:
            work, awaited = self._applying.entry(term, entry)
        except (InvalidEntry, UnknownLevel, UnknownCommand) as error:
            self._fail(not_applied(self._config, self._applying.levels, index, error))
            return 1
        if entry[0] == LEVEL:
            self.configured()
        if awaited and self._raft is not None:
            self._raft.news_awaited = True
        return work

    def next_group(self, term: int, not_before_ms: int, least_bytes: int) -> tuple[int, bytes] | None:
        """The next entry to append as the leader."""
        size = self._proposals.to_append
        if size < least_bytes:
            return None
        now, commands = self._clock.monotonic(), self._proposals.commands_to_append
        if self._gathering.put_off(now, commands, size):
            return None
        now_ms = max(not_before_ms, int(self._clock.now().timestamp() * 1000))
        entry = self._proposals.next_group(term, now_ms, least_bytes)
        if entry is None:
            return None
        self._gathering.made(now, commands)
        self._counters["groups"] += 1
        return now_ms, entry

    def leading(self, leads: bool) -> None:
        """Tell who wants to know."""
        log.info("%s %s to lead", self._config.name, "begins" if leads else "ceases")
        if not leads:
            self._heard.clear()
            self._deposed.set()
            self._proposals.drop_forwarded()
        self.configured()
        if self._loop is not None:
            for handler in self._handlers:
                self._loop.call_soon(self._guarded, "leadership handler", handler, leads)

    def configured(self) -> None:
        """The newest configuration is another one: be connected with its members, and with those of the committed one.

        Until a removal is committed, the one that is removed may be needed yet.
        """
        committed = self._raft.commit_index if self._raft is not None else 0
        self._connect(self._configurations.as_of(committed))

    def _connect(self, committed: Configuration) -> None:
        self._transport.configure(
            self._id,
            committed,
            self._configurations.current,
            behind=self._behind,
            leads=self._raft is not None and self._raft.leads,
            level=self._applying.level if self._applying is not None else 1,
        )

    def _look_around(self, raft: HardenedRaft) -> None:
        """Whoever has been away may have missed that members were added, and one of them may lead by now.

        That one need not know yet that more is committed than this member has applied: it may have been restarted.
        """
        leader = raft.leader
        known = leader is not None and self._configurations.current.named(leader) is not None
        behind = not known or (not raft.leads and raft.applied_index < raft.leader_commit)
        if behind != self._behind:
            self._behind = behind
            self.configured()

    def _configuration_committed(self, index: int, entry: bytes) -> None:
        before, now = self._configurations.as_of(index - 1), decode(entry)
        for member in before.members:
            if now.with_id(member.id) is None and member.name not in ("", self._config.name):
                log.info("%s was removed", member.name)
                self._transport.send(member.name, messages.Removed(member.id))
        self._connect(now)

    @property
    def _has_a_vote(self) -> bool:
        """Whether the member of this name that the log speaks of may be this one.

        Who joins is sent the log from its beginning. A voter of that time may have had its name, and with that one's
        vote it would lead, or elect, a group of those who have been removed since.
        """
        return bool(self._id) or itself(self._configurations.current, self._config, self._directory_id) is not None

    def _learn_id(self, raft: HardenedRaft, directory: DataDir) -> None:
        """A member that joined learns its id once it has all that was committed.

        Not before: an earlier configuration may hold a member of the same name that was removed since.
        """
        if raft.leader is None or raft.commit_index < raft.leader_commit:
            return
        committed = self._configurations.as_of(raft.commit_index)
        if own_id := learn_id(committed, self._config, self._directory_id, directory):
            self._id = own_id
            self.configured()

    def _removed(self) -> None:
        own = self._configurations.current.with_id(self._id)
        if own is not None:
            self._changes.removed(own)
        self._fail(excluded.removed(self._config))

    # --- what snapshots ask (snapshotting.Owner)

    def position(self) -> Position:
        """What a snapshot of the present state must tell."""
        assert self._applying is not None  # noqa: S101 - set by start
        index = self._raft.applied_index if self._raft is not None else 0
        return Position(self._applying.command_index, self._applying.now_ms, self._configurations.as_of(index))

    def restored(self, header: Header) -> None:
        """The state is a snapshot's: go on counting where it ends."""
        if self._applying is not None:
            self._applying.restored(header)
        self._proposals.fail_sent("the state has moved on by a snapshot; the command may be part of it")

    def snapshot_failed(self, error: Exception) -> None:
        """This member must not go on."""
        self._fail(error)

    # --- what the transport tells (transport.Listener)

    def on_connected(self, peer: str) -> None:
        """A member can be reached."""
        if self._running and self._raft is not None:
            hello = self._transport.hello(peer)
            if hello is not None:
                said = Seen(hello.id, hello.peer_address, hello.client_address, hello.directory_id, hello.level)
                self._changes.heard(peer, said)
            self._raft.connected(peer)
            self.kick()

    def on_disconnected(self, peer: str) -> None:
        """A member cannot be reached any more."""
        if self._running and self._raft is not None:
            self._raft.disconnected(peer)
            self._changes.disconnected(peer)

    def on_drained(self, _peer: str) -> None:
        """A member takes more."""
        self.kick()

    def on_message(self, peer: str, message: messages.Message) -> None:
        """A member's message; InvalidMessage closes the connection."""
        raft = self._raft
        if not self._running or raft is None:
            return
        match message:
            case messages.Forward():
                self._on_forward(raft, Taken(peer, message.term, message.run))
            case messages.ForwardRefused():
                self._proposals.take_back(message.first_sequence, message.count)
                self._refused_term = message.term
                self._refused_until = self._clock.monotonic() + self._config.heartbeat_interval
            case messages.ReadRequest() | messages.ReadReply():
                self._on_read(peer, message)
            case messages.Append() | messages.AppendReply():
                if not self._on_replication(raft, peer, message):
                    return
            case messages.SnapshotPart() if self._snapshots is not None:
                self._snapshots.on_part(peer, message)
            case messages.SnapshotReply() if self._snapshots is not None:
                self._snapshots.on_reply(peer, message)
            case messages.ChangeRequest() | messages.ChangeReply():
                self._on_change(peer, message)
            case messages.Removed() | messages.OtherDirectory() | messages.OlderCopy() | messages.LevelTooLow():
                self._on_last_word(peer, message)
            case messages.VoteRequest() if not self._has_a_vote:
                # It joins, and cannot tell whether the candidate is of the group that awaits it.
                log.debug("no vote for %s: no group is known that knows this member", peer)
            case _:
                self._receive(raft, peer, message)
        self.kick()

    def _on_replication(self, raft: HardenedRaft, peer: str, message: messages.Append | messages.AppendReply) -> bool:
        """What most messages are; whether they are worth a turn."""
        self._receive(raft, peer, message)
        if isinstance(message, messages.AppendReply):
            # Raft itself asks for a turn when the reply changes something.
            return self._reads.pending
        disk = self._disk
        if disk is not None:
            disk.pump()
        if not self._id or self._awaiting_leader:
            return True
        # What a turn would apply waits for the write that was begun: its thread gets the interpreter at once then, and
        # the leader its acknowledgement. The disk asks for a turn when it is done, and the timer in any case.
        return raft.may_advance() and (disk is None or not disk.writing)

    def _on_read(self, peer: str, message: messages.ReadRequest | messages.ReadReply) -> None:
        if isinstance(message, messages.ReadRequest):
            self._reads.add(Reader(self._clock.monotonic() + self._timeout, None, peer, message.id))
        else:
            self._reads.answered(peer, message)

    def _on_change(self, peer: str, message: messages.ChangeRequest | messages.ChangeReply) -> None:
        match message:
            case messages.ChangeRequest():
                wish = Wish(message.change, self._clock.monotonic() + self._timeout, None, peer, message.id)
                self._changes.add(wish)
            case messages.ChangeReply():
                self._changes.answered(peer, message)

    def _on_last_word(self, peer: str, message: messages.LastWord) -> None:
        match message:
            case messages.Removed() if message.id == self._id:
                self._removed()
            case messages.OtherDirectory() if message.directory_id != self._directory_id:
                waited = self._clock.monotonic() - self._began
                if excluded.concerns(message, self._id, waited, self._config):
                    self._fail(excluded.by_directory(self._config, peer, message))
            case messages.OlderCopy() if message.id == self._id and self._raft and self._directory:
                if (error := older.told(self._config, self._raft, self._directory, peer, message.standing)) is not None:
                    self._fail(error)
            case messages.LevelTooLow() if self._applying and message.level > self._applying.levels.highest:
                where = f"the group of {peer}, which {self._config.data_dir} is for,"
                self._fail(unsupported(self._config, self._applying.levels, message.level, where))

    def _receive(self, raft: HardenedRaft, peer: str, message: messages.Message) -> None:
        try:
            raft.receive(peer, message)
        except OSError as error:
            self._vote_not_saved(error)
        except (CommittedConflict, CorruptJournal) as error:
            self._fail(error)

    def _on_forward(self, raft: HardenedRaft, taken: Taken) -> None:
        if raft.leads and raft.term == taken.term:
            self._proposals.accept(taken)
        else:
            self._refuse(taken)

    def _refuse(self, taken: Taken) -> None:
        run = taken.run
        self._transport.send(taken.peer, messages.ForwardRefused(taken.term, run.first_sequence, len(run.commands)))

    def remind(self) -> None:
        """Nothing else has gone to the followers: they are told soon what is committed."""
        if self._reminder is None and self._loop is not None and self._raft is not None:
            self._reminder = self._loop.call_later(_NEWS_SECONDS, self._tell, self._raft.commit_index)

    def _tell(self, commit: int) -> None:
        """What was committed up to `commit` is to be known by now."""
        self._reminder = None
        raft = self._raft
        if raft is None or not raft.leads or raft.commit_told >= raft.commit_index:
            return
        if raft.commit_told >= commit:
            # Entries have gone since; what was committed after them may wait as long.
            self.remind()
        else:
            raft.news_awaited = True
            self.kick()

    def _send(self, peer: str, message: messages.Message) -> bool:
        if isinstance(message, messages.ReadReply) and self._raft is not None:
            # It is of no use before the member has applied up to there.
            self._raft.tell(peer)
        return self._transport.send(peer, message)

    # --- the disk

    def _on_durable(self) -> None:
        if self._running and self._raft is not None:
            self._raft.on_durable()

    def _on_disk_unable(self) -> None:
        """The disk is full or hangs: others lead, and answer this member's callers, who need not wait for it."""
        raft, disk = self._raft, self._disk
        if raft is None or disk is None:
            return
        raft.may_vote = not disk.stalled
        if raft.leads and not raft.step_aside():
            if disk.stalled:
                return
            raft.retreat()
        # Nothing is applied here before the disk has it, so nothing is learnt of what is under way either.
        self._end(disk.trouble)

    def _vote_not_saved(self, error: OSError) -> None:
        level = self._seldom.level("vote")
        log.log(level, "term and vote cannot be saved, so this member does not take part in the election: %s", error)

    # --- inside

    async def _change(self, change: Change) -> Member:
        loop = self._must_run()
        future: asyncio.Future[Member] = loop.create_future()
        self._changes.add(Wish(change, self._clock.monotonic() + self._timeout, future))
        self.kick()
        return await future

    async def _hand_over(self, raft: HardenedRaft, target: str) -> bool:
        """Let another member lead; whether it does before the longest election time-out has passed."""
        self._deposed.clear()
        if raft.transfer(target) is None:
            return False
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.election_timeout_max):
                    await self._deposed.wait()
                    # The one that took over makes itself known with its first append.
                    await self._heard.wait()
        finally:
            raft.end_transfer()
        return self._running and raft.leader == target

    def _guarded(self, what: str, call: Callable[..., None], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception:
            log.exception("%s raised", what)

    def _must_run(self) -> asyncio.AbstractEventLoop:
        if not self._running or self._loop is None:
            raise NoLeader("this member does not run")
        if self._disk is not None and self._disk.trouble:
            raise NoLeader(self._disk.trouble)
        return self._loop

    def _fail(self, error: Exception) -> None:
        """This member must not go on: it says nothing more to anybody, and the daemon is told to end."""
        log.critical("this member ends: %s", error)
        self._running = False
        self._end(f"this member failed: {error}")
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)
        if self._loop is not None and self._leaving is None:
            self._leaving = self._loop.create_task(self._transport.stop(), name="raft-failed")

    def _end(self, reason: str) -> None:
        self._proposals.fail(reason)
        self._reads.fail(reason)
        self._changes.fail(reason)
