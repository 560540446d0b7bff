"""One member with two peers that exist only in the test: messages in and out are PySyncObj's dicts.

The same script runs against the stock class and the hardened one, to show what the hardening repairs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from store.raft import messages
from store.raft.bridge import from_wire
from store.raft.configuration import Configuration, Configurations
from store.raft.core import HardenedRaft
from store.raft.datadir import Vote
from store.raft.elections import Timing
from store.raft.interface import Member
from store.raft.journal import Journal

PEERS = ("b", "c")
TIMING = Timing(heartbeat=0.1, election_min=1.0, election_max=2.5)
NO_OP = b"\x01"

Dict = dict[str, Any]


class Time:
    """Stands in for PySyncObj's clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        # How much of it passes whenever somebody looks.
        self.passing = 0.0

    def __call__(self) -> float:
        self.now += self.passing
        return self.now


class Rig(Protocol):
    """What a script needs of either class."""

    raft: SyncObj
    out: list[tuple[str, Dict]]

    def deliver(self, peer: str, message: Dict) -> None: ...

    def tick(self) -> None: ...

    def log(self) -> list[tuple[int, int]]: ...


class _Kept(Transport):
    def __init__(self, out: list[tuple[str, Dict]]) -> None:
        super().__init__(None, None, None)
        self._out = out

    def send(self, node: Node, message: Dict) -> bool:
        self._out.append((node.id, message))
        return True


class StockRig:
    """The class as it comes; applied entries are not looked at."""

    def __init__(self, time: Time) -> None:
        self.time = time
        self.out: list[tuple[str, Dict]] = []
        self._transport = _Kept(self.out)
        conf = SyncObjConf(
            autoTick=False,
            appendEntriesUseBatch=True,
            raftMinTimeout=TIMING.election_min,
            raftMaxTimeout=TIMING.election_max,
            connectionTimeout=6.0,
        )
        self.raft = SyncObj(Node("a"), [Node(p) for p in PEERS], conf, transport=self._transport, nodeClass=Node)
        for peer in PEERS:
            self._transport._onNodeConnected(Node(peer))

    def deliver(self, peer: str, message: Dict) -> None:
        self._transport._onMessageReceived(Node(peer), message)

    def tick(self) -> None:
        self.raft.doTick(0.0)

    def log(self) -> list[tuple[int, int]]:
        return [(index, term) for _, index, term in self.raft._SyncObj__raftLog[:]]


class HardenedRig:
    """The hardened class on a journal in a directory; the disk works when the script says so, or at once."""

    def __init__(
        self,
        time: Time,
        directory: Path,
        *,
        disk: bool = True,
        name: str = "a",
        peers: tuple[str, ...] = PEERS,
        vote: Vote | None = None,
    ) -> None:
        self.time = time
        self.out: list[tuple[str, Dict]] = []
        self.applied: list[tuple[int, bytes]] = []
        self.groups: list[bytes] = []
        self.reminded = 0
        self.leadership: list[bool] = []
        self.votes: list[Vote] = [vote or Vote()]
        self.vote_error: OSError | None = None
        self.takes = True
        self.disk = disk
        directory.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(directory)
        self.journal.open()
        self.configurations = Configurations(group(*sorted((name, *peers))), entries=self.journal.configurations)
        self.hardened = HardenedRaft(name, self.configurations, TIMING, self.journal, self, self, self)
        self.raft: SyncObj = self.hardened
        for peer in peers:
            self.hardened.connected(peer)

    # --- the script's side

    def deliver(self, peer: str, message: Dict) -> None:
        self.hardened._SyncObj__onMessageReceived(self.hardened._node(peer), message)
        self._settle()

    def tick(self) -> None:
        self.hardened.tick()
        self._settle()

    def log(self) -> list[tuple[int, int]]:
        return [(i, self.journal.term_at(i)) for i in range(self.journal.base_index, self.journal.last_index + 1)]

    def sync(self) -> None:
        """Let the disk finish what it has."""
        while (batch := self.journal.take()) is not None:
            self.journal.write(batch)
            self.journal.done(batch)
        self.hardened.on_durable()

    def replies(self, peer: str, kind: str) -> list[Dict]:
        return [message for name, message in self.out if name == peer and message["type"] == kind]

    def _settle(self) -> None:
        if self.disk:
            self.sync()

    # --- votes, wire and hooks of the core

    def load_vote(self) -> Vote:
        return self.votes[-1]

    def save_vote(self, vote: Vote) -> None:
        if self.vote_error is not None:
            raise self.vote_error
        self.votes.append(vote)

    def send(self, peer: str, message: messages.Message) -> bool:
        if self.takes:
            # As it arrives: what cannot be put on the wire fails here.
            self.out.append((peer, from_wire(messages.decode(messages.encode(message)))))
        return self.takes

    def apply(self, index: int, _term: int, entry: bytes) -> int:
        self.applied.append((index, entry))
        return 1

    def next_group(self, _term: int, not_before_ms: int, least_bytes: int) -> tuple[int, bytes] | None:
        return (not_before_ms, self.groups.pop(0)) if self.groups else None

    def leading(self, leads: bool) -> None:
        self.leadership.append(leads)

    def kick(self) -> None:
        return

    def remind(self) -> None:
        self.reminded += 1

    def configured(self) -> None:
        return


def group(*voters: str, learners: tuple[str, ...] = ()) -> Configuration:
    """A configuration of members that are called like their addresses."""
    names = (*voters, *learners)
    return Configuration(tuple(Member(i, name, name, name, name in learners) for i, name in enumerate(names, 1)))


def append(
    term: int, previous: tuple[int, int], entries: list[tuple[int, int]], commit: int, sequence: int = 1
) -> Dict:
    """An append of entries (index, term) after the entry `previous` (index, term)."""
    return {
        "type": "append_entries",
        "term": term,
        "sequence": sequence,
        "commit_index": commit,
        "prevLogIdx": previous[0],
        "prevLogTerm": previous[1],
        "entries": [(NO_OP, index, entry_term) for index, entry_term in entries],
    }


def acknowledge(term: int, next_index: int, *, sequence: int = 1, success: bool = True, reset: bool = False) -> Dict:
    return {
        "type": "next_node_idx",
        "term": term,
        "sequence": sequence,
        "next_node_idx": next_index,
        "success": success,
        "reset": reset,
    }


def elect(rig: Rig) -> int:
    """Make the member the leader, with the vote of c; its term."""
    rig.raft._SyncObj__raftElectionDeadline = 0.0
    rig.tick()
    term = rig.raft._SyncObj__raftCurrentTerm
    if not any(message["type"] == "request_vote" and not message.get("trial") for _, message in rig.out):
        rig.deliver(
            "c", {"type": "response_vote", "trial": True, "term": term + 1, "granted": True, "voter_term": term}
        )
        rig.tick()
    term = rig.raft._SyncObj__raftCurrentTerm
    rig.deliver("c", {"type": "response_vote", "term": term, "granted": True, "voter_term": term})
    assert rig.raft._isLeader()
    return term


def pass_time(time: Time, rig: Rig, seconds: float) -> None:
    """Let time pass, with a tick every tenth of a second."""
    for _ in range(round(seconds * 10)):
        time.now += 0.1
        rig.tick()
