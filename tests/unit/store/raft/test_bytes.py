"""Entries and messages: what is written is read back, and what nobody writes is refused."""

from __future__ import annotations

import pickle

import msgspec
import pytest

from store.raft import entries, messages
from store.raft.bridge import from_wire, to_wire
from store.raft.configuration import Add, Promote
from store.raft.entries import Run
from store.raft.interface import Member, MembershipReason
from store.raft.messages import Message

MESSAGES: list[Message] = [
    messages.Hello("test", "s1", 1),
    messages.Ping(),
    messages.VoteRequest(3, 10, 2, trial=True),
    messages.VoteReply(3, True, 2),
    messages.Append(3, 9, 8, 7, 2, [(8, 2, b"a"), (9, 3, b"b")]),
    messages.AppendReply(3, 9, 10, True, False),
    messages.TimeoutNow(3),
    messages.Forward(3, Run(2**63 - 1, 1, [b"a", b""])),
    messages.ForwardRefused(3, 1, 2),
    messages.ReadRequest(1),
    messages.ReadReply(1, 2),
    messages.Hello("test", "s1", 2, 2**64 - 1, "h:1", "h:2"),
    messages.ChangeRequest(1, Add("", "h:1", "", learner=True)),
    messages.ChangeRequest(2, Promote(2**64 - 1)),
    messages.ChangeReply(1, member=Member(2**64 - 1, "s1", "h:1", "h:2", learner=True)),
    messages.ChangeReply(1, refused=MembershipReason.UNHEALTHY.value),
    messages.Removed(2**64 - 1),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_are_read_back(message: Message) -> None:
    assert messages.decode(messages.encode(message)) == message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        pickle.dumps({"type": "append_entries"}),
        msgspec.msgpack.encode(["no such message", 1]),
        msgspec.msgpack.encode(["takeover"]),
        msgspec.msgpack.encode(["takeover", 1, 2]),
        msgspec.msgpack.encode(["takeover", -1]),
        msgspec.msgpack.encode(["takeover", 2**63]),
        msgspec.msgpack.encode(["takeover", "1"]),
        msgspec.msgpack.encode({"type": "takeover", "term": 1}),
        messages.encode(messages.TimeoutNow(3)) + b"x",
        b"\x91" * 5000,
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(messages.InvalidMessage):
        messages.decode(data)


@pytest.mark.parametrize("message", MESSAGES[2:7], ids=lambda message: type(message).__name__)
def test_rafts_messages_pass_through_pysyncobjs_dicts(message: Message) -> None:
    assert to_wire(from_wire(message)) == message


@pytest.mark.parametrize(
    "entries_",
    [
        [(9, 2, b"a")],
        [(8, 2, b"a"), (10, 2, b"b")],
        [(8, 2, b"a"), (8, 2, b"b")],
        [(8, 4, b"a")],
        [(8, 1, b"a")],
        [(8, 3, b"a"), (9, 2, b"b")],
        [(8, 2, b"")],
    ],
)
def test_entries_that_do_not_follow_each_other_are_refused(entries_: list[tuple[int, int, bytes]]) -> None:
    with pytest.raises(messages.InvalidMessage):
        from_wire(messages.Append(3, 9, 8, 7, 2, entries_))


def test_what_is_not_rafts_does_not_reach_it() -> None:
    with pytest.raises(messages.InvalidMessage, match="ReadRequest"):
        from_wire(messages.ReadRequest(1))


def test_groups_are_read_back() -> None:
    runs = [Run(5, 1, [b"a", b"", bytes(1000)]), Run(6, 9, [b"z"])]
    entry = entries.encode_group(1_700_000_000_123, runs)
    assert entries.decode_group(entry) == (1_700_000_000_123, runs)
    assert entries.clock_of(entry) == 1_700_000_000_123
    assert entries.decode_group(b"\x01") is None


@pytest.mark.parametrize(
    "entry", [b"", b"\x02", b"\x03" + bytes(20), b"\x00", b"\x00" + bytes(8), b"\x00" * 9 + b"\xc1"]
)
def test_entries_of_another_version_are_refused(entry: bytes) -> None:
    with pytest.raises(entries.InvalidEntry):
        entries.decode_group(entry)


def test_an_append_with_a_configuration_that_is_none_is_refused() -> None:
    with pytest.raises(messages.InvalidMessage, match="configuration"):
        from_wire(messages.Append(3, 1, 0, 1, 0, [(2, 3, b"\x04rubbish")]))
