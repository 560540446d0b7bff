"""HTTP/1.1 to a container engine's socket, on the event loop: for answers that stream, and for calls that wait long.

docker-py would hold a thread for each. One connection per request: a stream occupies its connection anyway, and after
an upgrade (exec, attach) it belongs to the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from node.runtime.interface import RuntimeFailure

# An engine that is there takes a connection at once and begins its answer in far less than this.
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
_PIECE = 64 * 1024
# Error bodies are a line of text.
_ERROR_BYTES = 64 * 1024


class EngineError(RuntimeFailure):
    """The engine answered with an error; `status` is its HTTP code."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message, gone=status == 404)
        self.status = status


def lost(what: str, error: BaseException | None = None) -> RuntimeFailure:
    """The failure of an engine that does not answer."""
    detail = f": {error}" if error is not None and str(error) else ""
    return RuntimeFailure(f"the container engine {what}{detail}", reason="RuntimeUnavailable", unavailable=True)


@dataclass
class Answer:
    """The head of an answer, and the connection that the rest of it comes by."""

    status: int
    headers: Mapping[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    _closed: bool = field(default=False, init=False)

    async def body(self) -> AsyncIterator[bytes]:
        """The body in pieces as they come; of an upgraded connection, all that the peer sends."""
        try:
            if "chunked" in self.headers.get("transfer-encoding", ""):
                async for piece in self._chunks():
                    yield piece
            elif (length := self.headers.get("content-length")) is not None:
                left = int(length)
                while left > 0:
                    piece = await self.reader.read(min(left, _PIECE))
                    if not piece:
                        raise lost("closed the connection")
                    left -= len(piece)
                    yield piece
            else:
                while piece := await self.reader.read(_PIECE):
                    yield piece
        except (OSError, asyncio.IncompleteReadError) as error:
            raise lost("closed the connection", error) from error

    async def read(self, limit: int | None = None) -> bytes:
        """The whole body, or its first `limit` bytes."""
        data = bytearray()
        async for piece in self.body():
            data += piece
            if limit is not None and len(data) >= limit:
                break
        return bytes(data[:limit])

    def close(self) -> None:
        """Give the connection back; the engine sees that nobody reads on."""
        if not self._closed:
            self._closed = True
            self.writer.close()

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            size = await self.reader.readuntil(b"\r\n")
            left = int(size.split(b";")[0], 16)
            if left == 0:
                return
            while left > 0:
                piece = await self.reader.read(min(left, _PIECE))
                if not piece:
                    raise lost("closed the connection")
                left -= len(piece)
                yield piece
            await self.reader.readexactly(2)


class EngineHttp:
    """Requests to one engine at `unix:///path` or `tcp://host:port`.

    Raises:
        RuntimeFailure: from the constructor, when the endpoint is neither.
    """

    def __init__(self, endpoint: str) -> None:
        scheme, separator, rest = endpoint.partition("://")
        if not separator or scheme not in ("unix", "tcp") or not rest:
            raise RuntimeFailure(f"the engine's endpoint must be unix:///path or tcp://host:port, not {endpoint!r}")
        self.endpoint = endpoint
        self._path = rest if scheme == "unix" else ""
        self._host, _, port = rest.rpartition(":") if scheme == "tcp" else ("", "", "0")
        if not port.isdigit():
            raise RuntimeFailure(f"the engine's endpoint must name a port: {endpoint!r}")
        self._port = int(port)

    async def open(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        upgrade: bool = False,
        answer_seconds: float | None = ANSWER_SECONDS,
    ) -> Answer:
        """Send a request and read the head of its answer, within `answer_seconds`; then close the answer.

        Raises:
            EngineError: when the engine answers with an error.
            RuntimeFailure: with `unavailable` when it does not answer.
        """
        reader, writer = await self._connect()
        kept = False
        try:
            async with asyncio.timeout(answer_seconds):
                writer.write(_request(method, path, query, body, headers or {}, upgrade))
                await writer.drain()
                status, fields = await _head(reader)
                answer = Answer(status, fields, reader, writer)
                if status >= 400:
                    raise EngineError(status, _error_text(await answer.read(_ERROR_BYTES), status))
                kept = True
                return answer
        except TimeoutError as error:
            raise lost(f"has not answered in {answer_seconds:g} s to {method} {path}") from error
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise lost("closed the connection", error) from error
        finally:
            if not kept:
                writer.close()

    async def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        *,
        seconds: float | None = ANSWER_SECONDS,
    ) -> Any:
        """The decoded answer (None when it is empty), within `seconds`.

        Raises:
            EngineError: when the engine answers with an error.
            RuntimeFailure: with `unavailable` when it does not answer.
        """
        answer = await self.open(method, path, query, body, answer_seconds=seconds)
        try:
            async with asyncio.timeout(seconds):
                data = b"" if answer.status in (204, 304) else await answer.read()
        except TimeoutError as error:
            raise lost(f"has not answered in {seconds:g} s to {method} {path}") from error
        finally:
            answer.close()
        try:
            return json.loads(data) if data.strip() else None
        except ValueError as error:
            raise RuntimeFailure(f"the engine's answer to {method} {path} is not JSON: {error}") from error

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if self._path:
                    return await asyncio.open_unix_connection(self._path)
                return await asyncio.open_connection(self._host, self._port)
        except (OSError, TimeoutError) as error:
            raise lost(f"at {self.endpoint} cannot be reached", error) from error


def _request(
    method: str, path: str, query: Mapping[str, Any] | None, body: Any, headers: Mapping[str, str], upgrade: bool
) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    parameters = {key: value for key, value in (query or {}).items() if value is not None}
    target = quote(path) + ("?" + urlencode(parameters) if parameters else "")
    fields = {"Host": "engine", "User-Agent": "kybern", "Connection": "close", **headers}
    if upgrade:
        fields |= {"Connection": "Upgrade", "Upgrade": "tcp"}
    if method == "POST":
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + data


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip().lower()
    version, _, rest = first.partition(" ")
    with contextlib.suppress(ValueError):
        if version.startswith("HTTP/1."):
            return int(rest.split(" ")[0]), fields
    raise lost(f"does not speak HTTP: {first[:80]!r}")


def _error_text(data: bytes, status: int) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(data).get("message") or f"HTTP {status}")
    return data.decode(errors="replace").strip() or f"HTTP {status}"
