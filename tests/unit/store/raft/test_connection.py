"""Frames out of a stream of bytes that is cut anywhere."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from kybern.pki import Identity
from store.raft import messages
from store.raft.connection import Connection, Owner
from store.raft.messages import Append, Hello, Message, Ping, ReadRequest

_HELLO = Hello("test", "b", messages.PROTOCOL)
_SENT: list[Message] = [
    Append(3, 1, 7, 6, 2, [(7, 3, b"x" * 100)]),
    ReadRequest(9),
    Ping(),
    Append(3, 2, 7, 7, 3, [(8, 3, bytes(300_000)), (9, 3, b"y")]),
    ReadRequest(10),
]


class _Sink:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.closed = True

    def get_extra_info(self, _name: str) -> None:
        return None


class _Owner:
    def __init__(self) -> None:
        self.messages: list[Message] = []

    def accepts(self, _identity: Identity, _hello: Hello, _expected: str) -> str | None:
        return None

    def ending(self, _who: str, _reason: str) -> None:
        return

    def opened(self, _connection: Connection) -> None:
        return

    def received(self, _connection: Connection, message: Message) -> None:
        self.messages.append(message)


def connection() -> tuple[Connection, _Owner, _Sink]:
    owner, sink = _Owner(), _Sink()
    made = Connection(cast(Owner, owner), lambda: _HELLO, lambda: 0.0)
    made._transport = cast(asyncio.Transport, sink)
    return made, owner, sink


def stream() -> bytes:
    """What a connection writes for a hello and the messages."""
    sender, _, sink = connection()
    for message in [_HELLO, *_SENT]:
        assert sender.send(message)
    return bytes(sink.written)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 250, 4096, 100_000, 1 << 20])
def test_messages_arrive_whole_however_the_stream_is_cut(size: int) -> None:
    data = stream()
    receiver, owner, _ = connection()
    for at in range(0, len(data), size):
        receiver.data_received(data[at : at + size])
    assert owner.messages == _SENT
    assert not receiver._parts


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("wrong", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x02\x91\xa3"])
def test_what_is_no_frame_closes_the_connection(wrong: bytes, size: int) -> None:
    receiver, owner, sink = connection()
    data = stream() + wrong
    for at in range(0, len(data), size):
        receiver.data_received(data[at : at + size])
    assert sink.closed
    assert len(owner.messages) == len(_SENT)


def test_before_the_hello_a_frame_is_short() -> None:
    receiver, _, sink = connection()
    receiver.data_received((5000).to_bytes(4, "big"))
    assert sink.closed
