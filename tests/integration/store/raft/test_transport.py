"""Who is let in, and what becomes of frames that no member sends."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kybern.clock import SystemClock
from kybern.config.models import StoreConfig, Tls
from kybern.daemon import StartupError
from store.raft import messages
from store.raft.messages import Hello, Message
from store.raft.transport import TlsTransport
from tests.integration.store.raft.cluster import authority, configurations, issue, until


class Listening:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.messages: list[Message] = []

    def on_connected(self, peer: str) -> None:
        self.events.append(f"+{peer}")

    def on_disconnected(self, peer: str) -> None:
        self.events.append(f"-{peer}")

    def on_message(self, peer: str, message: Message) -> None:
        if isinstance(message, messages.TimeoutNow):
            raise messages.InvalidMessage("makes no sense here")
        self.events.append(peer)
        self.messages.append(message)

    def on_drained(self, peer: str) -> None:
        self.events.append(f"~{peer}")


@asynccontextmanager
async def running(config: StoreConfig) -> AsyncIterator[tuple[TlsTransport, Listening]]:
    transport, listening = TlsTransport(config, SystemClock()), Listening()
    await transport.start(listening)
    try:
        yield transport, listening
    finally:
        await transport.stop()


def frame(message: Message) -> bytes:
    data = messages.encode(message)
    return struct.pack(">I", len(data)) + data


@asynccontextmanager
async def dialled(config: StoreConfig, tls: Tls) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the member of `config` that shows the certificate of `tls`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_cert_chain(tls.cert, tls.key)
    context.load_verify_locations(config.tls.ca)
    host, port = config.peer_address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        yield reader, writer
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except (OSError, ssl.SSLError):
            pass


async def closes(reader: asyncio.StreamReader) -> bool:
    """Whether the other side closes without saying more than its hello."""
    try:
        async with asyncio.timeout(10):
            return len(await reader.read(1 << 20)) < 200 and await reader.read() == b""
    except (ConnectionError, ssl.SSLError):
        return True


async def test_two_members_find_each_other_and_again(tmp_path: Path) -> None:
    first, second = configurations(tmp_path, 2)
    async with running(first) as (one, told):
        for _ in range(2):
            async with running(second) as (two, told_two):
                await until(lambda: "+s2" in told.events and "+s1" in told_two.events, "connected")  # noqa: B023
                assert one.send("s2", messages.ReadRequest(7))
                assert two.send("s1", messages.ReadReply(7, 9))
                await until(lambda: "s2" in told.events and "s1" in told_two.events, "received")  # noqa: B023
                assert told.messages == [messages.ReadReply(7, 9)]
                assert told_two.messages == [messages.ReadRequest(7)]
            await until(lambda: told.events[-1] == "-s2", "lost")
            assert not one.send("s2", messages.ReadRequest(8))
            told.events.clear()
            told.messages.clear()


@pytest.mark.parametrize(
    ("name", "group", "reason"),
    [
        ("m1", "kybern:masters", "is not a store member's"),
        ("s2", "kybern:masters", "is not a store member's"),
        ("s9", "kybern:store", "is not another member"),
        ("s1", "kybern:store", "is not another member"),
    ],
)
async def test_a_certificate_that_is_no_members_is_turned_away(
    tmp_path: Path, name: str, group: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    ca = authority(tmp_path / "pki")
    config, *_ = configurations(tmp_path, 1)
    ca = authority(tmp_path / "pki")
    config = msgspec_replace(config, issue(tmp_path / "pki", ca, "s1"), {"s2": "127.0.0.1:1"})
    tls = issue(tmp_path / "other", ca, name, group)
    async with running(config) as (_, told), dialled(config, tls) as (reader, writer):
        writer.write(frame(Hello("test", name, messages.PROTOCOL)))
        assert await closes(reader)
        assert told.events == []
        assert reason in caplog.text


def msgspec_replace(config: StoreConfig, tls: Tls, others: dict[str, str]) -> StoreConfig:
    import msgspec

    return msgspec.structs.replace(config, tls=tls, members=config.members | others)
