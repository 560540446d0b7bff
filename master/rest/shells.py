"""`pods/NAME/exec` and `pods/NAME/attach`: streams between a client and a process, relayed to the pod's node."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc.aio
from aiohttp import web
from multidict import MultiMapping

from kybern.api.errors import StatusError, bad_request, internal
from kybern.pb.v1 import node_agent_pb2 as pb
from master.apiserver.interface import Handlers, PodLocation
from master.rest import channels as ch
from master.rest import options, upgrades
from master.rest.connection import Sessions
from master.rest.logs import container_ref
from master.rest.nodes import NodeAgents, as_status
from master.rest.objects import Call
from master.rest.spdy.frames import SpdyError
from master.rest.spdy.session import Session, Stream
from master.rest.spdy.transports import UpgradedConnection

if TYPE_CHECKING:
    # The generated module declares it for type checkers alone.
    from kybern.pb.v1.node_agent_pb2_grpc import NodeAgentAsyncStub

log = logging.getLogger(__name__)

_STREAMS_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which streams the client wants, and of what."""

    command: tuple[str, ...]
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    def streams(self) -> set[str]:
        """The SPDY streams that the client opens for this."""
        names = {"error"}
        names |= {name for name in ("stdin", "stdout", "stderr") if getattr(self, name)}
        return names | {"resize"} if self.tty else names


# Starts a call and makes its messages: exec and attach differ in nothing else.
@dataclass(frozen=True, slots=True)
class _Kind:
    call: Callable[[NodeAgentAsyncStub], Any]
    request: type[pb.ExecRequest] | type[pb.AttachRequest]


_EXEC = _Kind(lambda stub: stub.Exec(), pb.ExecRequest)
_ATTACH = _Kind(lambda stub: stub.Attach(), pb.AttachRequest)


class Shells:
    """The subresources `exec` and `attach`."""

    def __init__(self, handlers: Handlers, nodes: NodeAgents, sessions: Sessions) -> None:
        self._handlers = handlers
        self._nodes = nodes
        self._sessions = sessions

    async def exec(self, call: Call) -> web.StreamResponse:
        """Run a command in a container."""
        wanted = streams_of(call.query)
        if not wanted.command:
            raise bad_request("the parameter command is required: you must specify at least one command")
        return await self._serve(call, _EXEC, wanted)

    async def attach(self, call: Call) -> web.StreamResponse:
        """Join the streams of a container's main process."""
        return await self._serve(call, _ATTACH, streams_of(call.query))

    async def _serve(self, call: Call, kind: _Kind, wanted: Wanted) -> web.StreamResponse:
        upgrade = upgrades.wanted(call.request)
        protocol = upgrades.subprotocol(call.request, upgrade, ch.PROTOCOLS)
        container = call.query.get("container", "")
        location = await self._handlers.locate(call.user, call.target, container, verb="create")
        start = _start(kind, wanted, call, location)
        if upgrade == upgrades.WEBSOCKET:
            return await self._websocket(call, protocol, kind, start, location, wanted)
        return await self._spdy(call, protocol, kind, start, location, wanted)

    async def _websocket(
        self, call: Call, protocol: str, kind: _Kind, start: Any, location: PodLocation, wanted: Wanted
    ) -> web.StreamResponse:
        socket = await upgrades.open_websocket(call.request, protocol)
        client = ch.WebSocketChannels(socket)
        async with self._sessions.hold(call.request):
            # Clients wait for a first, empty message as the sign that all is set up.
            await client.send(ch.STDOUT if wanted.stdout else ch.STDERR if wanted.stderr else ch.ERROR, b"")
            await self._relay(kind, start, location, client)
        if not socket.closed:
            await socket.close()
        return socket

    async def _spdy(
        self, call: Call, protocol: str, kind: _Kind, start: Any, location: PodLocation, wanted: Wanted
    ) -> web.StreamResponse:
        connection = UpgradedConnection(call.request)
        response = await connection.start(upgrades.spdy_headers(protocol))
        session = Session(connection)
        serving = asyncio.create_task(session.run())
        async with self._sessions.hold(call.request):
            try:
                streams = await _streams(session, wanted.streams())
                if streams is not None:
                    client = ch.SpdyChannels(streams, session)
                    try:
                        await self._relay(kind, start, location, client)
                    finally:
                        client.stop()
            finally:
                await stop_task(serving)
        return response

    async def _relay(self, kind: _Kind, start: Any, location: PodLocation, client: ch.Channels) -> None:
        try:
            status = await self._run(kind, start, location, client)
        except StatusError as error:
            status = ch.failed(error)
        except ConnectionError:
            return
        except Exception:
            log.exception("a shell failed")
            status = ch.failed(internal("the shell failed; the server's log says why"))
        if status is not None:
            with contextlib.suppress(ConnectionError):
                await client.finish(status)

    async def _run(self, kind: _Kind, start: Any, location: PodLocation, client: ch.Channels) -> bytes | None:
        """Relay both directions until the process or the client is gone; the outcome, or None for a lost client."""
        async with self._nodes.stub(location) as stub:
            call = kind.call(stub)
            try:
                await call.write(start)
                up = asyncio.create_task(_upwards(kind, call, client))
                down = asyncio.create_task(_downwards(call, client, location))
                try:
                    await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
                    if down.done():
                        return down.result()
                    up.result()
                    return None
                finally:
                    await stop_task(up)
                    await stop_task(down)
            finally:
                call.cancel()


