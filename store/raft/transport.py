"""Connections to the other members: mTLS over TCP, one connection per pair of members.

Of two members the one whose name sorts first dials; the other one only when that has not happened for long, and while
it is not a member yet. One that is awaited, and has not come for long, is dialled by all. A peer is who its certificate
says it is: CN is the member's name, O must hold `kybern:store`, and the group must know the name, or await somebody at
the peer's address. A connection on which nothing comes for too long is closed and dialled again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kybern.backoff import Backoff
from kybern.clock import Clock
from kybern.config.models import StoreConfig
from kybern.daemon import StartupError
from kybern.logs import Seldom
from kybern.pki import Identity, check_files
from kybern.tls import client_context, server_context
from store.raft.admittance import Admittance
from store.raft.configuration import Configuration
from store.raft.connection import GROUP_MEMBERS, Connection
from store.raft.messages import PROTOCOL, Hello, LastWord, Message, Ping
from store.raft.standing import Standing, Standings, voted

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

    async def start(self, listener: Listener, directory_id: int, standings: Standings, level: int = 1) -> None:
        """Listen and dial, with a data directory of this id; who stands behind where it stood is not let in.

        `level`: the highest that this member can apply.

        Raises:
            StartupError: when the address or the certificates cannot be used.
        """
        ...

    async def stop(self) -> None:
        """Close all connections."""
        ...

    def send(self, peer: str, message: Message) -> bool:
        """Send; False when there is no connection or too much waits already."""
        ...

    def configure(
        self,
        own_id: int,
        *configurations: Configuration,
        behind: bool = False,
        leads: bool = False,
        level: int = 1,
    ) -> None:
        """Be connected with the members of any of these, and nobody else; while they have none, with the file's.

        `own_id`: this member's, 0 while it is not known. `behind`: there may be members that were added since, so
        others of the store are let in unless they are known to have been removed. `leads`: this member does. `level`:
        the group's, which who is let in must be able to apply.
        """
        ...

    def hello(self, peer: str) -> Hello | None:
        """What a peer that is connected said of itself."""
        ...


@dataclass(slots=True)
class _Dialled:
    """A member that this one keeps a connection with."""

    address: str
    task: asyncio.Task[None]


class TlsTransport:
    """The transport of a real member."""

    def __init__(self, config: StoreConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._now = clock.monotonic
        # This member's id, 0 until it is known, and that of its data directory.
        self._id = self._directory_id = 0
        self._level = 1
        self._admittance = Admittance(config)
        self._standings = Standings()
        # Seconds: how often to show that we are there, and after which silence a peer is given up.
        self._ping_every = config.election_timeout_min / 2
        self._dead_after = 2 * config.election_timeout_max
        self._open: dict[str, Connection] = {}
        # In an order, so that a simulation of this is the same each time.
        self._all: dict[Connection, None] = {}
        self._listener: Listener | None = None
        self._server: asyncio.Server | None = None
        self._watching: asyncio.Task[None] | None = None
        self._dialled: dict[str, _Dialled] = {}
        self._endings = Seldom(clock.monotonic)
        self._stopped = False

    async def start(self, listener: Listener, directory_id: int, standings: Standings, level: int = 1) -> None:
        """Listen on the peer address, dial the members that sort after this one.

        Raises:
            StartupError: when the address cannot be listened on or a certificate file cannot be used.
        """
        self._listener, self._standings = listener, standings
        self._directory_id, self._level = directory_id, level
        self._check_certificate()
        context = server_context(self._config.tls, clock=self._clock)
        host, port = _split(self._config.peer_address)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._connection, host, port, ssl=context, ssl_handshake_timeout=_DIAL_TIMEOUT
            )
        except OSError as error:
            raise StartupError(
                f"cannot listen on the peer address {host}:{port}: {error.strerror or error}", retry=True
            ) from error
        self._watching = loop.create_task(self._watch(), name="raft-connections")
        self._keep_dialling()

    async def stop(self) -> None:
        """Close the listening socket and all connections."""
        self._stopped = True
        tasks = [dialled.task for dialled in self._dialled.values()]
        tasks += [self._watching] if self._watching is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
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

    def configure(
        self,
        own_id: int,
        *configurations: Configuration,
        behind: bool = False,
        leads: bool = False,
        level: int = 1,
    ) -> None:
        """Be connected with the members of any of these, and nobody else; while they have none, with the file's."""
        self._id = own_id
        if not self._admittance.configure(configurations, behind=behind, leads=leads, level=level):
            return
        for name, connection in list(self._open.items()):
            if (reason := self._admittance.parting(connection.hello)) is not None:
                connection.part(reason)
                del self._open[name]
                self._notify(lambda listener, name=name: listener.on_disconnected(name))  # type: ignore[misc]
        if self._watching is not None and not self._stopped:
            self._keep_dialling()

    def hello(self, peer: str) -> Hello | None:
        """What a peer that is connected said of itself."""
        connection = self._open.get(peer)
        return connection.hello if connection is not None else None

    # --- connections' owner

    def ending(self, who: str, reason: str) -> None:
        """Say why a connection is ended: not each time, for who is refused comes again within a second."""
        text = f"closing the connection with {who}: {reason}"
        log.log(self._endings.level(text), "%s", text)

    def made(self, connection: Connection) -> None:
        """Keep an eye on a new connection; one whose handshake was under way when this member left ends with that."""
        self._all[connection] = None
        if self._stopped:
            connection.close()

    def accepts(self, identity: Identity, hello: Hello, expected: str) -> str | None:
        """Why a peer is not let in; None when it is."""
        return self._admittance.refusal(identity, hello, expected, self._stood(hello))

    def last_word(self, identity: Identity, hello: Hello) -> Message | None:
        """What a peer that is not let in should know before the connection ends."""
        return self._admittance.last_word(identity, hello, self._stood(hello))

    def may_know_better(self, identity: Identity, hello: Hello) -> bool:
        """Whether a peer that is not let in may have a last word for this member."""
        return self._admittance.may_know_better(identity, hello)

    def told(self, peer: str, word: LastWord) -> None:
        """Pass on the last word of a peer that was not let in."""
        self._notify(lambda listener: listener.on_message(peer, word))

    def opened(self, connection: Connection) -> None:
        """A peer is there; a second connection of the same peer takes the place of the first."""
        peer = connection.peer
        old = self._open.pop(peer, None)
        if old is not None:
            old.close()
            self._notify(lambda listener: listener.on_disconnected(peer))
        self._open[peer] = connection
        hello = connection.hello
        self._standings.heard(peer, hello.directory_id, voted(hello.standing))
        log.info("connected with %s", peer)
        self._notify(lambda listener: listener.on_connected(peer))

    def received(self, connection: Connection, message: Message) -> None:
        """Pass a message on."""
        # What an earlier connection still holds is of no use any more.
        if self._open.get(connection.peer) is not connection or self._listener is None:
            return
        if isinstance(message, Ping):
            self._standings.heard(connection.peer, connection.hello.directory_id, message.standing)
        else:
            self._listener.on_message(connection.peer, message)

    def drained(self, connection: Connection) -> None:
        """Tell that there is room again."""
        if self._open.get(connection.peer) is connection:
            self._notify(lambda listener: listener.on_drained(connection.peer))

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._all.pop(connection, None)
        peer = connection.peer
        if peer and self._open.get(peer) is connection:
            self._standings.note(peer, connection.hello.directory_id)
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

    def _stood(self, hello: Hello) -> Standing:
        """Where the member that a hello is of, stood when it was heard last."""
        connection = self._open.get(hello.name)
        if connection is not None:
            self._standings.note(hello.name, connection.hello.directory_id)
        return self._standings.of(hello.name, hello.directory_id)

    def _connection(self, expected: str = "") -> Connection:
        return Connection(self, self._hello, self._now, expected)

    def _hello(self) -> Hello:
        config = self._config
        return Hello(
            config.cluster_name,
            config.name,
            PROTOCOL,
            self._id,
            config.peer_address,
            config.client_address,
            self._admittance.group,
            self._directory_id,
            self._standings.holds(),
            self._level,
        )

    def _keep_dialling(self) -> None:
        """A task for each peer at its address."""
        loop = asyncio.get_running_loop()
        # Who is awaited, and has an address for a name, dials those that its file names: the leader need not be one.
        awaited = self._admittance.awaited - {self._config.peer_address}
        wanted = self._admittance.peers | {address: address for address in sorted(awaited)}
        for name, dialled in list(self._dialled.items()):
            if wanted.get(name) != dialled.address:
                dialled.task.cancel()
                del self._dialled[name]
        for name, address in wanted.items():
            if name not in self._dialled:
                task = loop.create_task(self._dial(name, address), name=f"raft-dial-{name}")
                self._dialled[name] = _Dialled(address, task)

    def _notify(self, call: Callable[[Listener], None]) -> None:
        if self._listener is not None and not self._stopped:
            call(self._listener)

    async def _until_missed(self, peer: str, expected: str) -> None:
        """Wait until there is no connection with the peer, and it is this member's turn to make one."""
        while True:
            joins = not self._id and self._config.initial_state == "existing"
            connection = self._with(peer)
            if connection is not None:
                await connection.gone.wait()
            elif expected and (expected > self._config.name or joins):
                return
            else:
                await asyncio.sleep(self._dead_after + _DIAL_TIMEOUT)
                if self._with(peer) is None:
                    return

    def _with(self, peer: str) -> Connection | None:
        """The connection with a peer, which may be known by its address alone."""
        by_address = (open_ for open_ in self._open.values() if open_.hello.peer_address == peer)
        return self._open.get(peer) or next(by_address, None)

    async def _dial(self, peer: str, address: str) -> None:
        """Keep a connection to one peer: of that name, or to whoever is awaited there when that is its address."""
        expected = peer if peer != address else ""
        backoff = Backoff(base=0.1, cap=1.0)
        host, port = _split(address)
        loop = asyncio.get_running_loop()
        complained = False
        while True:
            await self._until_missed(peer, expected)
            try:
                # Read again each time: certificates are renewed while the member runs.
                context = client_context(self._config.tls)
                async with asyncio.timeout(_DIAL_TIMEOUT):
                    _, connection = await loop.create_connection(
                        lambda: self._connection(expected), host, port, ssl=context
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
        """Ping all that are connected, and close dead connections."""
        while True:
            await asyncio.sleep(self._ping_every / 2)
            now = self._now()
            for connection in list(self._all):
                if connection.peer:
                    connection.ping(self._ping_every, self._standings.vouches)
                if now - connection.heard > self._dead_after:
                    connection.close(f"nothing came for {now - connection.heard:.1f} s")


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    try:
        return host.strip("[]"), int(port)
    except ValueError:
        raise StartupError(f"{address!r} is not an address of the form host:port") from None
