"""Connections to the other members: mTLS over TCP, one connection per pair of members.

Of two members the one whose name sorts first dials. A peer is who its certificate says it is: CN is the member's name,
O must hold `kybern:store`, and the member must be in the configuration. A connection on which nothing comes for too
long is closed and dialled again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from typing import Protocol

from kybern.backoff import Backoff
from kybern.clock import Clock
from kybern.config.models import StoreConfig, Tls
from kybern.daemon import StartupError
from kybern.pki import Identity, check_files
from store.raft.connection import GROUP_MEMBERS, Connection
from store.raft.messages import PROTOCOL, Hello, Message

log = logging.getLogger(__name__)

_DIAL_TIMEOUT = 3.0


class Listener(Protocol):
    """Who gets the messages. Called on the loop."""

    def on_connected(self, peer: str) -> None:
        """The peer can be sent to."""
        ...

    def on_disconnected(self, peer: str) -> None:
        """It cannot any more."""
        ...

    def on_message(self, peer: str, message: Message) -> None:
        """A message of the peer; InvalidMessage closes the connection."""
        ...

    def on_drained(self, peer: str) -> None:
        """The peer took what waited for it."""
        ...


class Transport(Protocol):
    """What the node needs of a transport: messages may be lost, but none arrives twice."""

    async def start(self, listener: Listener) -> None:
        """Listen and dial. StartupError when the address or the certificates cannot be used."""
        ...

    async def stop(self) -> None:
        """Close all connections."""
        ...

    def send(self, peer: str, message: Message) -> bool:
        """Send; False when there is no connection or too much waits already."""
        ...


class TlsTransport:
    """The transport of a real member."""

    def __init__(self, config: StoreConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._now = clock.monotonic
        self._hello = Hello(config.cluster_name, config.name, PROTOCOL)
        self._peers = [name for name in config.members if name != config.name]
        # Idle times in seconds: when to show that we are there, and when a silent peer is given up.
        self._ping_after = config.election_timeout_min / 2
        self._dead_after = 2 * config.election_timeout_max
        self._open: dict[str, Connection] = {}
        self._all: set[Connection] = set()
        self._listener: Listener | None = None
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False

    async def start(self, listener: Listener) -> None:
        """Listen on the peer address, dial the members that sort after this one.

        Raises:
            StartupError: when the address cannot be listened on or a certificate file cannot be used.
        """
        self._listener = listener
        self._check_certificate()
        server_context, _ = _contexts(self._config.tls)
        host, port = _split(self._config.peer_address)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._connection, host, port, ssl=server_context, ssl_handshake_timeout=_DIAL_TIMEOUT
            )
        except OSError as error:
            raise StartupError(
                f"cannot listen on the peer address {host}:{port}: {error.strerror or error}", retry=True
            ) from error
        self._tasks = [
            loop.create_task(self._dial(name), name=f"raft-dial-{name}")
            for name in self._peers
            if name > self._config.name
        ]
        self._tasks.append(loop.create_task(self._watch(), name="raft-connections"))

    async def stop(self) -> None:
        """Close the listening socket and all connections."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._server is not None:
            self._server.close()
        ending = list(self._all)
        for connection in ending:
            connection.close()
        # Until the sockets are closed, so that the loop can end and the address can be listened on again.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DIAL_TIMEOUT):
                for connection in ending:
                    await connection.gone.wait()
                if self._server is not None:
                    await self._server.wait_closed()

    def send(self, peer: str, message: Message) -> bool:
        """Send to a member; False when there is no connection or too much waits already."""
        connection = self._open.get(peer)
        return connection is not None and connection.send(message)

    # --- connections' owner

    def made(self, connection: Connection) -> None:
        """Keep an eye on a new connection."""
        self._all.add(connection)

    def accepts(self, identity: Identity, hello: Hello, expected: str) -> str | None:
        """Why a peer is not let in; None when it is."""
        if GROUP_MEMBERS not in identity.groups:
            return f"the certificate of {identity.name!r} is not a store member's (O={GROUP_MEMBERS})"
        if identity.name != hello.name or hello.name not in self._peers:
            return f"the certificate's {identity.name!r}, which calls itself {hello.name!r}, is not another member"
        if expected and hello.name != expected:
            return f"{hello.name} answers where {expected} was dialled"
        if hello.cluster != self._config.cluster_name:
            return f"{hello.name} belongs to the cluster {hello.cluster!r}, not {self._config.cluster_name!r}"
        if hello.protocol != PROTOCOL:
            return f"{hello.name} speaks protocol {hello.protocol}, this member {PROTOCOL}"
        return None

    def opened(self, connection: Connection) -> None:
        """A peer is there; a second connection of the same peer takes the place of the first."""
        peer = connection.peer
        old = self._open.pop(peer, None)
        if old is not None:
            old.close()
            self._notify(lambda listener: listener.on_disconnected(peer))
        self._open[peer] = connection
        log.info("connected with %s", peer)
        self._notify(lambda listener: listener.on_connected(peer))

    def received(self, connection: Connection, message: Message) -> None:
        """Pass a message on."""
        # What an earlier connection still holds is of no use any more.
        if self._open.get(connection.peer) is connection and self._listener is not None:
            self._listener.on_message(connection.peer, message)

    def drained(self, connection: Connection) -> None:
        """Tell that there is room again."""
        if self._open.get(connection.peer) is connection:
            self._notify(lambda listener: listener.on_drained(connection.peer))

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._all.discard(connection)
        peer = connection.peer
        if peer and self._open.get(peer) is connection:
            del self._open[peer]
            log.info("lost the connection with %s", peer)
            self._notify(lambda listener: listener.on_disconnected(peer))

    def _check_certificate(self) -> None:
        tls = self._config.tls
        identity = check_files(tls.cert, tls.key, tls.ca, self._clock.now())
        if identity.name != self._config.name or GROUP_MEMBERS not in identity.groups:
            groups = ", ".join(identity.groups) or "no group"
            raise StartupError(
                f"the certificate {tls.cert} is that of {identity.name!r} ({groups}), "
                f"not of the store member {self._config.name!r} ({GROUP_MEMBERS})"
            )

    def _connection(self, expected: str = "") -> Connection:
        return Connection(self, self._hello, self._now, expected)

    def _notify(self, call: Callable[[Listener], None]) -> None:
        if self._listener is not None and not self._stopped:
            call(self._listener)

    async def _dial(self, peer: str) -> None:
        """Keep a connection to one peer."""
        backoff = Backoff(base=0.1, cap=1.0)
        host, port = _split(self._config.members[peer])
        loop = asyncio.get_running_loop()
        complained = False
        while True:
            try:
                # Read again each time: certificates are renewed while the member runs.
                _, context = _contexts(self._config.tls)
                async with asyncio.timeout(_DIAL_TIMEOUT):
                    _, connection = await loop.create_connection(
                        lambda: self._connection(peer), host, port, ssl=context
                    )
            except (OSError, StartupError) as error:
                if not complained:
                    text = str(error) or type(error).__name__
                    log.warning("cannot reach %s at %s:%d and will go on trying: %s", peer, host, port, text)
                    complained = True
            else:
                await connection.gone.wait()
                if connection.peer:
                    backoff.reset()
                    complained = False
            await asyncio.sleep(backoff.next())

    async def _watch(self) -> None:
        """Ping idle connections and close dead ones."""
        while True:
            await asyncio.sleep(self._ping_after / 2)
            now = self._now()
            for connection in list(self._all):
                if connection.peer:
                    connection.ping(self._ping_after)
                if now - connection.heard > self._dead_after:
                    connection.close(f"nothing came for {now - connection.heard:.1f} s")


def _contexts(tls: Tls) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts for listening and for dialling; both demand a certificate of the store's authority."""
    contexts = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # The name in the certificate is the member's, not its host's: `accepts` compares it.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(tls.cert, tls.key)
            context.load_verify_locations(tls.ca)
        except (OSError, ssl.SSLError) as error:
            raise StartupError(f"cannot use the certificate files {tls.cert}, {tls.key}, {tls.ca}: {error}") from error
        contexts.append(context)
    return contexts[0], contexts[1]


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    try:
        return host.strip("[]"), int(port)
    except ValueError:
        raise StartupError(f"{address!r} is not an address of the form host:port") from None
