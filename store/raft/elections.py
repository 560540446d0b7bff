# ruff: noqa: N802, N803 - overridden names are PySyncObj's
"""Who leads: trial votes, votes, the leader that is heard, stepping down and handing over.

What is overridden here, and why, is listed in `overrides.OVERRIDDEN`, together with what `core` overrides.
"""

from __future__ import annotations

import errno
import logging
import random
from collections.abc import Callable, KeysView
from dataclasses import dataclass
from typing import Any, Protocol

from pysyncobj import SyncObj, SyncObjConf
from pysyncobj import syncobj as stock
from pysyncobj.node import Node

from kybern.daemon import StartupError
from store.raft.bridge import LogView, RaftTransport, Wire
from store.raft.configuration import Configurations
from store.raft.datadir import Vote
from store.raft.journal import Journal
from store.raft.standing import Standing

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; see StoreConfig."""

    heartbeat: float
    election_min: float
    election_max: float


class VoteStore(Protocol):
    """Keeps term and vote over restarts."""

    def load_vote(self) -> Vote:
        """What was saved last."""
        ...

    def save_vote(self, vote: Vote) -> None:
        """Make it durable before returning; OSError when that fails."""
        ...


class Hooks(Protocol):
    """What the core asks of the node around it."""

    def apply(self, index: int, term: int, entry: bytes) -> int:
        """Apply a committed entry; how much work it was, in commands."""
        ...

    def next_group(self, term: int, not_before_ms: int, least_bytes: int) -> tuple[int, bytes] | None:
        """Clock and bytes of the next entry to append as the leader of `term`, if `least_bytes` of commands wait."""
        ...

    def leading(self, leads: bool) -> None:
        """This member began or ceased to lead."""
        ...

    def kick(self) -> None:
        """Run another tick soon."""
        ...

    def remind(self) -> None:
        """Set `news_awaited` and run a tick after a moment: followers may not know yet what is committed."""
        ...

    def configured(self) -> None:
        """The newest configuration is another one than before: committed or not, it holds."""
        ...


class Peer(Node):
    """A member, as PySyncObj knows it: one object each, so that it is itself and its hash that of any object.

    PySyncObj's own are compared and hashed by what they hold, in Python, a hundred times a tick.
    """

    __hash__ = object.__hash__
    __eq__ = object.__eq__
    __ne__ = object.__ne__


class _NullPoller:
    """PySyncObj polls sockets at the end of a tick; ours are the loop's."""

    def poll(self, _timeout: float) -> None:
        return


