"""One connection between two members: frames of a 4-byte length and a message, a Hello first, a bounded buffer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from kybern.pki import Identity, identity_of_der
from store.raft import messages
from store.raft.messages import LENGTH, Hello, InvalidMessage, Message, Parting, Ping

# Before a peer has said who it is, it may send no more than that.
_MAX_HELLO_BYTES = 4096
# From here on, to copy a message costs more than to write twice.
_LARGE = 64 << 10
# Bytes that come in many small parts are put together earlier.
_MAX_PARTS = 512
# What may wait for a peer; more is not taken, and Raft sends it again.
MAX_BUFFERED_BYTES = 4 << 20

GROUP_MEMBERS = "kybern:store"


class Owner(Protocol):
    """Whose connections these are."""

    def made(self, connection: Connection) -> None:
        """TLS is established; nothing is known of the peer but its certificate's authority."""
        ...

    def ending(self, who: str, reason: str) -> None:
        """This side ends the connection with a member, or with somebody at an address: to be logged."""
        ...

    def accepts(self, identity: Identity, hello: Hello, expected: str) -> str | None:
        """Why the peer is not let in; None when it is."""
        ...

    def last_word(self, identity: Identity, hello: Hello) -> Message | None:
        """What a peer that is not let in is told; None when nothing."""
        ...

    def may_know_better(self, identity: Identity, hello: Hello) -> bool:
        """Whether a peer that is not let in may have a last word for this side."""
        ...

    def told(self, peer: str, word: Parting) -> None:
        """The last word of a peer that was not let in."""
        ...

    def opened(self, connection: Connection) -> None:
        """The peer is known and said hello."""
        ...

    def received(self, connection: Connection, message: Message) -> None:
        """A message came; InvalidMessage closes the connection."""
        ...

    def drained(self, connection: Connection) -> None:
        """There is room again for what was refused."""
        ...

    def closed(self, connection: Connection) -> None:
        """The connection is gone; called once, also for one that was never opened."""
        ...


class Connection(asyncio.Protocol):
    """Either side of a connection. `peer` is the other member's name once its certificate and Hello were accepted.

    `expected`: whom this side dialled; empty on the side that was dialled.
    """

    def __init__(self, owner: Owner, hello: Hello, now: Callable[[], float], expected: str = "") -> None:
        self._owner = owner
        self._expected = expected
        self.gone = asyncio.Event()
        self._hello = hello
        self._now = now
        self._transport: asyncio.Transport | None = None
        self._identity = Identity("")
        # Of a frame that is not whole, which is put together once, and how many bytes of it are still to come.
        self._parts: list[bytes] = []
        self._missing = 0
        self._refused = False
        # Who was not let in, and may yet say why it does not let this side in.
        self._turned_away = ""
        self.peer = ""
        # What the peer said of itself; its name is that of its certificate.
        self.hello = Hello("", "", 0)
        self.heard = self.sent = now()

    # --- towards the owner

    def send(self, message: Message) -> bool:
        """Send unless the peer is too slow; False when the message was not taken."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if transport.get_write_buffer_size() > MAX_BUFFERED_BYTES:
            self._refused = True
            return False
        data = messages.encode(message)
        length = LENGTH.pack(len(data))
        if len(data) < _LARGE:
            transport.write(length + data)
        else:
            transport.write(length)
            transport.write(data)
        self.sent = self._now()
        return True

    def ping(self, idle: float) -> None:
        """Send a ping when nothing was sent for `idle` seconds."""
        if self._now() - self.sent >= idle:
            self.send(Ping())

    def close(self, reason: str = "") -> None:
        """Close at once; the reason is logged."""
        if self._transport is not None:
            if reason and not self._transport.is_closing():
                self._owner.ending(self.peer or self._remote(), reason)
            self._transport.abort()

    def part(self, reason: str, last_word: Message | None = None) -> None:
        """Close once the peer has taken what was sent; nothing that comes from it counts any more."""
        if self._transport is None or self._transport.is_closing():
            return
        self._owner.ending(self.peer or self._remote(), reason)
        if last_word is not None:
            self.send(last_word)
        self._transport.close()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS is done: see who it is and say hello."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=MAX_BUFFERED_BYTES)
        tls = transport.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        if not der:
            self.close("it showed no certificate")
            return
        self._identity = identity_of_der(der)
        if GROUP_MEMBERS not in self._identity.groups:
            # Before the hello: who is no member learns no name.
            self.close(f"the certificate of {self._identity.name!r} is not a store member's (O={GROUP_MEMBERS})")
            return
        self._owner.made(self)
        self.send(self._hello)

    def data_received(self, data: bytes) -> None:
        """Take frames out of what came."""
        self.heard = self._now()
        if self._parts:
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing > 0 and len(self._parts) < _MAX_PARTS:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        try:
            at, self._missing = self._take(data)
        except InvalidMessage as error:
            self.close(f"not a valid frame: {error}")
            return
        if at < len(data):
            self._parts.append(data[at:])

    def _take(self, data: bytes) -> tuple[int, int]:
        """Dispatch the frames that are there; where the first that is not whole begins, and how much of it is missing.

        Raises:
            InvalidMessage: when it is not what a member sends.
        """
        at, view = 0, memoryview(data)
        while len(data) - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data, at)
            if length > (messages.MAX_FRAME_BYTES if self.peer else _MAX_HELLO_BYTES):
                raise InvalidMessage(f"a frame of {length} bytes")
            end = at + LENGTH.size + length
            if len(data) < end:
                return at, end - len(data)
            message = messages.decode(view[at + LENGTH.size : end])
            at = end
            self._dispatch(message)
            if self._transport is None or self._transport.is_closing():
                return len(data), 0
        return at, LENGTH.size - (len(data) - at)

    def resume_writing(self) -> None:
        """The buffer is empty enough again."""
        if self._refused:
            self._refused = False
            self._owner.drained(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._transport = None
        self.gone.set()
        self._owner.closed(self)

    def _dispatch(self, message: Message) -> None:
        if self._turned_away:
            if isinstance(message, Parting):
                self._owner.told(self._turned_away, message)
            self.close()
        elif not self.peer:
            if not isinstance(message, Hello):
                raise InvalidMessage("the first message is not a hello")
            reason = self._owner.accepts(self._identity, message, self._expected)
            if reason is not None:
                last_word = self._owner.last_word(self._identity, message)
                if last_word is not None:
                    self.part(reason, last_word)
                elif self._owner.may_know_better(self._identity, message):
                    self._owner.ending(self._remote(), reason)
                    self._turned_away = message.name
                else:
                    self.close(reason)
                return
            self.peer, self.hello = message.name, message
            self._owner.opened(self)
        elif isinstance(message, Hello):
            raise InvalidMessage("a second hello")
        elif not isinstance(message, Ping):
            self._owner.received(self, message)

    def _remote(self) -> str:
        """The peer's host, without the port: that is another one each time."""
        address = self._transport.get_extra_info("peername") if self._transport is not None else None
        return str(address[0]) if address else "a peer"
