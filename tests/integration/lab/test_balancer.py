"""The balancer, between a client and masters that serve, die, or say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from kybern.cli.main import run
from kybern.daemon import Daemon
from lab.balancer import Balancer, Config
from tests.ports import free_port

PATIENCE = 15.0


class Master:
    """Answers `/readyz`, and every other line with its own name. One for each address of loopback."""

    def __init__(self, name: str, address: str, port: int, pki: Path) -> None:
        self.name = name
        self.address = address
        self._port = port
        self._pki = pki
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.ready = True

    async def start(self, *, silent: bool = False) -> None:
        """Serve; `silent` accepts connections, as the kernel does for a process that is stopped, and says nothing."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self._pki / "ca.crt"))
        context.load_cert_chain(self._pki / "master.crt", self._pki / "master.key")
        context.verify_mode = ssl.CERT_REQUIRED
        serve = self._say_nothing if silent else self._serve
        tls = None if silent else context
        self._server = await asyncio.start_server(serve, self.address, self._port, ssl=tls)

    async def stop(self, *, connections: bool = True) -> None:
        """Stop serving; connections that are left open stay silent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if connections:
            for writer in self._writers:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                ready = b"HTTP/1.1 200 OK\r\n" if self.ready else b"HTTP/1.1 503 Unavailable\r\n"
                writer.write(ready if line.startswith(b"GET /readyz") else f"{self.name}\n".encode())
                await writer.drain()
        writer.close()

    async def _say_nothing(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        await reader.read()
        writer.close()


class Setting:
    """Two masters behind a balancer, and how to ask through it."""

    def __init__(self, balancer: Balancer, masters: list[Master], port: int, context: ssl.SSLContext) -> None:
        self.balancer = balancer
        self.masters = masters
        self._port = port
        self._context = context

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection through the balancer."""
        return await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context, server_hostname="kubernetes")

    async def who(self) -> str:
        """Who answers a new connection."""
        reader, writer = await self.connect()
        try:
            return await ask(reader, writer)
        finally:
            writer.transport.abort()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the balancer to notice something."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - the balancer tells nobody
                await asyncio.sleep(0.02)

    def serving(self) -> set[str]:
        """Those that the balancer takes for serving."""
        return {b.name for b in self.balancer.backends if b.serving}


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    writer.write(b"who\n")
    async with asyncio.timeout(PATIENCE):
        return (await reader.readline()).decode().strip()


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    folder = tmp_path / "m1"
    where = ["--dir", str(folder), "--data-dir", str(tmp_path / "data")]
    assert run(["init", "--name", "m1", "--address", "127.0.0.1", *where]) == 0
    pki, port = folder / "pki", free_port()
    masters = [Master(name, f"127.0.1.{n}", port, pki) for n, name in ((1, "m1"), (2, "m2"))]
    config = Config(
        "127.0.0.1",
        [port],
        {m.name: m.address for m in masters},
        port,
        pki / "ca.crt",
        pki / "admin.crt",
        pki / "admin.key",
    )
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    for master in masters:
        await master.start()
    balancer, daemon = Balancer(config), Daemon("balancer")
    task = asyncio.create_task(balancer.run(daemon))
    made = Setting(balancer, masters, port, context)
    try:
        await made.until(lambda: made.serving() == {"m1", "m2"})
        yield made
    finally:
        daemon.stop()
        await task
        for master in masters:
            await master.stop()


async def test_connections_are_spread_over_all_masters(setting: Setting) -> None:
    first, second = await setting.connect(), await setting.connect()
    assert {await ask(*first), await ask(*second)} == {"m1", "m2"}
    for _, writer in (first, second):
        writer.transport.abort()


async def test_the_loss_of_a_master_costs_no_new_connection(setting: Setting) -> None:
    await setting.masters[0].stop()
    assert [await setting.who() for _ in range(4)] == ["m2"] * 4
    await setting.until(lambda: setting.serving() == {"m2"})
    await setting.masters[0].start()
    await setting.until(lambda: setting.serving() == {"m1", "m2"})


async def test_a_kept_connection_to_a_master_that_went_silent_is_ended(setting: Setting) -> None:
    kept = [await setting.connect(), await setting.connect()]
    names = [await ask(*connection) for connection in kept]
    lost = setting.masters[0]
    await lost.stop(connections=False)
    await lost.start(silent=True)
    await setting.until(lambda: setting.serving() == {"m2"})
    reader, writer = kept[names.index("m1")]
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b""
    assert await ask(*kept[names.index("m2")]) == "m2"
    for _, writer in kept:
        writer.transport.abort()


async def test_a_master_that_is_not_ready_gets_no_new_connections(setting: Setting) -> None:
    setting.masters[1].ready = False
    await setting.until(lambda: setting.serving() == {"m1"})
    assert [await setting.who() for _ in range(4)] == ["m1"] * 4


async def test_without_any_that_serves_the_last_ones_are_still_tried(setting: Setting) -> None:
    for master in setting.masters:
        master.ready = False
    await setting.until(lambda: setting.serving() == set())
    assert await setting.who() in ("m1", "m2")
