# ruff: noqa: N802, N803 - overridden names are PySyncObj's
"""PySyncObj's Raft, with the repairs that make it safe: `overrides.OVERRIDDEN` lists each one and why.

PySyncObj decides elections (what is repaired there is in `elections`), log matching and commit. It reads and writes the
log through `LogView`, speaks through `RaftTransport` (dicts inside, `messages` outside), and is driven by `tick` and
`receive` on the daemon's loop. Nothing in here waits: what must reach the disk first is held back until `on_durable`.
"""

from __future__ import annotations

import contextlib
import logging
import math
from dataclasses import dataclass
from typing import Any

from pysyncobj import syncobj as stock
from pysyncobj.node import Node

from store.raft import failpoints, messages
from store.raft.bridge import Wire, from_wire
from store.raft.configuration import Configuration, Configurations, encode
from store.raft.elections import ElectingRaft, Hooks, Timing, VoteStore
from store.raft.entries import InvalidEntry, clock_of, encode_level
from store.raft.gathering import WORTH_AN_ENTRY
from store.raft.journal import Journal
from store.raft.standing import NOTHING, Standing, both

log = logging.getLogger(__name__)

# Uncommitted entries that a leader has at a time: more proposals wait and make the next group larger.
MAX_UNCOMMITTED = 4
# Payload of one append; a larger single entry goes alone and whole.
_APPEND_BYTES = 1 << 20
# Payload that one turn sends a follower, but for one large entry: encryption takes the loop's time.
_TURN_BYTES = 2 << 20
# A follower whose disk is this far behind takes nothing more until it has caught up.
_MAX_PENDING_BYTES = 64 << 20
# About how many commands are applied in one tick, so that a replay does not hold up heartbeats.
_APPLY_PER_TICK = 512


class CommittedConflict(Exception):  # noqa: N818 - names what must never be
    """A leader's entries contradict committed ones: two leaders of a term, or a member that lost its disk."""


@dataclass(slots=True)
class Progress:
    """What a leader knows of a follower besides PySyncObj's nextIndex and matchIndex."""

    sent_commit: int = 0
    # Highest sequence that a reply of this term brought back.
    answered: int = 0
    # Resets that answer appends up to here are stale: the follower was sent other entries since.
    reset_floor: int = 0
    # Replies to appends up to here are of another member, which had the name before.
    since: int = 0
    # The append that asked whether the follower has the last entry that it had acknowledged, and which one that was.
    probe: int = 0
    probe_index: int = 0


@dataclass(frozen=True, slots=True)
class _Held:
    """An acknowledgement that waits for the disk."""

    node: Node
    index: int
    reply: dict[str, Any]


