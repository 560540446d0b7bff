"""What carries SPDY: a connection that HTTP/1.1 was left on (Upgrade), or the messages of a WebSocket."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from aiohttp import WSMsgType, web

# Bytes that wait for the session before the kernel is asked to slow the client down.
_HIGH_WATER = 256 * 1024


class _Upgrade(web.StreamResponse):
    # There is no body whose length could be checked: what follows the headers is another protocol.
    _length_check = False


class UpgradedConnection:
    """A connection after `101 Switching Protocols`. It takes the place of aiohttp's parser of payloads."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._chunks: list[bytes] = []
        self._size = 0
        self._paused = False
        self._ended = False
        self._arrived = asyncio.Event()

    async def start(self, headers: dict[str, str]) -> web.StreamResponse:
        """Leave HTTP; returns the response that the handler returns in the end."""
        response = _Upgrade(status=101, headers={"Connection": "Upgrade", "Upgrade": "SPDY/3.1", **headers})
        response.force_close()
        await response.prepare(self._request)
        cast(Any, self._request.protocol).set_parser(self)
        return response

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Called by aiohttp with what has arrived."""
        self._chunks.append(bytes(data))
        self._size += len(data)
        transport = self._request.transport
        if self._size > _HIGH_WATER and not self._paused and transport is not None:
            self._paused = True
            cast(asyncio.ReadTransport, transport).pause_reading()
        self._arrived.set()
        return False, b""

    def feed_eof(self) -> None:
        """Called by aiohttp when the connection is lost."""
        self._ended = True
        self._arrived.set()

    async def read(self) -> bytes:
        """What has arrived; empty at the end."""
        while not self._chunks and not self._ended:
            self._arrived.clear()
            await self._arrived.wait()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        transport = self._request.transport
        if self._paused and transport is not None:
            self._paused = False
            cast(asyncio.ReadTransport, transport).resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send."""
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        await self._request.writer.write(data)


class WebSocketTunnel:
    """SPDY inside the binary messages of a WebSocket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        """The next message; empty at the end."""
        while True:
            message = await self._socket.receive()
            if message.type is not WSMsgType.BINARY:
                return b""
            if message.data:
                return bytes(message.data)

    async def write(self, data: bytes) -> None:
        """Send a message."""
        await self._socket.send_bytes(data)
