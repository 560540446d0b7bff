# ruff: noqa: N802 - PySyncObj's names
"""Between PySyncObj and what is ours: its log is our journal, its messages (dicts) are ours on the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from pysyncobj.node import Node
from pysyncobj.transport import Transport

from store.raft import messages
from store.raft.configuration import Configurations, decode
from store.raft.entries import CONFIGURATION, InvalidEntry
from store.raft.journal import Journal


class Wire(Protocol):
    """Sends a message to a member; False when it was not taken (no connection, or too much waits for it already)."""

    def send(self, peer: str, message: messages.Message) -> bool:
        """Never blocks and never raises."""
        ...


class LogView:
    """The journal as PySyncObj reads and writes its log: a sequence of (payload, index, term)."""

    def __init__(self, journal: Journal, configurations: Configurations, configured: Callable[[], None]) -> None:
        """`configured` is called when the newest configuration is another one."""
        self.journal = journal
        self._configurations = configurations
        self._configured = configured

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry. A configuration holds from its entry on."""
        self.journal.append(idx, term, command)
        if command[0] == CONFIGURATION:
            self._configurations.append(idx, decode(command))
            self._configured()

    def deleteEntriesFrom(self, position: int) -> None:
        """Cut the log; only ever asked for after a real conflict. Configurations that were cut off hold no more."""
        index = self.journal.base_index + position
        self.journal.truncate_from(index)
        if self._configurations.truncate_from(index):
            self._configured()

    def __len__(self) -> int:
        return self.journal.last_index - self.journal.base_index + 1

    def __getitem__(self, item: int | slice) -> Any:
        # Payloads stay on disk: PySyncObj's own code looks at index and term alone, everything else is overridden.
        count = len(self)
        if isinstance(item, slice):
            return [self._entry(position) for position in range(*item.indices(count))]
        return self._entry(item if item >= 0 else count + item)

    def _entry(self, position: int) -> tuple[bytes, int, int]:
        index = self.journal.base_index + position
        return b"", index, self.journal.term_at(index)

    def setRaftCommitIndex(self, index: int) -> None:
        """Not kept: a leader tells it again, and it is never to be trusted over the log."""

    def setCurrentTerm(self, term: int, voted: str | None) -> None:
        """Saved already, by the override that calls this."""

    def onOneSecondTimer(self) -> None:
        """Nothing is kept for later."""

    def _destroy(self) -> None:
        """The node closes the journal."""


class RaftTransport(Transport):
    """Between PySyncObj's dicts and the wire's messages."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(None, None, None)
        self._wire = wire
        # Whether vote requests say that the leader asked for the election.
        self.transfer = False

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        """Send one of PySyncObj's messages."""
        if self.transfer and message["type"] == "request_vote":
            message = message | {"transfer": True}
        return self._wire.send(node.id, to_wire(message))


def to_wire(message: dict[str, Any]) -> messages.Message:
    """The message for one of PySyncObj's dicts."""
    match message["type"]:
        case "append_entries":
            entries = [(index, term, payload) for payload, index, term in message["entries"]]
            return messages.Append(
                message["term"],
                message["sequence"],
                message["commit_index"],
                message["prevLogIdx"],
                message["prevLogTerm"],
                entries,
            )
        case "next_node_idx":
            return messages.AppendReply(
                message["term"], message["sequence"], message["next_node_idx"], message["success"], message["reset"]
            )
        case "request_vote":
            return messages.VoteRequest(
                message["term"],
                message["last_log_index"],
                message["last_log_term"],
                message.get("trial", False),
                message.get("transfer", False),
            )
        case "response_vote":
            return messages.VoteReply(
                message["term"],
                message.get("granted", True),
                message.get("voter_term", message["term"]),
                message.get("trial", False),
            )
        case "timeout_now":
            return messages.TimeoutNow(message["term"])
    raise AssertionError(f"PySyncObj sends {message['type']!r}, which has no place on this wire")


def from_wire(message: messages.Message) -> dict[str, Any]:
    """PySyncObj's dict for a message.

    Raises:
        InvalidMessage: when its entries do not follow each other.
    """
    match message:
        case messages.Append():
            expected, newest = message.previous_index + 1, message.previous_term
            for index, term, payload in message.entries:
                if index != expected or not newest <= term <= message.term or not payload:
                    raise messages.InvalidMessage(f"entry {index} of term {term} where {expected} belongs")
                if payload[0] == CONFIGURATION:
                    _check_configuration(payload)
                expected, newest = index + 1, term
            return {
                "type": "append_entries",
                "term": message.term,
                "sequence": message.sequence,
                "commit_index": message.commit_index,
                "prevLogIdx": message.previous_index,
                "prevLogTerm": message.previous_term,
                "entries": [(payload, index, term) for index, term, payload in message.entries],
            }
        case messages.AppendReply():
            return {
                "type": "next_node_idx",
                "term": message.term,
                "sequence": message.sequence,
                "next_node_idx": message.next_index,
                "success": message.success,
                "reset": message.reset,
            }
        case messages.VoteRequest():
            return {
                "type": "request_vote",
                "term": message.term,
                "last_log_index": message.last_index,
                "last_log_term": message.last_term,
                "trial": message.trial,
                "transfer": message.transfer,
            }
        case messages.VoteReply():
            return {
                "type": "response_vote",
                "term": message.term,
                "granted": message.granted,
                "voter_term": message.voter_term,
                "trial": message.trial,
            }
        case messages.TimeoutNow():
            return {"type": "timeout_now", "term": message.term}
    raise messages.InvalidMessage(f"{type(message).__name__} is not Raft's")


def _check_configuration(entry: bytes) -> None:
    try:
        decode(entry)
    except InvalidEntry as error:
        raise messages.InvalidMessage(str(error)) from error
