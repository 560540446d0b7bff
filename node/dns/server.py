"""The cluster DNS server of a node: UDP and TCP on port 53 of one address."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from typing import cast

from kybern.backoff import Backoff
from node.dns import wire
from node.dns.records import Rcode
from node.dns.responder import Responder

log = logging.getLogger(__name__)

# Connections at once, and seconds that one may be idle; a client that needs more connects again.
MAX_CONNECTIONS = 256
IDLE = 10.0
# Questions over UDP that wait for somebody else's answer; more are refused rather than kept in memory.
MAX_WAITING = 4000

# linux/in.h: bind before the address is on an interface (the bridge may be made later than this server).
_IP_FREEBIND = 15
# Bursts of questions wait here while the loop does something else.
_RECEIVE_BUFFER = 1 << 20


class DnsServer:
    """Run it in a task; `ready` is set once it listens."""

    def __init__(self, responder: Responder, host: str, port: int = 53) -> None:
        self.ready = asyncio.Event()
        self._responder = responder
        self._host = host
        self._port = port
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until cancelled; a port that is taken is tried again."""
        backoff = Backoff(base=0.5, cap=10.0)
        while True:
            try:
                udp, tcp = self._bind()
            except OSError as error:
                wait = backoff.next()
                log.warning(
                    "cannot serve DNS on %s:%d: %s; trying again in %.1f s", self._host, self._port, error, wait
                )
                await asyncio.sleep(wait)
                continue
            await self._serve(udp, tcp)

    async def _serve(self, udp: socket.socket, tcp: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Udp(self), sock=udp)
        server = await asyncio.start_server(self._connected, sock=tcp)
        log.info("cluster DNS on %s:%d", self._host, self._port)
        self.ready.set()
        try:
            await server.serve_forever()
        finally:
            self.ready.clear()
            transport.close()
            server.close()
            for task in list(self._tasks):
                task.cancel()

    def _bind(self) -> tuple[socket.socket, socket.socket]:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            for sock in (udp, tcp):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
                sock.bind((self._host, self._port))
            tcp.listen(128)
        except OSError:
            udp.close()
            tcp.close()
            raise
        return udp, tcp

    # --- UDP

    def received(self, data: bytes, client: tuple[str, int], transport: asyncio.DatagramTransport) -> None:
        """Answer a packet, now or later."""
        answer = self._responder.answer_now(data, tcp=False)
        if isinstance(answer, bytes):
            transport.sendto(answer, client)
        elif answer is not None and len(self._tasks) >= MAX_WAITING:
            transport.sendto(wire.refuse(answer, Rcode.SERVFAIL), client)
        elif answer is not None:
            task = asyncio.create_task(self._later(answer, client, transport))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _later(self, query: wire.Query, client: tuple[str, int], transport: asyncio.DatagramTransport) -> None:
        answer = await self._answer(query, tcp=False)
        if not transport.is_closing():
            transport.sendto(answer, client)

    async def _answer(self, query: wire.Query, *, tcp: bool) -> bytes:
        try:
            return await self._responder.answer_later(query, tcp=tcp)
        except Exception:
            log.exception("no answer for %s", ".".join(query.name))
            return wire.refuse(query, Rcode.SERVFAIL)

    # --- TCP

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections += 1
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                await self._converse(reader, writer)
        finally:
            self._connections -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(IDLE):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                data = await reader.readexactly(length)
            answer = self._responder.answer_now(data, tcp=True)
            if answer is None:
                return
            if isinstance(answer, wire.Query):
                answer = await self._answer(answer, tcp=True)
            writer.write(struct.pack("!H", len(answer)) + answer)
            async with asyncio.timeout(IDLE):
                await writer.drain()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            try:
                self._server.received(data, addr, self._transport)
            except Exception:
                # A packet must not end the server; that it can fail at all is a fault worth seeing.
                log.exception("a DNS packet of %d bytes from %s could not be answered", len(data), addr[0])
