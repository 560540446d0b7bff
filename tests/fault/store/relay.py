"""TCP relays between members: what the network does to them.

A relay stands for one connection from the member that dials to the one that listens, and treats its two directions
separately. What is held up is delivered when it flows again, as TCP does after a loss; delay is added to every piece.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

HOST = "127.0.0.1"
_PIECE = 65536


class Link:
    """One direction: `flowing` or held up, and its delay in seconds."""

    def __init__(self) -> None:
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.delay = 0.0


class Relay:
    """Listens on a port of its own and connects on to `target` (host:port)."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.forth = Link()
        self.back = Link()
        self.address = ""

    async def listen(self) -> None:
        """Take a free port."""
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        port: int = self._server.sockets[0].getsockname()[1]
        self.address = f"{HOST}:{port}"

    async def close(self) -> None:
        """End all connections."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            # A connection needs both directions to come about.
            await self.forth.flowing.wait()
            await self.back.flowing.wait()
            far_reader, far = await asyncio.open_connection(*self._target)
            self._writers.add(far)
            async with asyncio.TaskGroup() as both:
                both.create_task(_carry(reader, far, self.forth))
                both.create_task(_carry(far_reader, writer, self.back))
        except (OSError, ExceptionGroup):
            pass
        finally:
            for end in (writer, far):
                if end is not None:
                    self._writers.discard(end)
                    end.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link) -> None:
    """Carry bytes one way until either end closes.

    Raises:
        ConnectionError: at the end, so that the other direction ends as well.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

    async def deliver() -> None:
        while True:
            due, piece = await pieces.get()
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            await link.flowing.wait()
            writer.write(piece)
            await writer.drain()
            if not piece:
                raise ConnectionError("closed")

    delivering = asyncio.create_task(deliver())
    try:
        while True:
            piece = await reader.read(_PIECE)
            await pieces.put((loop.time() + link.delay, piece))
            if not piece:
                await delivering
    finally:
        delivering.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await delivering


class Network:
    """A relay for every member and every other one that it may dial."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._relays = {(a, b): Relay(addresses[b]) for a in addresses for b in addresses if a != b}

    async def start(self) -> None:
        """Listen."""
        for relay in self._relays.values():
            await relay.listen()

    async def stop(self) -> None:
        """End all connections."""
        for relay in self._relays.values():
            await relay.close()

    def address(self, dialler: str, listener: str) -> str:
        """Where a member finds another."""
        return self._relays[dialler, listener].address

    def hold(self, sender: str, receiver: str) -> None:
        """Let nothing through from one member to another, whoever has dialled."""
        self._relays[sender, receiver].forth.flowing.clear()
        self._relays[receiver, sender].back.flowing.clear()

    def cut(self, one: str, other: str) -> None:
        """Let nothing through between two members."""
        self.hold(one, other)
        self.hold(other, one)

    def delay(self, seconds: float) -> None:
        """Delay everything."""
        for relay in self._relays.values():
            relay.forth.delay = relay.back.delay = seconds

    def heal(self) -> None:
        """Let everything through at once."""
        self.delay(0.0)
        for relay in self._relays.values():
            relay.forth.flowing.set()
            relay.back.flowing.set()
