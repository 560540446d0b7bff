"""The streams of a shell (standard input, output, error, terminal size, outcome), on whatever carries them.

On a WebSocket each message begins with a channel's number; on SPDY each is a stream of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from aiohttp import WSMsgType, web

from kybern.api.errors import StatusError
from master.rest.spdy.session import Session, Stream

STDIN, STDOUT, STDERR, ERROR, RESIZE = 0, 1, 2, 3, 4
# In v5 of the WebSocket protocol: the channel named by the next byte has ended.
_CLOSE = 255

V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
PROTOCOLS = (V5, V4)
_MOST_SIZE = 0xFFFF


@dataclass(frozen=True, slots=True)
class Input:
    """Bytes for standard input."""

    data: bytes


@dataclass(frozen=True, slots=True)
class InputEnd:
    """Standard input has ended."""


@dataclass(frozen=True, slots=True)
class Resize:
    """The terminal has a new size, in characters."""

    width: int
    height: int


Message = Input | InputEnd | Resize


class Channels(Protocol):
    """What a shell needs of its client."""

    async def receive(self) -> Message | None:
        """What the client says next; None when it is gone."""
        ...

    async def send(self, channel: int, data: bytes) -> None:
        """Send bytes of STDOUT or STDERR.

        Raises:
            ConnectionError: when the client is gone.
        """
        ...

    async def finish(self, status: bytes) -> None:
        """Send the outcome, and end."""
        ...


class WebSocketChannels:
    """Channels on a WebSocket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def receive(self) -> Message | None:
        """As `Channels.receive`."""
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY:
                data = bytes(message.data)
            elif message.type is WSMsgType.TEXT:
                # The Python client sends standard input as text.
                data = message.data.encode()
            else:
                return None
            parsed = parse(data)
            if parsed is not None:
                return parsed

    async def send(self, channel: int, data: bytes) -> None:
        """As `Channels.send`."""
        await self._socket.send_bytes(bytes((channel,)) + data)

    async def finish(self, status: bytes) -> None:
        """As `Channels.finish`."""
        await self.send(ERROR, status)
        await self._socket.close()


def parse(data: bytes) -> Message | None:
    """A message of a WebSocket; None when it says nothing that we know."""
    if not data:
        return None
    channel, rest = data[0], data[1:]
    if channel == STDIN:
        return Input(rest) if rest else None
    if channel == RESIZE:
        return parse_size(rest)
    if channel == _CLOSE and rest[:1] == bytes((STDIN,)):
        return InputEnd()
    return None


def parse_size(data: bytes) -> Resize | None:
    """A terminal's size in JSON, as clients send it; None when it is none."""
    try:
        size: Any = msgspec.json.decode(data)
        width, height = int(size["Width"]), int(size["Height"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return None
    return Resize(min(max(width, 0), _MOST_SIZE), min(max(height, 0), _MOST_SIZE))


class SpdyChannels:
    """Channels on SPDY: each a stream, named by its header `streamtype`."""

    def __init__(self, streams: Mapping[str, Stream], session: Session) -> None:
        self._streams = streams
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue(16)
        self._tasks = [asyncio.create_task(self._watch(session))]
        if "stdin" in streams:
            self._tasks.append(asyncio.create_task(self._input(streams["stdin"])))
        if "resize" in streams:
            self._tasks.append(asyncio.create_task(self._sizes(streams["resize"])))

    async def receive(self) -> Message | None:
        """As `Channels.receive`."""
        return await self._messages.get()

    async def send(self, channel: int, data: bytes) -> None:
        """As `Channels.send`."""
        stream = self._streams.get("stderr" if channel == STDERR else "stdout")
        if stream is not None:
            await stream.write(data)

    async def finish(self, status: bytes) -> None:
        """As `Channels.finish`."""
        for task in self._tasks:
            task.cancel()
        await self._streams["error"].write(status)
        for stream in self._streams.values():
            await stream.finish()

    def stop(self) -> None:
        """Read no more."""
        for task in self._tasks:
            task.cancel()

    async def _watch(self, session: Session) -> None:
        # No further stream comes: this ends with the connection.
        while await session.accept() is not None:
            pass
        await self._messages.put(None)

    async def _input(self, stream: Stream) -> None:
        while (data := await stream.read()) is not None:
            await self._messages.put(Input(data))
        await self._messages.put(InputEnd())

    async def _sizes(self, stream: Stream) -> None:
        rest = b""
        while (data := await stream.read()) is not None and len(rest) < _MOST_SIZE:
            # A JSON object per size, one after the other.
            *whole, rest = (rest + data).replace(b"}", b"}\n").split(b"\n")
            for text in whole:
                size = parse_size(text)
                if size is not None:
                    await self._messages.put(size)


def outcome(code: int) -> bytes:
    """The Status that a shell ends with."""
    if code == 0:
        return b'{"metadata":{},"status":"Success"}'
    status = {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
    return msgspec.json.encode(status)


def failed(error: StatusError) -> bytes:
    """The Status of a shell that could not be had."""
    return msgspec.json.encode(error.document())
