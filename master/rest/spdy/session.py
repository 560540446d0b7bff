"""A SPDY session on the server's side: streams that the client opens, over any transport of bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Protocol

from master.rest.spdy import frames

# Bytes of a stream that wait for their reader before nothing more is read from the connection.
_MOST_WAITING = 256 * 1024
_MOST_STREAMS = 1024
_PIECE = 64 * 1024
_PROTOCOL_ERROR, _REFUSED, _CANCEL = 1, 3, 5


class Transport(Protocol):
    """A connection that carries the frames."""

    async def read(self) -> bytes:
        """What has arrived; empty at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send; waits while the other side does not take it.

        Raises:
            ConnectionError: when the connection is gone.
        """
        ...


class Stream:
    """One stream. It has two halves, each of which ends on its own."""

    def __init__(self, session: Session, number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self.headers = headers
        self._session = session
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._readable = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = False
        self._broken = False
        self._closed = False

    async def read(self) -> bytes | None:
        """The next bytes; None at the end (or when the stream or the connection broke)."""
        while not self._chunks:
            if self._ended:
                return None
            self._readable.clear()
            await self._readable.wait()
        data = self._chunks.popleft()
        self._size -= len(data)
        if self._size <= _MOST_WAITING:
            self._room.set()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            ConnectionError: when the client has reset the stream or is gone.
        """
        for at in range(0, len(data), _PIECE):
            if self._closed or self._broken:
                raise ConnectionResetError("the stream is closed")
            await self._session.send(self._session.encoder.data(self.number, data[at : at + _PIECE]))

    async def close(self) -> None:
        """Say that nothing more is sent; nothing happens when that is said already."""
        if not self._closed and not self._broken:
            self._closed = True
            await self._session.send(self._session.encoder.data(self.number, b"", fin=True))

    async def put(self, data: bytes, fin: bool) -> None:
        """Take what the client sent; waits while the reader is behind."""
        if self._broken or self._ended:
            return
        self._ended = fin
        if data:
            self._chunks.append(data)
            self._size += len(data)
        self._readable.set()
        if self._size > _MOST_WAITING:
            self._room.clear()
            await self._room.wait()

    def break_off(self) -> None:
        """End reading and writing now: the stream was reset, or nobody needs it any more."""
        self._ended = self._broken = True
        self._chunks.clear()
        self._size = 0
        self._readable.set()
        # Whoever waits for room would hold up the whole connection.
        self._room.set()

    async def finish(self) -> None:
        """Close our half, and want nothing more of the client's."""
        try:
            await self.close()
        finally:
            self.break_off()
            self._session.streams.pop(self.number, None)


class Session:
    """Reads frames until the connection ends; new streams come out of `accept`."""

    def __init__(self, transport: Transport) -> None:
        self.encoder = frames.Encoder()
        self.streams: dict[int, Stream] = {}
        self._transport = transport
        self._decoder = frames.Decoder()
        self._new: asyncio.Queue[Stream | None] = asyncio.Queue()
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Serve the connection to its end.

        Raises:
            SpdyError: when the client does not speak SPDY/3.1.
        """
        try:
            while data := await self._transport.read():
                for frame in self._decoder.feed(data):
                    await self._take(frame)
        finally:
            for stream in tuple(self.streams.values()):
                stream.break_off()
            self._new.put_nowait(None)

    async def accept(self) -> Stream | None:
        """The next stream that the client has opened; None at the end of the connection."""
        return await self._new.get()

    async def send(self, data: bytes) -> None:
        """Send one frame, whole."""
        async with self._sending:
            await self._transport.write(data)

    async def reset(self, stream: Stream) -> None:
        """End a stream at once, in both directions."""
        stream.break_off()
        self.streams.pop(stream.number, None)
        await self.send(self.encoder.rst_stream(stream.number, _CANCEL))

    async def _take(self, frame: frames.Frame) -> None:
        match frame:
            case frames.SynStream(number, headers, fin):
                await self._open(number, headers, fin)
            case frames.Data(number, data, fin):
                stream = self.streams.get(number)
                # Data of a stream that was reset a moment ago is nobody's.
                if stream is not None:
                    await stream.put(data, fin)
            case frames.RstStream(number, _):
                stream = self.streams.pop(number, None)
                if stream is not None:
                    stream.break_off()
            case frames.Ping(number):
                # Even numbers are answers to pings of ours, and we send none.
                if number % 2:
                    await self.send(self.encoder.ping(number))
            case _:
                pass

    async def _open(self, number: int, headers: Mapping[str, str], fin: bool) -> None:
        if number in self.streams or number % 2 == 0:
            await self.send(self.encoder.rst_stream(number, _PROTOCOL_ERROR))
            return
        if len(self.streams) >= _MOST_STREAMS:
            await self.send(self.encoder.rst_stream(number, _REFUSED))
            return
        stream = self.streams[number] = Stream(self, number, headers)
        async with self._sending:
            # The compression of headers is a stream too: what is made first must leave first.
            await self._transport.write(self.encoder.syn_reply(number))
        self._new.put_nowait(stream)
        if fin:
            await stream.put(b"", fin=True)
