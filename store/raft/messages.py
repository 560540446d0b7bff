"""What members say to each other: msgpack arrays with a tag, and nothing that could be code.

Decoding validates types and bounds; what a message means is checked where it is used.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated

import msgspec

from kybern.struct import Frozen
from store.raft.configuration import Change
from store.raft.entries import Run
from store.raft.interface import Member
from store.raft.standing import NOTHING, Standing

PROTOCOL = 3
# A group of commands is at most 1 MiB plus one command of at most 8 MiB.
MAX_FRAME_BYTES = 16 << 20
# Before every message: how many bytes it has.
LENGTH = struct.Struct(">I")

_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Id = Annotated[int, msgspec.Meta(ge=0)]


class _Message(Frozen, array_like=True, forbid_unknown_fields=True):
    pass


class Hello(_Message, tag="hello", forbid_unknown_fields=False):
    """The first message in each direction: both must mean the same cluster and protocol.

    Later versions may say more: what this one does not know is not looked at.
    """

    cluster: str
    name: str
    protocol: int
    # 0 while the sender's log does not name it: it was added and joins.
    id: _Id = 0
    peer_address: str = ""
    client_address: str = ""
    # The sender's group (`Configuration.group`); empty while it joins and has heard of none.
    group: str = ""
    # Of the sender's data directory.
    directory_id: _Id = 0
    # Up to the end of its log.
    standing: Standing = NOTHING
    # The highest level of the state machine that the sender can apply.
    level: _Count = 1


class Ping(_Message, tag="ping"):
    """Shows a peer that has nothing else to hear from us that we are there, and what we shall never have forgotten."""

    standing: Standing = NOTHING


class VoteRequest(_Message, tag="vote?"):
    """A candidate asks for a vote. `trial`: would you vote for me (pre-vote)? Changes nothing on either side."""

    term: _Count
    last_index: _Count
    last_term: _Count
    trial: bool = False
    # The present leader asked for this election, so the voters need not wait until they miss it.
    transfer: bool = False


class VoteReply(_Message, tag="vote"):
    """`term`: the term that was asked for; `voter_term`: the voter's own."""

    term: _Count
    granted: bool
    voter_term: _Count
    trial: bool = False


class Append(_Message, tag="append"):
    """A leader's entries (index, term, payload) after entry `previous_index`; without entries a heartbeat."""

    term: _Count
    # Grows with every append that this leader sends; the reply brings it back. 0: no reply is wanted.
    sequence: _Count
    commit_index: _Count
    previous_index: _Count
    previous_term: _Count
    entries: Sequence[tuple[_Count, _Count, bytes]] = ()


class AppendReply(_Message, tag="appended"):
    """success: the log agrees with the leader's and is durable before `next_index`. reset: send from `next_index` on.

    Neither: the follower is there, and either its disk is not done yet or it is in a later term.
    """

    term: _Count
    sequence: _Count
    next_index: _Count
    success: bool
    reset: bool


class TimeoutNow(_Message, tag="takeover"):
    """The leader asks a follower that has everything to be elected in its place."""

    term: _Count


class Forward(_Message, tag="forward"):
    """Commands for the leader of `term`; a leader of any other term must not append them."""

    term: _Count
    run: Run


class ForwardRefused(_Message, tag="refused"):
    """The commands were not appended and never will be in the term that they were sent in."""

    term: _Count
    first_sequence: _Count
    count: _Count


class ReadRequest(_Message, tag="read?"):
    """Up to where must I have applied, to have everything that was committed before this was asked?"""

    id: _Count


class ReadReply(_Message, tag="read"):
    """The answer to a ReadRequest, given after a quorum confirmed the leader."""

    id: _Count
    index: _Count


class ChangeRequest(_Message, tag="change?"):
    """Asks the leader for a change of members."""

    id: _Count
    change: Change


class ChangeReply(_Message, tag="change"):
    """What became of a change: `member` when it is committed, `refused` (a MembershipReason) when it never will be.

    `elsewhere`: it was not made, and another member is asked. None of the three: nobody knows.
    """

    id: _Count
    member: Member | None = None
    refused: str = ""
    elsewhere: bool = False


class Removed(_Message, tag="removed"):
    """The member with this id was removed from the group, and that is committed."""

    id: _Id


class OtherDirectory(_Message, tag="directory"):
    """The member with this id belongs to the group with the data directory of that id; you came with another one.

    A directory's id of 0: you are awaited as one that joins, and do not know that.
    """

    id: _Id
    directory_id: _Id


class OlderCopy(_Message, tag="older"):
    """The member with this id has stood there, with the data directory that it comes with; now it stands behind."""

    id: _Id
    standing: Standing


class LevelTooLow(_Message, tag="level"):
    """The group is at this level, which you said that you cannot apply: nothing of its log is for you."""

    level: _Count


class SnapshotPart(_Message, tag="snapshot"):
    """Bytes of a leader's snapshot file from `offset` on; empty ones ask how far the follower is."""

    term: _Count
    # A random number of the leader's for this transfer: another transfer begins from the start.
    transfer: _Count
    # What the snapshot ends with, and how long its file is.
    index: _Count
    index_term: _Count
    size: _Count
    offset: _Count
    data: bytes


class SnapshotReply(_Message, tag="snapshotted"):
    """The follower has the file up to `offset`, or, when `installed`, log and state of it."""

    term: _Count
    transfer: _Count
    offset: _Count
    installed: bool = False


Message = (
    Hello
    | Ping
    | VoteRequest
    | VoteReply
    | Append
    | AppendReply
    | TimeoutNow
    | Forward
    | ForwardRefused
    | ReadRequest
    | ReadReply
    | ChangeRequest
    | ChangeReply
    | Removed
    | OtherDirectory
    | OlderCopy
    | LevelTooLow
    | SnapshotPart
    | SnapshotReply
)

# Why a member is not let in: what it is told before the connection ends, and ends by itself for.
LastWord = Removed | OtherDirectory | OlderCopy | LevelTooLow

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


class InvalidMessage(Exception):  # noqa: N818 - names the state of bytes
    """A frame that no member of this version sends."""


def encode(message: Message) -> bytes:
    """The bytes of a message, without its length."""
    return _encoder.encode(message)


def decode(data: bytes | bytearray | memoryview) -> Message:
    """The message in a frame.

    Raises:
        InvalidMessage: when it is none.
    """
    try:
        message: Message = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidMessage(str(error)) from error
    return message
