"""`pods/NAME/portforward`: TCP connections to a pod's ports, relayed to its node.

Three ways in: SPDY on the connection itself, SPDY inside a WebSocket (kubectl), and numbered channels on a WebSocket
(other client libraries): two per port, for data and for the text of an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import grpc.aio
from aiohttp import WSMsgType, web

from kybern.api.errors import StatusError, bad_request
from kybern.pb.v1 import node_agent_pb2 as pb
from master.apiserver.interface import Handlers, PodLocation, Target
from master.rest import channels as ch
from master.rest import upgrades
from master.rest.connection import Sessions
from master.rest.nodes import NodeAgents
from master.rest.objects import Call
from master.rest.shells import stop_task
from master.rest.spdy.frames import SpdyError
from master.rest.spdy.session import Session, Stream, Transport
from master.rest.spdy.transports import UpgradedConnection, WebSocketTunnel

log = logging.getLogger(__name__)

_SPDY_PROTOCOL = "portforward.k8s.io"
_TUNNEL_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
# A stream whose other half does not come in this time is given up.
_PAIR_SECONDS = 30.0
_MOST_PORTS = 16


class Pipe(Protocol):
    """The client's end of one connection."""

    async def read(self) -> bytes | None:
        """What the client sends; None at its end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send what the pod sent.

        Raises:
            ConnectionError: when the client is gone.
        """
        ...

    async def finish(self, problem: str) -> None:
        """End the connection; `problem` is for people, empty when there is none."""
        ...


class Forwards:
    """The subresource `portforward`."""

    def __init__(self, handlers: Handlers, nodes: NodeAgents, sessions: Sessions) -> None:
        self._handlers = handlers
        self._nodes = nodes
        self._sessions = sessions

    async def forward(self, call: Call) -> web.StreamResponse:
        """Forward as many connections as the client opens, until it goes."""
        upgrade = upgrades.wanted(call.request)
        spoken = (_TUNNEL_PROTOCOL, *ch.PROTOCOLS) if upgrade == upgrades.WEBSOCKET else (_SPDY_PROTOCOL,)
        protocol = upgrades.subprotocol(call.request, upgrade, spoken)
        ports = _ports(call.query) if protocol in ch.PROTOCOLS else []
        location = await self._handlers.locate(call.user, call.target, "", verb="create")
        relay = _Relay(self._nodes, call.target, location)
        if upgrade == upgrades.SPDY:
            connection = UpgradedConnection(call.request)
            response = await connection.start(upgrades.spdy_headers(protocol))
            async with self._sessions.hold(call.request):
                await _spdy(connection, relay)
            return response
        socket = await upgrades.open_websocket(call.request, protocol)
        async with self._sessions.hold(call.request):
            if ports:
                await _numbered(socket, ports, relay)
            else:
                await _spdy(WebSocketTunnel(socket), relay)
        if not socket.closed:
            await socket.close()
        return socket


@dataclass(frozen=True, slots=True)
class _Relay:
    """Connects pipes to the pod."""

    nodes: NodeAgents
    target: Target
    location: PodLocation

    async def run(self, port: int, pipe: Pipe) -> None:
        """Relay one connection to its end."""
        problem = ""
        try:
            await self._relay(port, pipe)
        except StatusError as error:
            problem = f"error forwarding port {port} to pod {self.target.namespace}/{self.target.name}: {error.message}"
        except ConnectionError:
            pass
        except Exception:
            log.exception("a forwarded connection failed")
            problem = f"error forwarding port {port}: internal error"
        with contextlib.suppress(ConnectionError):
            await pipe.finish(problem)

    async def _relay(self, port: int, pipe: Pipe) -> None:
        async with self.nodes.stub(self.location) as stub:
            call: Any = stub.PortForward()
            start = pb.PortForwardStart(
                namespace=self.target.namespace, pod=self.target.name, pod_uid=self.location.pod_uid, port=port
            )
            try:
                await call.write(pb.PortForwardRequest(start=start))
                up = asyncio.create_task(_upwards(call, pipe))
                try:
                    async for response in call:
                        await pipe.write(response.data)
                finally:
                    await stop_task(up)
            finally:
                call.cancel()


async def _upwards(call: Any, pipe: Pipe) -> None:
    try:
        while (data := await pipe.read()) is not None:
            await call.write(pb.PortForwardRequest(data=data))
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        # The pod has ended the connection: the other direction tells how.
        pass


# --- SPDY


