"""What lies below the requests: connections that speak Statuses even about broken HTTP, and sessions.

A session is a request that lasts (watch, followed log, exec, port-forward). It ends when its client is gone, its time
is up, or the server stops; all three come as the end of a `Sessions.hold` block.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from kybern.api.errors import bad_request, internal
from master.rest.answers import respond_error

log = logging.getLogger(__name__)

# How long a client may take to end its side of TLS.
_GOODBYE_SECONDS = 0.5


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_held", "_server")

    def __init__(self, manager: HttpServer, **options: Any) -> None:
        super().__init__(manager, **options)
        self._held: set[asyncio.Timeout] = set()
        self._server = manager

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve a client."""
        super().connection_made(transport)
        self._server.opened(self, cast(asyncio.Transport, transport))

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the sessions of a client that is gone."""
        super().connection_lost(exc)
        self._server.lost(self)
        for scope in tuple(self._held):
            end(scope)

    def hold(self, scope: asyncio.Timeout) -> None:
        """End `scope` when the connection is lost."""
        self._held.add(scope)
        if self.transport is None:
            end(scope)

    def release(self, scope: asyncio.Timeout) -> None:
        """Forget a scope."""
        self._held.discard(scope)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What a client gets whose bytes are not HTTP, or whose request broke the server: a Status, then the end."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun already")
        if status >= 500:
            log.error("a request from %s failed", request.remote, exc_info=exc)
            response = respond_error(internal("the request could not be handled"))
        else:
            log.debug("what %s sent is not HTTP: %s", request.remote, message)
            response = respond_error(bad_request("the request is not valid HTTP/1.1"))
        response.force_close()
        return response


class HttpServer(web.Server):
    """Makes a `Connection` per client."""

    def __init__(self, handler: Any, *, most_body: int, keepalive: float) -> None:
        super().__init__(handler, request_factory=self._request)
        self._most_body = most_body
        self._keepalive = keepalive
        self._wires: dict[Connection, asyncio.Transport] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def opened(self, connection: Connection, wire: asyncio.Transport) -> None:
        """A client has connected."""
        self._wires[connection] = wire
        self._idle.clear()

    def lost(self, connection: Connection) -> None:
        """A connection has ended."""
        self._wires.pop(connection, None)
        if not self._wires:
            self._idle.set()

    async def stop(self, grace: float) -> None:
        """Close every connection; requests that go on after `grace` seconds are cut off."""
        self.pre_shutdown()
        await self.shutdown(grace)
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            # TLS waits for the other side's goodbye, and that side may be gone without one.
            for wire in tuple(self._wires.values()):
                wire.abort()
            await asyncio.sleep(0)

    def __call__(self) -> RequestHandler:
        """A protocol for a new connection."""
        return Connection(
            self,
            loop=self._loop,
            access_log=None,
            keepalive_timeout=self._keepalive,
            # Selectors and commands travel in the URL; clients of a size that needs more do not exist.
            max_line_size=32 * 1024,
            max_field_size=32 * 1024,
            lingering_time=2.0,
        )

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=self._most_body)


class Sessions:
    """The lasting requests of a server."""

    def __init__(self) -> None:
        self._scopes: set[asyncio.Timeout] = set()
        # The tasks of the requests; they outlive the scopes by what it takes to end an answer.
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._scopes)

    @asynccontextmanager
    async def hold(self, request: web.BaseRequest, seconds: float | None = None) -> AsyncIterator[None]:
        """Run the block until it ends, the client is gone, `seconds` have passed or the server stops."""
        connection = cast(Connection, request.protocol)
        scope = asyncio.timeout(seconds)
        task = asyncio.current_task()
        if task is not None and task not in self._tasks:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            async with scope:
                self._scopes.add(scope)
                connection.hold(scope)
                if self._stopping:
                    end(scope)
                yield
        except TimeoutError:
            if not scope.expired():
                raise
        finally:
            self._scopes.discard(scope)
            connection.release(scope)

    async def stop(self, grace: float) -> None:
        """End every session, now and from now on, and wait up to `grace` seconds until their answers have ended."""
        self._stopping = True
        for scope in tuple(self._scopes):
            end(scope)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)


def end(scope: asyncio.Timeout) -> None:
    """Let a scope expire now, unless it does already."""
    if not scope.expired():
        scope.reschedule(asyncio.get_running_loop().time())