async def _upwards(kind: _Kind, call: Any, client: ch.Channels) -> None:
    """Client to process; ends when the client is gone."""
    while (message := await client.receive()) is not None:
        match message:
            case ch.Input(data):
                request = kind.request(stdin=data)
            case ch.InputEnd():
                request = kind.request(close_stdin=True)
            case ch.Resize(width, height):
                request = kind.request(resize=pb.TerminalSize(width=width, height=height))
        try:
            await call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The process has ended meanwhile: the other direction tells how.
            await asyncio.Event().wait()


async def _downwards(call: Any, client: ch.Channels, location: PodLocation) -> bytes:
    """Process to client; the outcome at the end."""
    try:
        async for response in call:
            match response.WhichOneof("response"):
                case "stdout":
                    await client.send(ch.STDOUT, response.stdout)
                case "stderr":
                    await client.send(ch.STDERR, response.stderr)
                case "exit":
                    return ch.outcome(response.exit.code)
    except grpc.aio.AioRpcError as error:
        raise as_status(error, location) from None
    raise internal("the node ended the stream without saying how the process ended")


async def _streams(session: Session, names: set[str]) -> dict[str, Stream] | None:
    """The streams of a shell, once the client has opened them all; None when it does not."""
    found: dict[str, Stream] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STREAMS_SECONDS):
            while found.keys() != names:
                stream = await session.accept()
                if stream is None:
                    return None
                name = stream.headers.get("streamtype", "")
                if name not in names or name in found:
                    await session.reset(stream)
                    continue
                found[name] = stream
            return found
    return None


async def stop_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end; what it failed with has been dealt with, or means a lost client."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, ConnectionError, SpdyError, StatusError):
        await task


def streams_of(query: MultiMapping[str]) -> Wanted:
    """The options of exec and attach.

    Raises:
        StatusError: 400 naming the parameter.
    """
    tty = options.boolean(query, "tty")
    wanted = Wanted(
        command=tuple(query.getall("command", [])),
        stdin=options.boolean(query, "stdin"),
        stdout=options.boolean(query, "stdout"),
        # A terminal has one output.
        stderr=options.boolean(query, "stderr") and not tty,
        tty=tty,
    )
    if not (wanted.stdin or wanted.stdout or wanted.stderr):
        raise bad_request("at least one of the parameters stdin, stdout and stderr must be true")
    return wanted


def _start(kind: _Kind, wanted: Wanted, call: Call, location: PodLocation) -> Any:
    container = container_ref(call.target, location)
    streams = {"tty": wanted.tty, "stdin": wanted.stdin, "stdout": wanted.stdout, "stderr": wanted.stderr}
    if kind is _EXEC:
        return pb.ExecRequest(start=pb.ExecStart(container=container, command=wanted.command, **streams))
    return pb.AttachRequest(start=pb.AttachStart(container=container, **streams))
