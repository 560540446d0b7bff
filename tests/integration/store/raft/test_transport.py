"""Who is let in, and what becomes of frames that no member sends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import ssl
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from kybern.clock import SystemClock
from kybern.config.models import StoreConfig, Tls
from kybern.daemon import StartupError
from store.raft import messages
from store.raft.configuration import Configuration
from store.raft.interface import Member
from store.raft.members import members_of
from store.raft.messages import Hello, Message
from store.raft.standing import Standings
from store.raft.transport import TlsTransport
from tests.integration.store.raft.cluster import changed, configurations, issue, until
from tests.ports import free_ports


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


@contextlib.asynccontextmanager
async def running(config: StoreConfig) -> AsyncIterator[tuple[TlsTransport, Listening]]:
    transport, listening = TlsTransport(config, SystemClock()), Listening()
    await transport.start(listening, 1, Standings())
    try:
        yield transport, listening
    finally:
        await transport.stop()


def frame(message: Message) -> bytes:
    data = messages.encode(message)
    return struct.pack(">I", len(data)) + data


@contextlib.asynccontextmanager
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
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def closes(reader: asyncio.StreamReader) -> bool:
    """Whether the other side closes without saying more than its hello."""
    try:
        async with asyncio.timeout(10):
            return len(await reader.read(1 << 20)) < 200 and await reader.read() == b""
    except OSError:
        return True


async def test_two_members_find_each_other_and_again(tmp_path: Path) -> None:
    first, second = configurations(tmp_path, 2)
    async with running(first) as (one, told):
        for _ in range(2):
            async with running(second) as (two, told_two):
                await until(lambda: "+s2" in told.events and "+s1" in told_two.events, "connected")
                assert one.send("s2", messages.ReadRequest(7))
                assert two.send("s1", messages.ReadReply(7, 9))
                await until(lambda: "s2" in told.events and "s1" in told_two.events, "received")
                assert told.messages == [messages.ReadReply(7, 9)]
                assert told_two.messages == [messages.ReadRequest(7)]
            await until(lambda: told.events[-1] == "-s2", "lost")
            assert not one.send("s2", messages.ReadRequest(8))
            told.events.clear()
            told.messages.clear()


@pytest.mark.parametrize(
    ("name", "group", "hello", "reason"),
    [
        ("m1", "kybern:masters", Hello("test", "m1", messages.PROTOCOL), "is not a store member's"),
        ("s2", "kybern:masters", Hello("test", "s2", messages.PROTOCOL), "is not a store member's"),
        ("s9", "kybern:store", Hello("test", "s9", messages.PROTOCOL), "is not another member"),
        ("s9", "kybern:store", Hello("test", "s2", messages.PROTOCOL), "is not another member"),
        ("s1", "kybern:store", Hello("test", "s1", messages.PROTOCOL), "is not another member"),
        ("s2", "kybern:store", Hello("production", "s2", messages.PROTOCOL), "belongs to the cluster 'production'"),
        ("s2", "kybern:store", Hello("test", "s2", messages.PROTOCOL + 1), "speaks protocol"),
    ],
)
async def test_who_is_no_other_member_of_this_cluster_is_turned_away(
    tmp_path: Path, name: str, group: str, hello: Hello, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = configurations(tmp_path, 2)[0]
    tls = issue(tmp_path / "pki", name, group)
    async with running(config) as (_, told), dialled(config, tls) as (reader, writer):
        writer.write(frame(hello))
        assert await closes(reader)
        assert told.events == []
    assert reason in caplog.text


async def test_who_is_turned_away_again_and_again_is_a_warning_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "store.raft.transport")
    config = configurations(tmp_path, 2)[0]
    tls = issue(tmp_path / "pki", "m1", "kybern:masters")
    async with running(config):
        for _ in range(3):
            async with dialled(config, tls) as (reader, _):
                assert await closes(reader)
    said = [record.levelname for record in caplog.records if "is not a store member's" in record.getMessage()]
    assert said == ["WARNING", "DEBUG", "DEBUG"]


def hello(name: str, *, own_id: int = 0, address: str = "") -> bytes:
    return frame(Hello("test", name, messages.PROTOCOL, own_id, address))


@pytest.mark.parametrize(
    ("own_id", "address", "behind", "let_in"),
    [
        (0, "s9:1", False, True),
        (0, "s9:2", False, False),
        # It has been a member somewhere: not the new one that is awaited.
        (9, "s9:1", False, False),
        (9, "", False, False),
        # Whoever has been away lets in members that may have come since, but none that it knows to have left.
        (9, "", True, True),
        (7, "", True, False),
        (0, "", True, False),
    ],
)
async def test_who_is_let_in_beside_the_members(
    tmp_path: Path, own_id: int, address: str, behind: bool, let_in: bool
) -> None:
    config = configurations(tmp_path, 2)[0]
    tls = issue(tmp_path / "pki", "s9")
    known = Configuration((*members_of(config), Member(5, "", "s9:1", "", learner=True)), removed=(7,))
    async with running(config) as (transport, told):
        transport.configure(1, known, behind=behind)
        async with dialled(config, tls) as (reader, writer):
            writer.write(hello("s9", own_id=own_id, address=address))
            if let_in:
                await until(lambda: told.events == ["+s9"], "let in")
                assert transport.hello("s9") == Hello("test", "s9", messages.PROTOCOL, own_id, address)
            else:
                assert await closes(reader)
                assert told.events == []


async def test_a_removed_member_is_parted_with_and_told_so_when_it_comes(tmp_path: Path) -> None:
    first, second = configurations(tmp_path, 2)
    known = Configuration(tuple(members_of(first)))
    gone = Configuration(known.members[:1], removed=(known.members[1].id,))
    farewell = messages.Removed(known.members[1].id)
    async with running(first) as (one, told), running(second) as (two, told_two):
        one.configure(known.members[0].id, known)
        two.configure(known.members[1].id, known)
        await until(lambda: "+s2" in told.events and "+s1" in told_two.events, "connected")
        # What was sent before the end arrives.
        assert one.send("s2", messages.ReadRequest(7))
        one.configure(known.members[0].id, gone)
        assert not one.send("s2", messages.ReadRequest(8))
        await until(lambda: messages.ReadRequest(7) in told_two.messages, "the last message")
        # It comes again, and is told at the door.
        await until(lambda: farewell in told_two.messages, "told", seconds=30)
        assert messages.ReadRequest(8) not in told_two.messages


async def test_a_member_of_another_group_is_turned_away_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = configurations(tmp_path, 2)
    own, other = members_of(first)
    known = Configuration((own, other))
    # As one that was recovered, and one that was away meanwhile.
    recovered = Configuration((own,), removed=(other.id,), group="another")
    async with running(first) as (one, told), running(second) as (two, told_two):
        two.configure(other.id, known)
        one.configure(own.id, recovered, behind=True)
        await until(lambda: "s2 is of another group of this cluster" in caplog.text, "turned away")
        one.configure(own.id, replace_group(known, "another"))
        await until(lambda: "s1 is of another group of this cluster" in caplog.text, "turned away by the other")
        # Nobody is told that it was removed: whoever recovers a group that was not lost does not end its members.
        assert told.messages == told_two.messages == []
        assert told.events == told_two.events == []
        # Who joins has no group; once it has one, those of others are parted with.
        one.configure(own.id, replace_group(known, ""))
        # A connection that was dialled before that, with what this side said of itself then, may come and go first.
        await until(lambda: told.events[-1:] == ["+s2"] and told_two.events[-1:] == ["+s1"], "connected", seconds=30)
        one.configure(own.id, replace_group(known, "another"))
        await until(lambda: told.events[-1:] == ["-s2"], "parted with")


def replace_group(known: Configuration, group: str) -> Configuration:
    return Configuration(known.members, group=group)


async def test_a_member_that_moved_is_dialled_at_its_new_address(tmp_path: Path) -> None:
    first, second = configurations(tmp_path, 2)
    moved = changed(second, peer_address=f"127.0.0.1:{free_ports(1)[0]}")
    own, other = members_of(first)
    async with running(first) as (one, told), running(moved):
        one.configure(own.id, Configuration((own, other)))
        one.configure(own.id, Configuration((own, replace(other, peer_address=moved.peer_address))))
        await until(lambda: "+s2" in told.events, "connected")


async def test_a_certificate_of_another_authority_opens_nothing(tmp_path: Path) -> None:
    config = configurations(tmp_path, 2)[0]
    tls = issue(tmp_path / "stranger", "s2")
    async with running(config) as (_, told), dialled(config, tls) as (reader, writer):
        writer.write(frame(Hello("test", "s2", messages.PROTOCOL)))
        assert await closes(reader)
        assert told.events == []


@pytest.mark.parametrize(
    "bad",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 10,
        b"\x00\x00\x00\x03abc",
        b"\x00\x00\x00\x00",
        struct.pack(">I", messages.MAX_FRAME_BYTES + 1),
        b"\x00\x00\x00\x05" + pickle.dumps(1)[:5],
        frame(Hello("test", "s2", messages.PROTOCOL)),
        frame(messages.TimeoutNow(3)),
    ],
)
async def test_a_frame_that_is_not_valid_closes_its_connection_and_nothing_else(
    tmp_path: Path, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    config, *others = configurations(tmp_path, 3)
    tls = others[1].tls
    async with running(config) as (_, told), running(others[0]):
        await until(lambda: told.events == ["+s2"], "connected")
        async with dialled(config, tls) as (reader, writer):
            writer.write(frame(Hello("test", "s3", messages.PROTOCOL)) + frame(messages.ReadRequest(1)))
            await until(lambda: told.events == ["+s2", "+s3", "s3"], "received")
            writer.write(bad)
            assert await closes(reader)
            await until(lambda: told.events[-1] == "-s3", "closed")
        assert "not a valid frame" in caplog.text
        assert "-s2" not in told.events
        # And the peer is as welcome as before.
        async with dialled(config, tls) as (_, writer):
            writer.write(frame(Hello("test", "s3", messages.PROTOCOL)))
            await until(lambda: told.events[-1] == "+s3", "connected again")


async def test_a_first_frame_may_not_be_large(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = configurations(tmp_path, 2)[0]
    async with running(config), dialled(config, issue(tmp_path / "pki", "s2")) as (reader, writer):
        writer.write(struct.pack(">I", 1 << 20))
        assert await closes(reader)
    assert "a frame of 1048576 bytes" in caplog.text


async def test_a_peer_that_reads_nothing_is_sent_no_more_than_the_buffer_holds(tmp_path: Path) -> None:
    config = configurations(tmp_path, 2)[0]
    append = messages.Append(1, 1, 1, 1, 0, [(2, 1, bytes(1 << 20))])
    async with running(config) as (transport, told), dialled(config, issue(tmp_path / "pki", "s2")) as (reader, writer):
        writer.write(frame(Hello("test", "s2", messages.PROTOCOL)))
        await until(lambda: told.events == ["+s2"], "connected")
        sent = 0
        # Kernel buffers take something; whatever they take, the transport's own bound comes soon after.
        while transport.send("s2", append):
            sent += 1
            assert sent < 100
            await asyncio.sleep(0)
        drain = asyncio.create_task(reader.read(-1))
        await until(lambda: told.events[-1] == "~s2", "drained")
        assert transport.send("s2", append)
        drain.cancel()


async def test_a_peer_that_is_silent_is_given_up_and_one_that_pings_is_not(tmp_path: Path) -> None:
    config, other = configurations(tmp_path, 2, heartbeat=0.01, shortest=0.1, longest=0.2)
    async with running(config) as (_, told):
        async with dialled(config, other.tls) as (reader, writer):
            writer.write(frame(Hello("test", "s2", messages.PROTOCOL)))
            assert await reader.readexactly(4)
            # The pings of the member come on; it closes because nothing comes back.
            await until(lambda: told.events == ["+s2", "-s2"], "given up")
        async with running(other):
            await until(lambda: told.events[-1] == "+s2", "connected")
            await asyncio.sleep(1.0)
            assert told.events == ["+s2", "-s2", "+s2"]


async def test_an_address_that_is_taken_and_certificates_that_are_missing(tmp_path: Path) -> None:
    config = configurations(tmp_path, 1)[0]
    async with running(config):
        with pytest.raises(StartupError, match="cannot listen on the peer address"):
            await TlsTransport(config, SystemClock()).start(Listening(), 1, Standings())
    stranger = changed(config, tls=issue(tmp_path / "pki", "s2"))
    with pytest.raises(StartupError, match=r"is that of 's2' \(kybern:store\), not of the store member 's1'"):
        await TlsTransport(stranger, SystemClock()).start(Listening(), 1, Standings())
    config.tls.key.unlink()
    with pytest.raises(StartupError, match="cannot read"):
        await TlsTransport(config, SystemClock()).start(Listening(), 1, Standings())