class ElectingRaft(SyncObj):
    """The part of one member's Raft that says who leads; `core.HardenedRaft` is the rest."""

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
        self.journal = journal
        self._votes = votes
        self._hooks = hooks
        self._timing = timing
        self._name = name
        self.configurations = configurations
        self._nodes: dict[str, Peer] = {}
        self._votes_itself = False
        # How far the last leader that was heard had committed.
        self.leader_commit = 0
        self._transfer_to: Node | None = None
        self._transfer_asked = float("-inf")
        self._leader_heard = float("-inf")
        self._trial_votes: set[str] = set()
        self._ballots: set[str] = set()
        self._may_campaign = False
        # False while the disk takes nothing: then this member neither leads nor stands for election.
        self.may_lead = True
        # False while the disk does not come back from a write: no term and no vote can be kept, so none is changed.
        self.may_vote = True
        # What this member has acknowledged once, and does not hold since its directory is an older copy of what it was.
        self.owed: Standing | None = None
        # Whether it has led since its start.
        self.has_led = False
        self._raft_transport = RaftTransport(wire)
        conf = _conf(timing, self._state_changed)
        super().__init__(self._node(name), [], conf, transport=self._raft_transport, nodeClass=Peer)
        self._poller: Any = _NullPoller()
        vote = votes.load_vote()
        self._SyncObj__raftLog: Any = LogView(journal, configurations, self._configure)
        self._SyncObj__raftCurrentTerm: int = max(vote.term, journal.last_term)
        self._SyncObj__votedForNodeId: str | None = vote.voted_for or None if vote.term >= journal.last_term else None
        self._SyncObj__raftCommitIndex: int = journal.base_index
        self._SyncObj__raftLastApplied: int = journal.base_index
        self._configure()
        if self._votes_itself and not self._SyncObj__otherNodes:
            # Nobody else to wait for.
            self._SyncObj__raftElectionDeadline = 0.0

    # --- the group

    def _node(self, peer: str) -> Peer:
        node = self._nodes.get(peer)
        if node is None:
            node = self._nodes[peer] = Peer(peer)
        return node

    def _configure(self) -> None:
        """Go by the newest configuration: who votes, and who else is sent the log."""
        current = self.configurations.current
        self._votes_itself = self._name in current.voters
        self._SyncObj__otherNodes = self._others(current.voters)
        self._SyncObj__readonlyNodes = self._others(current.learners)
        if self._transfer_to is not None and self._transfer_to not in self._SyncObj__otherNodes:
            self._transfer_to = None

    def _others(self, names: frozenset[str]) -> KeysView[Node]:
        """A set in an order: messages go out in the same one whatever the hashes of names are in this process."""
        return {self._node(name): None for name in sorted(names - {self._name})}.keys()

    def disconnected(self, peer: str) -> None:
        """The connection to the peer is gone."""
        node = self._node(peer)
        self._SyncObj__onNodeDisconnected(node)
        if node == self._SyncObj__raftLeader and not self._isLeader():
            # Most often its process has ended. If not, the trial vote fails, because the others hear it.
            self._leader_heard = float("-inf")
            self._SyncObj__raftElectionDeadline = min(self._SyncObj__raftElectionDeadline, self._soon())

    # --- the leader

    def retreat(self) -> None:
        """Stop leading or standing for election: the disk does not keep up with what that would promise."""
        self._SyncObj__setState(stock._RAFT_STATE.FOLLOWER)
        self._SyncObj__raftLeader = None
        self._await_election()

    def step_aside(self) -> bool:
        """As the leader, ask a member that has the whole log to take over at once, and lead no longer.

        False when nobody has it. For a disk that takes nothing: the acknowledgement of another one says that its does.
        """
        match, last = self._SyncObj__raftMatchIndex, self.journal.last_index
        reached = self._SyncObj__otherNodes & self._SyncObj__connectedNodes
        if not any(match[node] == last for node in reached):
            return False
        self.transfer()
        self.retreat()
        return True

    def abstain(self) -> None:
        """Neither lead nor go on as a candidate; without effect on a follower."""
        if self._SyncObj__raftState != stock._RAFT_STATE.FOLLOWER:
            self.retreat()

    @property
    def term(self) -> int:
        """The current term."""
        return int(self._SyncObj__raftCurrentTerm)

    @property
    def leads(self) -> bool:
        """Whether this member is the leader, as far as it knows."""
        return self._isLeader()

    @property
    def leader(self) -> str | None:
        """The leader, if it was heard of within the longest election time-out."""
        if self._isLeader():
            return self._name
        node = self._SyncObj__raftLeader
        if node is None or stock.monotonicTime() - self._leader_heard > self._timing.election_max:
            return None
        return str(node.id)

    # --- handing over

    def transfer(self, to: str | None = None) -> str | None:
        """Begin to hand over to a voting member, by default the one that has most; None when none can be reached.

        Nothing is appended until somebody else leads or `end_transfer`.
        """
        if not self._isLeader():
            return None
        match = self._SyncObj__raftMatchIndex
        reached = self._SyncObj__otherNodes & self._SyncObj__connectedNodes
        able = [node for node in reached if to is None or node.id == to]
        if not able:
            return None
        self._transfer_to = max(able, key=lambda node: (match[node], node.id))
        self._transfer_asked = float("-inf")
        self._push_transfer()
        self._hooks.kick()
        return str(self._transfer_to.id)

    def end_transfer(self) -> None:
        """Go on leading; without effect when that is over."""
        self._transfer_to = None
        self._hooks.kick()

    def _push_transfer(self) -> None:
        """Ask again from time to time: the question may be lost. It is of no use before the other has everything."""
        node, now = self._transfer_to, stock.monotonicTime()
        if node is None or now - self._transfer_asked < 2 * self._timing.heartbeat:
            return
        if self._SyncObj__raftMatchIndex[node] == self.journal.last_index:
            self._transfer_asked = now
            self._transport_send(node, {"type": "timeout_now", "term": self.term})

    # --- elections

    def _consider_election(self) -> bool:
        """Hold a trial vote before PySyncObj may raise the term (pre-vote); whether it may do so in this tick."""
        now = stock.monotonicTime()
        if self._isLeader() or self._SyncObj__raftElectionDeadline >= now:
            return False
        if not self.may_lead or not self._votes_itself or self._owes():
            self._SyncObj__transferInProgress = False
            self._await_election()
            return False
        if self._SyncObj__transferInProgress:
            self._raft_transport.transfer = True
        elif not self._may_campaign:
            self._hold_trial()
            # It is won at once when nobody else has a vote.
            return self._may_campaign
        self._ballots = {self._name}
        return True

    def _hold_trial(self) -> None:
        self._await_election()
        self._SyncObj__raftLeader = None
        self._trial_votes = {self._name}
        request = {
            "type": "request_vote",
            "trial": True,
            "term": self.term + 1,
            "last_log_index": self.journal.last_index,
            "last_log_term": self.journal.last_term,
        }
        for node in self._SyncObj__otherNodes:
            self._transport_send(node, request)
        self._count_trial()

    def _count_trial(self) -> None:
        if len(self._trial_votes) > (len(self._SyncObj__otherNodes) + 1) / 2:
            self._trial_votes = set()
            self._may_campaign = True
            self._ballots = {self._name}
            # In the past: PySyncObj campaigns in this or the next tick.
            self._SyncObj__raftElectionDeadline = 0.0
            self._hooks.kick()

    def _await_election(self) -> None:
        self._SyncObj__raftElectionDeadline = stock.monotonicTime() + self._SyncObj__generateRaftTimeout()

    def _soon(self) -> float:
        """When to hold a trial that is not to wait for an election time-out; another moment on each member."""
        delay = self._timing.heartbeat + random.random() * self._timing.election_min / 2  # noqa: S311
        return stock.monotonicTime() + delay

    def _give_way(self, node: Node, message: dict[str, Any]) -> None:
        """Let a member that has this one's trial vote be elected: two candidates would share the votes.

        Of two that hold trials at once the one with the better log goes on; of equals that with the later name.
        """
        self._SyncObj__raftElectionDeadline = max(self._SyncObj__raftElectionDeadline, self._soon())
        theirs = (message["last_log_term"], message["last_log_index"], node.id)
        if theirs > (self.journal.last_term, self.journal.last_index, self._name):
            self._trial_votes = set()

    def _leader_lives(self) -> bool:
        """Whether an election now would only disturb: this member leads, or hears a leader."""
        if self._isLeader():
            return True
        return stock.monotonicTime() - self._leader_heard < self._timing.election_min

    def _log_is_current(self, message: dict[str, Any]) -> bool:
        """Whether a candidate's log is at least as good as this member's, and as the one that it had once."""
        theirs = (message["last_log_term"], message["last_log_index"])
        owed = self.owed
        if owed is not None and theirs < (owed.index_term, owed.index):
            return False
        return theirs >= (self.journal.last_term, self.journal.last_index)

    def _owes(self) -> bool:
        return self.owed is not None and not self.has_again(self.owed, self.journal.last_index)

    def has_again(self, owed: Standing, end: int) -> bool:
        """Whether the log up to `end` holds what this member has acknowledged once."""
        if self.journal.base_index >= owed.index:
            return True
        return end >= owed.index and self.journal.term_at(owed.index) == owed.index_term

    def _on_vote_request(self, node: Node, message: dict[str, Any]) -> None:
        if message.get("trial"):
            granted = message["term"] > self.term and not self._leader_lives() and self._log_is_current(message)
            # Who is about to campaign in the next tick has votes already that the other would lack.
            granted = granted and not self._may_campaign and self.may_vote
            if granted:
                self._give_way(node, message)
            self._transport_send(
                node,
                {
                    "type": "response_vote",
                    "trial": True,
                    "term": message["term"],
                    "granted": granted,
                    "voter_term": self.term,
                },
            )
        elif self._leader_lives() and not message.get("transfer"):
            log.debug("no vote for %s in term %d: there is a leader", node, message["term"])
        elif self.owed is not None and not self._log_is_current(message):
            log.debug("no vote for %s in term %d: this member had more once", node, message["term"])
            if message["term"] > self.term:
                self._follow_term(message["term"])
        else:
            super()._SyncObj__onMessageReceived(node, message)

    def _on_vote(self, node: Node, message: dict[str, Any]) -> None:
        if node not in self._SyncObj__otherNodes:
            # A learner's vote, or that of a member that has left, counts for nothing.
            return
        if message.get("voter_term", 0) > self.term:
            self._follow_term(message["voter_term"])
        elif message.get("trial"):
            if message["granted"] and message["term"] == self.term + 1 and self._trial_votes:
                self._trial_votes.add(node.id)
                self._count_trial()
        elif message.get("granted", True) and node.id not in self._ballots:
            if message["term"] == self.term:
                self._ballots.add(node.id)
            super()._SyncObj__onMessageReceived(node, message)

    def _follow_term(self, term: int) -> None:
        """Somebody is in a later term: this one's leader or candidate gives up."""
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(stock._RAFT_STATE.FOLLOWER)
        self._SyncObj__raftLeader = None
        self._await_election()

    # Repairs: term and vote are acted on before they are durable.
    def _SyncObj__setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        if not self.may_vote:
            # Saving it would stop the loop for as long as the disk hangs.
            raise OSError(errno.EBUSY, "the disk does not answer")
        self._votes.save_vote(Vote(term, votedForNodeId or ""))
        super()._SyncObj__setCurrentTerm(term, votedForNodeId)

    def _heard(self, leader_commit: int) -> None:
        """A leader of this or a later term has sent an append."""
        self._leader_heard = stock.monotonicTime()
        self.leader_commit = leader_commit
        self._trial_votes = set()
        self._may_campaign = False

    def _state_changed(self, old: int, new: int) -> None:
        leader = stock._RAFT_STATE.LEADER
        self._transfer_to = None
        self.has_led = self.has_led or new == leader
        if leader in (old, new):
            self._hooks.leading(new == leader)

    def _transport_send(self, node: Node, message: dict[str, Any]) -> bool:
        return self._raft_transport.send(node, message)


def _conf(timing: Timing, state_changed: Callable[[int, int], None]) -> SyncObjConf:
    if not timing.election_max > timing.election_min > 3 * timing.heartbeat:
        raise StartupError(
            "store timing: election_timeout_max must be longer than election_timeout_min, and that longer than three "
            f"times heartbeat_interval (they are {timing.election_max}, {timing.election_min} and {timing.heartbeat})"
        )
    return SyncObjConf(
        autoTick=False,
        # 'Batch' is PySyncObj's word for waiting until the next tick; ours come when there is something to do.
        appendEntriesUseBatch=True,
        dynamicMembershipChange=False,
        appendEntriesPeriod=timing.heartbeat,
        raftMinTimeout=timing.election_min,
        raftMaxTimeout=timing.election_max,
        # A leader that no quorum answers for this long steps down.
        leaderFallbackTimeout=timing.election_max,
        connectionTimeout=2 * timing.election_max,
        journalFile=None,
        fullDumpFile=None,
        onStateChanged=state_changed,
    )
