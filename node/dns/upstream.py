"""Questions that are not the cluster's: handed to the name servers that this host uses.

A question that is under way is asked once, however many clients wait for it; so a server that forwards to us in turn
waits for itself until the time is up, and no packet goes round.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import NamedTuple, cast

from kybern.clock import Clock
from node.dns import wire
from node.dns.cache import ForwardCache
from node.dns.records import Rcode

log = logging.getLogger(__name__)

# Stub resolvers ask again after 5 s: an answer later than that is of no use.
TOTAL_TIMEOUT = 4.5
UDP_TIMEOUT = 1.5
TCP_TIMEOUT = 3.0
# Questions to upstreams under way at once; more are refused at once rather than queued until nobody waits for them.
MAX_PENDING = 1000
# For how long a server that did not answer is asked last.
PENALTY = 10.0

_RELOAD = 5.0
_RESOLV_CONF = Path("/etc/resolv.conf")


class Server(NamedTuple):
    """A name server."""

    host: str
    port: int = 53

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_server(text: str) -> Server:
    """`192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1` or `[2001:db8::1]:5353`.

    Raises:
        ValueError: when the host is not an address, or the port not a port.
    """
    host, port = text, "53"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        host, port = text.split(":")
    ip_address(host.split("%", 1)[0])
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: {port!r} is not a port")
    return Server(host, int(port))


class Upstreams:
    """The name servers to ask: the configured ones, or those of resolv.conf, which is read again when it changes."""

    def __init__(
        self, configured: Sequence[str], own: IPv4Address, clock: Clock, resolv_conf: Path = _RESOLV_CONF
    ) -> None:
        self._own = str(own)
        self._clock = clock
        self._path = resolv_conf
        self._fixed = [parse_server(text) for text in configured]
        self._read: list[Server] = []
        self._checked: float | None = None
        self._bad: dict[Server, float] = {}

    def current(self) -> list[Server]:
        """The servers in the order in which to ask them; never this one itself."""
        now = self._clock.monotonic()
        servers = self._fixed or self._from_file(now)
        usable = [s for s in servers if s.host != self._own]
        return sorted(usable, key=lambda s: self._bad.get(s, 0.0) > now)

    def failed(self, server: Server) -> None:
        """The server did not answer: ask it last for a while."""
        now = self._clock.monotonic()
        if self._bad.get(server, 0.0) <= now:
            log.warning("the name server %s does not answer", server)
        self._bad[server] = now + PENALTY

    def answered(self, server: Server) -> None:
        """The server answered."""
        self._bad.pop(server, None)

    def _from_file(self, now: float) -> list[Server]:
        if self._checked is None or now - self._checked >= _RELOAD:
            self._checked = now
            self._read = parse_resolv_conf(self._path)
        return self._read


def parse_resolv_conf(path: Path) -> list[Server]:
    """The name servers of a resolv.conf; none when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        log.warning("cannot read %s: %s", path, error.strerror)
        return []
    servers = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                servers.append(parse_server(words[1]))
            except ValueError:
                log.warning("%s: %r is not the address of a name server", path, words[1])
    return servers


class Forwarder:
    """Asks upstream servers, over the transport that the client used, and keeps what they said for a while."""

    def __init__(self, upstreams: Upstreams, clock: Clock) -> None:
        self._upstreams = upstreams
        self._caches = {tcp: ForwardCache(clock) for tcp in (False, True)}
        self._pending: dict[tuple[bool, bytes], asyncio.Future[bytes | None]] = {}

    def cached(self, query: bytes, *, tcp: bool) -> bytes | None:
        """The answer, if it is known."""
        found = self._caches[tcp].get(query[2:])
        return None if found is None else query[:2] + found

    async def ask(self, query: bytes, *, tcp: bool) -> bytes | None:
        """The answer of an upstream server to a query packet; None when nobody answered in time."""
        if (known := self.cached(query, tcp=tcp)) is not None:
            return known
        key = (tcp, query[2:])
        pending = self._pending.get(key)
        if pending is not None:
            answer = await asyncio.shield(pending)
        elif len(self._pending) >= MAX_PENDING:
            return None
        else:
            answer = await self._lead(key, query, tcp=tcp)
        return None if answer is None else query[:2] + answer[2:]

    async def _lead(self, key: tuple[bool, bytes], query: bytes, *, tcp: bool) -> bytes | None:
        future = self._pending[key] = asyncio.get_running_loop().create_future()
        answer: bytes | None = None
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT):
                answer = await self._ask_all(query, tcp=tcp)
        except TimeoutError:
            pass
        finally:
            del self._pending[key]
            future.set_result(answer)
        if answer is not None:
            self._caches[tcp].put(query[2:], answer)
        return answer

    async def _ask_all(self, query: bytes, *, tcp: bool) -> bytes | None:
        """Every server once, and then once more: a UDP packet may just have been lost."""
        failure: bytes | None = None
        for _ in range(2):
            for server in self._upstreams.current():
                # An id of our own, hard to guess: the client's may be counted up.
                packet = secrets.token_bytes(2) + query[2:]
                try:
                    answer = await (_ask_tcp if tcp else _ask_udp)(server, packet)
                except (OSError, TimeoutError, asyncio.IncompleteReadError):
                    self._upstreams.failed(server)
                    continue
                self._upstreams.answered(server)
                if wire.rcode_of(answer) not in (Rcode.SERVFAIL, Rcode.REFUSED):
                    return answer
                failure = answer
            if failure is not None:
                return failure
        return None


class _UdpQuestion(asyncio.DatagramProtocol):
    """Waits for the answer to one packet; what does not answer it is somebody's guess."""

    def __init__(self, packet: bytes) -> None:
        self._packet = packet
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send."""
        cast(asyncio.DatagramTransport, transport).sendto(self._packet)

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Take the answer."""
        if wire.is_answer_to(self._packet, data) and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there."""
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _ask_udp(server: Server, packet: bytes) -> bytes:
    # A socket of its own for every question: its port is half of what an answer must match.
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _UdpQuestion(packet), remote_addr=(server.host, server.port)
    )
    try:
        async with asyncio.timeout(UDP_TIMEOUT):
            return await protocol.answer
    finally:
        transport.close()


async def _ask_tcp(server: Server, packet: bytes) -> bytes:
    async with asyncio.timeout(TCP_TIMEOUT):
        reader, writer = await asyncio.open_connection(server.host, server.port)
        try:
            writer.write(struct.pack("!H", len(packet)) + packet)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            answer = await reader.readexactly(length)
        finally:
            writer.close()
    if not wire.is_answer_to(packet, answer):
        raise OSError("the answer is one to another question")
    return answer