class _StreamPipe:
    def __init__(self, data: Stream, error: Stream) -> None:
        self._data = data
        self._error = error

    async def read(self) -> bytes | None:
        return await self._data.read()

    async def write(self, data: bytes) -> None:
        await self._data.write(data)

    async def finish(self, problem: str) -> None:
        try:
            if problem:
                await self._error.write(problem.encode())
            await self._error.finish()
        finally:
            await self._data.finish()


async def _spdy(transport: Transport, relay: _Relay) -> None:
    """Serve a session: each pair of streams, `data` and `error` with the same `requestid`, is a connection."""
    session = Session(transport)
    serving = asyncio.create_task(session.run())
    waiting: dict[str, dict[str, Stream]] = {}
    connections: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    try:
        while (stream := await session.accept()) is not None:
            request, kind = stream.headers.get("requestid", ""), stream.headers.get("streamtype", "")
            port = _port(stream.headers.get("port", ""))
            pair = waiting.setdefault(request, {})
            if port is None or kind not in ("data", "error") or kind in pair:
                await session.reset(stream)
                continue
            pair[kind] = stream
            if len(pair) == 2:
                del waiting[request]
                task = asyncio.create_task(relay.run(port, _StreamPipe(pair["data"], pair["error"])))
            else:
                task = loop.create_task(_give_up(session, waiting, request, stream))
            connections.add(task)
            task.add_done_callback(connections.discard)
    finally:
        for task in tuple(connections):
            await stop_task(task)
        await stop_task(serving)


async def _give_up(session: Session, waiting: dict[str, dict[str, Stream]], request: str, stream: Stream) -> None:
    await asyncio.sleep(_PAIR_SECONDS)
    if stream in waiting.get(request, {}).values():
        del waiting[request]
        with contextlib.suppress(ConnectionError, SpdyError):
            await session.reset(stream)


def _port(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and 0 < int(text[:6]) < 65536 else None


# --- numbered channels


class _NumberedPipe:
    """Channels `2 * at` (data) and `2 * at + 1` (error) of a WebSocket."""

    def __init__(self, socket: web.WebSocketResponse, at: int) -> None:
        self._socket = socket
        self._data, self._error = bytes((2 * at,)), bytes((2 * at + 1,))
        self.arrived: asyncio.Queue[bytes | None] = asyncio.Queue(16)

    async def open(self, port: int) -> None:
        """Both channels begin with the port's number."""
        for channel in (self._data, self._error):
            await self._socket.send_bytes(channel + struct.pack("<H", port))

    async def read(self) -> bytes | None:
        return await self.arrived.get()

    async def write(self, data: bytes) -> None:
        await self._socket.send_bytes(self._data + data)

    async def finish(self, problem: str) -> None:
        if problem:
            await self._socket.send_bytes(self._error + problem.encode())


async def _numbered(socket: web.WebSocketResponse, ports: list[int], relay: _Relay) -> None:
    pipes = [_NumberedPipe(socket, at) for at in range(len(ports))]
    for port, pipe in zip(ports, pipes, strict=True):
        await pipe.open(port)
    reading = asyncio.create_task(_read_numbered(socket, pipes))
    running = [asyncio.create_task(relay.run(port, pipe)) for port, pipe in zip(ports, pipes, strict=True)]
    try:
        # Each port carries one connection; with the last of them the socket ends.
        ended = asyncio.gather(*running)
        await asyncio.wait((reading, ended), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (reading, *running):
            await stop_task(task)


async def _read_numbered(socket: web.WebSocketResponse, pipes: list[_NumberedPipe]) -> None:
    while True:
        message = await socket.receive()
        if message.type is WSMsgType.BINARY:
            data = bytes(message.data)
        elif message.type is WSMsgType.TEXT:
            data = message.data.encode()
        else:
            return
        # Clients write on data channels alone, and these have even numbers.
        if len(data) > 1 and data[0] % 2 == 0 and data[0] // 2 < len(pipes):
            await pipes[data[0] // 2].arrived.put(data[1:])


def _ports(query: Mapping[str, str]) -> list[int]:
    """The ports that a client of numbered channels names.

    Raises:
        StatusError: 400 naming the parameter.
    """
    text = query.get("ports", "")
    ports = [_port(part) for part in text.split(",")]
    valid = [port for port in ports if port is not None]
    if not text or len(valid) != len(ports) or len(ports) > _MOST_PORTS:
        raise bad_request(f"invalid value {text[:200]!r} of the parameter ports: must be up to {_MOST_PORTS} ports")
    return valid