class HardenedRaft(ElectingRaft):
    """One member's Raft. All methods are called on the loop."""

    def __init__(
        self,
        name: str,
        configurations: Configurations,
        timing: Timing,
        journal: Journal,
        votes: VoteStore,
        wire: Wire,
        hooks: Hooks,
    ) -> None:
        # Of those that are sent the log: the other voting members and the learners.
        self._progress: dict[Node, Progress] = {}
        self._held: list[_Held] = []
        # Set while an append is handled: what its reply must bring back, and whether it holds entries.
        self._answering = 0
        self._answering_entries = False
        self.append_sequence = 0
        # How far the log was committed when the tick began, and where PySyncObj was told to look from.
        self._commit_before = 0
        self._commit_from = 0
        self._last_clock_ms = self._clock_floor = 0
        # Set while a leader's snapshot takes the place of log and state.
        self.paused = False
        # Followers whose next entry is no longer in the log.
        self._behind: set[Node] = set()
        self.stale_replies = 0
        # Whether a follower waits to hear what is committed; and whether the last tick kept it from one.
        self.news_awaited = False
        self._news_withheld = False
        super().__init__(name, configurations, timing, journal, votes, wire, hooks)

    # --- driving and asking

    def tick(self) -> None:
        """Do what is due: elections, commit, apply, append, send."""
        self._onTick(0.0)

    def append_waiting(self) -> None:
        """As the leader, append what waits and send it: the part of a tick that a proposal needs."""
        self._checkCommandsToApply()

    def receive(self, peer: str, message: messages.Message) -> None:
        """Handle a peer's message.

        Raises:
            InvalidMessage: when no correct member would have sent it.
            CommittedConflict: when following it would undo committed entries.
            OSError: when term and vote could not be saved; nothing was answered.
        """
        try:
            self._SyncObj__onMessageReceived(self._node(peer), from_wire(message))
        except OSError:
            self.retreat()
            raise

    def connected(self, peer: str) -> None:
        """A connection to the peer is there: what the last one swallowed is sent again."""
        node = self._node(peer)
        self._SyncObj__onNodeConnected(node)
        if self._isLeader() and node in self._progress:
            self._progress[node].sent_commit = 0
            match = self._SyncObj__raftMatchIndex[node]
            # Without a match of this term yet, the next append finds out where the logs part.
            if match > self.journal.base_index:
                self._SyncObj__raftNextIndex[node] = match + 1

    def on_durable(self) -> None:
        """The disk has more of the log: send the acknowledgements that waited for it."""
        ready = [held for held in self._held if held.index <= self.journal.durable_index]
        self._held = [held for held in self._held if held.index > self.journal.durable_index]
        for held in ready:
            # A reply to a leader of an earlier term acknowledges nothing any more.
            if held.reply["term"] == self._SyncObj__raftCurrentTerm:
                self._transport_send(held.node, held.reply)
        if self.may_advance():
            self._hooks.kick()

    def appends_now(self, waiting_bytes: int) -> bool:
        """Whether a tick would make an entry of commands of so many bytes; False: they go with the next commit's."""
        uncommitted = self.journal.last_index - self.commit_index
        return not uncommitted or (waiting_bytes >= WORTH_AN_ENTRY and uncommitted < MAX_UNCOMMITTED)

    def may_advance(self) -> bool:
        """Whether a tick may commit or apply something."""
        if self.applied_index < min(self.commit_index, self.journal.durable_index):
            return True
        if not self._isLeader():
            return False
        others, match, commit = self._SyncObj__otherNodes, self._SyncObj__raftMatchIndex, self.commit_index
        if self.journal.durable_index <= commit:
            return False
        return sum(match[node] > commit for node in others) >= (len(others) + 1) // 2

    @property
    def commit_index(self) -> int:
        """Entries up to here are committed, as far as this member knows."""
        return int(self._SyncObj__raftCommitIndex)

    @property
    def applied_index(self) -> int:
        """Entries up to here have been applied."""
        return int(self._SyncObj__raftLastApplied)

    @property
    def commit_told(self) -> int:
        """As the leader: every follower that can be reached has been sent that entries up to here are committed."""
        connected = self._SyncObj__connectedNodes
        told = (progress.sent_commit for node, progress in self._progress.items() if node in connected)
        return min(told, default=self.commit_index)

    @property
    def may_read(self) -> bool:
        """Whether the leader has committed an entry of its own term, so that its commit index is up to date."""
        return self._isLeader() and self.commit_index >= self._SyncObj__noopIDx

    def holds(self) -> Standing:
        """Where this member stands (see `standing.Holder`); what it owes, it stands for."""
        end = self.journal.durable_index
        standing = Standing(self.term, self._SyncObj__votedForNodeId or "", end, self.journal.term_at(end))
        return both(standing, self.owed) if self.owed is not None else standing

    def vouches(self) -> Standing:
        """Where this member will never stand behind (see `standing.Holder`)."""
        end = max(min(self.commit_index, self.journal.durable_index), self.journal.base_index)
        return Standing(self.term, self._SyncObj__votedForNodeId or "", end, self.journal.term_at(end))

    def acknowledged(self, peer: str) -> Standing:
        """What a peer has of what is committed (see `standing.Holder`)."""
        node = self._node(peer)
        if self._isLeader():
            # Of the members alone, learners too; 0 until it has acknowledged anything in this term.
            end = min(self._SyncObj__raftMatchIndex.get(node, 0), self.commit_index)
        elif node == self._SyncObj__raftLeader:
            # Of what it had committed as the leader, what this member has of it.
            end = min(self.leader_commit, self.commit_index)
        else:
            end = 0
        if not end:
            return NOTHING
        # What comes before the log's begin it has too, but of which term that is, is not known any more.
        return Standing(self.term, "", end, self.journal.term_at(end)) if end >= self.journal.base_index else NOTHING

    def metrics(self) -> dict[str, float]:
        """Counters and gauges by name."""
        return {
            "appends_sent": self.append_sequence,
            "stale_replies": self.stale_replies,
            "term": self.term,
            "commit_index": self.commit_index,
            "applied_index": self.applied_index,
            "last_index": self.journal.last_index,
            "log_bytes": self.journal.log_bytes,
        }

    def confirmed_since(self, sequence: int) -> bool:
        """Whether a quorum has answered appends that were sent after the append `sequence`."""
        count = 1 + sum(self._progress[node].answered > sequence for node in self._SyncObj__otherNodes)
        return count > (len(self._SyncObj__otherNodes) + 1) / 2

    def restored(self, index: int, now_ms: int) -> None:
        """A snapshot has given the state as of the entry `index`, stamped `now_ms`; the log reaches that far."""
        # What was known of later entries went with them, if the log has ended with the snapshot's since.
        self._SyncObj__raftCommitIndex = max(min(self.commit_index, self.journal.last_index), index)
        self._SyncObj__raftLastApplied = index
        self._last_clock_ms = max(self._last_clock_ms, now_ms)
        self._clock_floor = max(self._clock_floor, now_ms)
        # What waited for the disk may be an entry that the snapshot took the place of.
        self._held = []

    @property
    def behind(self) -> set[str]:
        """As the leader: members that can be reached and need a snapshot, because the log has not what they miss."""
        if not self._behind or not self._isLeader():
            return set()
        return {str(node.id) for node in self._behind & self._SyncObj__connectedNodes}

    def snapshot_installed(self, peer: str, index: int) -> None:
        """A follower has the leader's snapshot up to `index`, durably."""
        node = self._node(peer)
        self._behind.discard(node)
        if node not in self._progress:
            return  # it was removed meanwhile
        match = self._SyncObj__raftMatchIndex
        match[node] = max(match[node], index)
        self._SyncObj__raftNextIndex[node] = max(match[node], self.journal.base_index) + 1
        self._progress[node].reset_floor = self.append_sequence
        self._hooks.kick()

    def heartbeat(self) -> None:
        """Send an append to every follower now."""
        self._SyncObj__sendAppendEntries()

    # --- members

    def _configure(self) -> None:
        super()._configure()
        members = [*self._SyncObj__otherNodes, *self._SyncObj__readonlyNodes]
        following = self._SyncObj__raftNextIndex, self._SyncObj__raftMatchIndex, self._SyncObj__lastResponseTime
        for node in self._progress.keys() - set(members):
            del self._progress[node]
            self._behind.discard(node)
            for known in following:
                known.pop(node, None)
        for node in members:
            if node in self._progress:
                continue
            self._progress[node] = Progress(reset_floor=self.append_sequence, since=self.append_sequence)
            self._SyncObj__raftNextIndex[node] = self.journal.last_index + 1
            self._SyncObj__raftMatchIndex[node] = 0
            self._SyncObj__lastResponseTime[node] = stock.monotonicTime()
        self._hooks.configured()

    def adopt(self, index: int, configuration: Configuration) -> None:
        """A snapshot up to `index` took the place of the log there: its members hold, or those of later entries."""
        self.configurations.rebase(index, configuration, self.journal.last_index)
        self._configure()

    @property
    def may_change(self) -> bool:
        """Whether a change may be appended: this member leads and knows what is committed, the last change included."""
        return self.may_read and self._transfer_to is None and self.configurations.index <= self.commit_index

    def next_index(self) -> int:
        """Index of the entry that is appended next."""
        return self.journal.last_index + 1

    def change(self, configuration: Configuration) -> int:
        """Append a configuration, which holds from now on; the index of its entry. Only when `may_change`."""
        if not self.may_change:
            raise RuntimeError("the change before is not committed, or this member does not lead")
        index = self.next_index()
        self._SyncObj__raftLog.add(encode(configuration), index, self.term)
        return index

    def rise(self, level: int) -> int:
        """Append an entry by which the group rises to a level; its index. Only when `may_change`."""
        index = self.next_index()
        self._SyncObj__raftLog.add(encode_level(level), index, self.term)
        return index

    def active(self) -> set[str]:
        """As the leader: who can be reached and has answered lately, this member included."""
        since = stock.monotonicTime() - self._timing.election_min
        answered = self._SyncObj__lastResponseTime
        reached = self._progress.keys() & self._SyncObj__connectedNodes
        return {self._name} | {str(node.id) for node in reached if answered[node] > since}

    def caught_up(self, peer: str) -> bool:
        """As the leader: whether the peer has all but what is on its way, so that its vote would hold nothing up."""
        node = self._node(peer)
        if peer not in self.active() or node not in self._progress:
            return False
        match = self._SyncObj__raftMatchIndex[node]
        # With the entry that names it: a member whose log names no group votes for nobody.
        return bool(match >= self.configurations.index and match + 2 * MAX_UNCOMMITTED >= self.journal.last_index)

    # --- a tick

    # Repairs: a campaign raises the term without asking first, so a member that was cut off disturbs the others.
    def _onTick(self, timeToWait: float = 0.0) -> None:
        self._commit_before = self.commit_index
        self._commit_from = 0
        try:
            if not self.may_lead:
                self.abstain()
            may_campaign = self._consider_election()
            if self._isLeader():
                self._skip_older_terms()
            self._tick_stock(may_campaign)
        except OSError:
            self.retreat()
            raise
        finally:
            if self._commit_from:
                # The tick ended early, with an error: nothing new is committed.
                self._SyncObj__raftCommitIndex = self._commit_before
            self._may_campaign = self._raft_transport.transfer = False

    def _tick_stock(self, may_campaign: bool) -> None:
        """PySyncObj's own part of a tick.

        It looks at the clock again. A deadline that has passed only since this member's own look must not have it
        campaign: without a trial, and although its disk is full or it has no vote.
        """
        deadline = self._SyncObj__raftElectionDeadline
        if not may_campaign:
            self._SyncObj__raftElectionDeadline = math.inf
        try:
            super()._onTick(0.0)
        finally:
            if self._SyncObj__raftElectionDeadline == math.inf:
                self._SyncObj__raftElectionDeadline = deadline

    def _skip_older_terms(self) -> None:
        """Let PySyncObj look for a commit from where one is possible, instead of at every entry of earlier terms."""
        matches = sorted((self._SyncObj__raftMatchIndex[node] for node in self._SyncObj__otherNodes), reverse=True)
        matches.insert(0, self.journal.last_index)
        reached = max(matches[len(matches) // 2], self._commit_before)
        if self.journal.term_at(reached) == self.term:
            reached = max(self._commit_before, self._SyncObj__noopIDx - 1)
        self._SyncObj__raftCommitIndex = self._commit_from = reached

    # Repairs: nothing tells replies of an earlier leadership from those of this one.
    def _SyncObj__onBecomeLeader(self) -> None:
        for progress in self._progress.values():
            progress.sent_commit = progress.answered = progress.probe = 0
            progress.reset_floor = self.append_sequence
        self._behind.clear()
        self._last_clock_ms = self._clock_in_log()
        super()._SyncObj__onBecomeLeader()

    def _clock_in_log(self) -> int:
        """The newest leader's clock in the log; a new leader's own may be behind it."""
        for index in range(self.journal.last_index, self.journal.base_index, -1):
            # An entry of another version ends this member when it is applied, not here.
            with contextlib.suppress(InvalidEntry):
                clock = clock_of(self.journal.read(index))
                if clock is not None:
                    return max(clock, self._clock_floor)
        return self._clock_floor

    # --- messages

    # Repairs: truncation without a conflict, stale acknowledgements, votes against a living leader (see each handler).
    def _SyncObj__onMessageReceived(self, node: Node, message: dict[str, Any]) -> None:
        match message["type"]:
            case "append_entries":
                self._on_append(node, message)
            case "next_node_idx":
                self._on_append_reply(node, message)
            case "request_vote":
                self._on_vote_request(node, message)
            case "response_vote":
                self._on_vote(node, message)
            case "timeout_now" if message["term"] == self.term:
                super()._SyncObj__onMessageReceived(node, message)
                self._hooks.kick()
            case _:
                log.debug("nothing to do for %r of %s", message["type"], node)

    def _on_append(self, node: Node, message: dict[str, Any]) -> None:
        self._answering, self._answering_entries = message.get("sequence", 0), bool(message["entries"])
        if message["term"] < self.term:
            # Tells a leader that was away that there is a later term.
            self._reply(node, next_index=0, success=False, reset=False)
            return
        self._heard(message["commit_index"])
        if message["term"] == self.term and self._isLeader():
            raise CommittedConflict(f"{node} and this member both lead term {self.term}")
        journal, previous, entries = self.journal, message["prevLogIdx"], message["entries"]
        if entries and journal.pending_bytes > _MAX_PENDING_BYTES:
            self._note_leader(node, message, commit=0)
            self._reply(node, next_index=0, success=False, reset=False)
            return
        if previous < journal.base_index:
            # A snapshot has what comes up to there; that was committed, so the leader has the same.
            covered = journal.base_index - previous
            if covered > len(entries):
                self._note_leader(node, message, commit=0)
                self._SyncObj__sendNextNodeIdx(node, nextNodeIdx=previous + len(entries) + 1, success=True)
                return
            if entries[covered - 1][2] != journal.base_term:
                raise CommittedConflict(f"{node} sends another entry {journal.base_index} than the committed one")
            entries = entries[covered:]
            previous = journal.base_index
            message = message | {"prevLogIdx": previous, "prevLogTerm": journal.base_term, "entries": entries}
        matches = (
            journal.base_index <= previous <= journal.last_index and journal.term_at(previous) == message["prevLogTerm"]
        )
        verified = previous + len(entries)
        commit = min(message["commit_index"], verified)
        if matches:
            known = self._known(previous, entries)
            if known == len(entries):
                self._note_leader(node, message, commit)
                self._SyncObj__sendNextNodeIdx(node, nextNodeIdx=verified + 1, success=True)
                return
            previous += known
            if previous < self.commit_index:
                raise CommittedConflict(f"{node} sends another entry {previous + 1} than the committed one")
            message = message | {
                "prevLogIdx": previous,
                "prevLogTerm": journal.term_at(previous),
                "entries": entries[known:],
            }
        super()._SyncObj__onMessageReceived(node, message | {"commit_index": commit})

    def _known(self, previous: int, entries: list[tuple[bytes, int, int]]) -> int:
        """How many of the entries after `previous` the log has already."""
        known = 0
        last = self.journal.last_index
        while known < len(entries) and previous + known < last:
            if self.journal.term_at(previous + known + 1) != entries[known][2]:
                break
            known += 1
        return known

    def _note_leader(self, node: Node, message: dict[str, Any], commit: int) -> None:
        """What PySyncObj does about leader, term and commit, without touching the log."""
        super()._SyncObj__onMessageReceived(
            node, {"type": "append_entries", "term": message["term"], "commit_index": commit}
        )

    # Repairs: an acknowledgement is sent before the disk has what it acknowledges.
    def _SyncObj__sendNextNodeIdx(
        self, node: Node, reset: bool = False, nextNodeIdx: int | None = None, success: bool = False
    ) -> None:
        if not self._answering:
            return
        journal = self.journal
        next_index = journal.last_index + 1 if nextNodeIdx is None else nextNodeIdx
        if reset and nextNodeIdx is not None:
            # The entry before differs in its term: step over all of that term at once.
            term = journal.term_at(next_index)
            while next_index - 1 > self.commit_index and journal.term_at(next_index - 1) == term:
                next_index -= 1
        if success and next_index - 1 > journal.durable_index:
            reply = self._reply_message(next_index, success=True, reset=False)
            self._held.append(_Held(node, next_index - 1, reply))
            if not self._answering_entries:
                # The leader's heartbeats are answered all along: a slow disk is not a lost follower.
                self._reply(node, next_index=0, success=False, reset=False)
        else:
            self._reply(node, next_index=next_index, success=success, reset=reset)

    def _reply(self, node: Node, *, next_index: int, success: bool, reset: bool) -> None:
        self._transport_send(node, self._reply_message(next_index, success=success, reset=reset))

    def _reply_message(self, next_index: int, *, success: bool, reset: bool) -> dict[str, Any]:
        return {
            "type": "next_node_idx",
            "term": self.term,
            "sequence": self._answering,
            "next_node_idx": next_index,
            "success": success,
            "reset": reset,
        }

    def _on_append_reply(self, node: Node, message: dict[str, Any]) -> None:
        progress = self._progress.get(node)
        if progress is None:
            self.stale_replies += 1
            return
        if message["term"] > self.term:
            self._follow_term(message["term"])
            return
        sequence = message["sequence"]
        known = progress.since < sequence <= self.append_sequence
        if not self._isLeader() or message["term"] < self.term or not known:
            self.stale_replies += 1
            return
        if message["reset"] and (sequence <= progress.reset_floor or sequence < progress.answered):
            self.stale_replies += 1
            message = message | {"reset": False}
        if message["success"] and message["next_node_idx"] > self.journal.last_index + 1:
            raise messages.InvalidMessage(
                f"{node} acknowledges entry {message['next_node_idx'] - 1}, which does not exist"
            )
        progress.answered = max(progress.answered, sequence)
        if message["success"] and message["next_node_idx"] > self.journal.base_index:
            self._behind.discard(node)
        elif message["reset"] and node in self._behind:
            # It only says again what it lacks.
            message = message | {"reset": False}
        following = self._SyncObj__raftNextIndex
        before = following[node]
        if message["reset"]:
            message = message | {"next_node_idx": self._step_back(node, message["next_node_idx"], sequence)}
            progress.reset_floor = self.append_sequence
        super()._SyncObj__onMessageReceived(node, message)
        if not message["reset"]:
            following[node] = max(before, following[node])
        # Most replies only say that the follower has what is committed already.
        if message["reset"] or following[node] <= self.journal.last_index or self.may_advance():
            self._hooks.kick()

    def _step_back(self, node: Node, next_index: int, sequence: int) -> int:
        """From where on to send, after a reset that names `next_index` and answers the append `sequence`."""
        match, progress = self._SyncObj__raftMatchIndex, self._progress[node]
        if next_index <= match[node]:
            if sequence == progress.probe and match[node] == progress.probe_index:
                log.error("%s lost entries from %d on that it had acknowledged up to %d", node, next_index, match[node])
                match[node] = next_index - 1
            else:
                # Nothing is lost: it stepped over all of a term, or an acknowledgement overtook this reply. If it is
                # all the same, the next append finds out: it asks for the last entry that was acknowledged.
                next_index = match[node] + 1
        if next_index <= self.journal.base_index:
            self._behind.add(node)
        return max(next_index, self.journal.base_index + 1)

    # --- commit, apply, append, send

    # Repairs: a leader's entry is committed before its own disk has it; an error in apply applies the entry again.
    def _SyncObj__applyLogEntries(self) -> bool:
        journal = self.journal
        commit = self.commit_index
        if commit > self._commit_before:
            # PySyncObj counted this leader's own entries in; they count once this disk has them.
            found = commit if commit != self._commit_from else 0
            commit = max(self._commit_before, min(found, journal.durable_index))
            self._SyncObj__raftCommitIndex = commit
        self._commit_from = 0
        target = min(commit, journal.durable_index)
        budget = 0 if self.paused else _APPLY_PER_TICK
        while self.applied_index < target and budget > 0:
            index = self.applied_index + 1
            entry = journal.read(index)
            # Before the entry is applied, so that nothing is ever applied twice.
            self._SyncObj__raftLastApplied = index
            failpoints.hit("apply.begin")
            budget -= self._hooks.apply(index, journal.term_at(index), entry)
            failpoints.hit("apply.done")
        if self.applied_index < target and not self.paused:
            self._hooks.kick()
        return False

    # Repairs: each command is an entry, an append and a wait for the next tick of its own.
    def _checkCommandsToApply(self) -> None:
        if self._isLeader() and self.may_lead and self._transfer_to is None:
            while (uncommitted := self.journal.last_index - self.commit_index) < MAX_UNCOMMITTED:
                least = WORTH_AN_ENTRY if uncommitted else 1
                group = self._hooks.next_group(self.term, self._last_clock_ms, least)
                if group is None:
                    break
                self._last_clock_ms, entry = group
                self._SyncObj__raftLog.add(entry, self.journal.last_index + 1, self.term)
        if self._isLeader():
            news, self.news_awaited, self._news_withheld = self.news_awaited, False, False
            for node in self._progress:
                self._send_to(node, news=news)
            if self._news_withheld:
                self._hooks.remind()
            self._push_transfer()

    # Repairs: large entries are pickled and cut wrongly; nextIndex runs ahead of what the connection took.
    def _SyncObj__sendAppendEntries(self) -> None:
        self._SyncObj__newAppendEntriesTime = stock.monotonicTime() + self._timing.heartbeat
        for node in self._progress:
            self._send_to(node, even_empty=True)

    def tell(self, peer: str) -> None:
        """As the leader, let a follower know what is committed."""
        if self._isLeader() and self._node(peer) in self._progress:
            self._send_to(self._node(peer))

    def _send_to(self, node: Node, *, even_empty: bool = False, news: bool = True) -> None:
        """Send what the follower has not been sent: entries, and how far the log is committed.

        Without `news` that goes only with entries: whoever waits for a commit is answered first, and most often the
        next entries follow at once.
        """
        if node not in self._SyncObj__connectedNodes:
            return
        journal, progress, following = self.journal, self._progress[node], self._SyncObj__raftNextIndex
        if following[node] <= journal.base_index:
            self._behind.add(node)
            following[node] = journal.base_index + 1
        if node in self._behind:
            # Only heartbeats until it has a snapshot: it shall know its leader, and the leader its quorum.
            if even_empty:
                self._transport_send(node, self._append_message(journal.base_index + 1, [], self.append_sequence + 1))
                self.append_sequence += 1
            return
        sent = 0
        while following[node] <= journal.last_index or even_empty or progress.sent_commit < self.commit_index:
            if progress.sent_commit and not (news or even_empty or following[node] <= journal.last_index):
                self._news_withheld = True
                return
            if sent >= _TURN_BYTES:
                self._hooks.kick()
                return
            first = following[node]
            entries = journal.entries(first, _APPEND_BYTES) if first <= journal.last_index else []
            # News of what is committed alone need no answer: 0 asks for none.
            sequence = self.append_sequence + 1 if entries or even_empty else 0
            if not self._transport_send(node, self._append_message(first, entries, sequence)):
                # Too much waits for this peer: nextIndex stays, and the connection calls when there is room.
                return
            self.append_sequence = max(self.append_sequence, sequence)
            match = self._SyncObj__raftMatchIndex[node]
            if (
                sequence
                and first - 1 == match
                and (progress.probe <= progress.answered or progress.probe_index != match)
            ):
                progress.probe, progress.probe_index = sequence, match
            following[node] = first + len(entries)
            sent += sum(len(payload) for _, _, payload in entries)
            progress.sent_commit = self.commit_index
            even_empty = False

    def _append_message(self, first: int, entries: list[tuple[int, int, bytes]], sequence: int) -> dict[str, Any]:
        return {
            "type": "append_entries",
            "term": self.term,
            "sequence": sequence,
            "commit_index": self.commit_index,
            "prevLogIdx": first - 1,
            "prevLogTerm": self.journal.term_at(first - 1),
            "entries": [(payload, index, term) for index, term, payload in entries],
        }

    # Repairs: compaction forks, and trims in an order that loses acknowledged entries.
    def _SyncObj__tryLogCompaction(self) -> None:
        return
