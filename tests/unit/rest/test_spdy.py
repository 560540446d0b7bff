"""Frames and sessions of SPDY, with our own encoder as the client."""

from __future__ import annotations

import asyncio
import zlib

import pytest

from master.rest.spdy.frames import (
    DICTIONARY,
    Data,
    Decoder,
    Encoder,
    Frame,
    GoAway,
    Ping,
    RstStream,
    SpdyError,
    SynReply,
    SynStream,
)
from master.rest.spdy.session import Session


def test_the_dictionary_is_that_of_the_protocol() -> None:
    # What every SPDY/3 implementation has, as its length and checksum.
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def frames_of(data: bytes, step: int) -> list[Frame]:
    decoder = Decoder()
    return [frame for at in range(0, len(data), step) for frame in decoder.feed(data[at : at + step])]


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_frames_survive_any_cut(step: int) -> None:
    encoder = Encoder()
    settings = bytes.fromhex("80030004 00000004 00000000")
    window = bytes.fromhex("80030009 00000008 00000001 00001000")
    data = b"".join(
        (
            encoder.syn_stream(1, {"streamType": "error", "port": "80"}),
            settings,
            encoder.data(1, b"hello"),
            window,
            # The second block of headers refers to the first one.
            encoder.syn_stream(3, {"streamType": "data", "port": "80"}, fin=True),
            encoder.syn_reply(3),
            encoder.data(1, b"", fin=True),
            encoder.ping(5),
            encoder.rst_stream(1, 5),
            encoder.go_away(3),
        )
    )
    assert frames_of(data, step) == [
        SynStream(1, {"streamtype": "error", "port": "80"}),
        Data(1, b"hello"),
        SynStream(3, {"streamtype": "data", "port": "80"}, fin=True),
        SynReply(3, {}),
        Data(1, b"", fin=True),
        Ping(5),
        RstStream(1, 5),
        GoAway(3),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes.fromhex("80020001 00000000"),
        bytes.fromhex("00000001 00ffffff"),
        bytes.fromhex("80030006 00000002 0000"),
        bytes.fromhex("80030001 0000000e 00000001 00000000 0000 deadbeef"),
    ],
)
def test_what_is_not_spdy_is_refused(data: bytes) -> None:
    with pytest.raises(SpdyError):
        frames_of(data, len(data))


def test_a_bomb_of_headers_is_refused() -> None:
    with pytest.raises(SpdyError, match="too long"):
        frames_of(Encoder().syn_stream(1, {"a": "x" * 200_000}), 100)


class Wire:
    """Both ends of a connection in memory."""

    def __init__(self) -> None:
        self.arriving: asyncio.Queue[bytes] = asyncio.Queue()
        self.encoder = Encoder()
        self._decoder = Decoder()
        self.sent: list[Frame] = []
        self.gone = False

    async def read(self) -> bytes:
        return await self.arriving.get()

    async def write(self, data: bytes) -> None:
        if self.gone:
            raise ConnectionResetError
        self.sent += self._decoder.feed(data)


async def test_streams_end_to_end() -> None:
    wire = Wire()
    session = Session(wire)
    running = asyncio.create_task(session.run())
    wire.arriving.put_nowait(wire.encoder.syn_stream(1, {"streamType": "data"}))
    stream = await session.accept()
    assert stream is not None
    assert stream.headers == {"streamtype": "data"}
    wire.arriving.put_nowait(
        wire.encoder.data(1, b"one") + wire.encoder.data(1, b"two", fin=True) + wire.encoder.ping(1)
    )
    assert [await stream.read(), await stream.read(), await stream.read()] == [b"one", b"two", None]
    await stream.write(b"y" * 100_000)
    await stream.finish()
    with pytest.raises(ConnectionError):
        await stream.write(b"more")
    wire.arriving.put_nowait(b"")
    await running
    assert await session.accept() is None
    assert wire.sent[0] == SynReply(1, {})
    assert Ping(1) in wire.sent
    data = [f for f in wire.sent if isinstance(f, Data)]
    assert sum(len(f.data) for f in data) == 100_000
    assert data[-1].fin


async def test_a_reader_that_is_behind_holds_up_the_connection_until_it_gives_up() -> None:
    wire = Wire()
    session = Session(wire)
    running = asyncio.create_task(session.run())
    wire.arriving.put_nowait(wire.encoder.syn_stream(1, {"streamType": "data"}))
    stream = await session.accept()
    assert stream is not None
    for _ in range(40):
        wire.arriving.put_nowait(wire.encoder.data(1, b"z" * 65536))
    for _ in range(100):
        await asyncio.sleep(0)
    # Bounded: most of it still waits outside.
    assert wire.arriving.qsize() > 30
    await stream.finish()
    wire.arriving.put_nowait(b"")
    await running
    assert wire.arriving.empty()


async def test_resets_pings_and_numbers() -> None:
    wire = Wire()
    session = Session(wire)
    running = asyncio.create_task(session.run())
    wire.arriving.put_nowait(wire.encoder.syn_stream(2, {}) + wire.encoder.ping(4))
    wire.arriving.put_nowait(wire.encoder.syn_stream(5, {"streamType": "data"}))
    stream = await session.accept()
    assert stream is not None
    wire.arriving.put_nowait(wire.encoder.rst_stream(5, 5))
    assert await stream.read() is None
    with pytest.raises(ConnectionError):
        await stream.write(b"x")
    # An even number is not the client's to give; an even ping is an answer.
    assert wire.sent == [RstStream(2, 1), SynReply(5, {})]
    wire.arriving.put_nowait(b"not spdy at all!")
    with pytest.raises(SpdyError):
        await running
    assert await session.accept() is None
