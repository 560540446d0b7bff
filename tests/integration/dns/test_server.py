"""The DNS server on loopback, between real clients and real upstream servers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import dnslib
import pytest

from kybern.api import resources
from kybern.client.fake import FakeClient
from kybern.client.informer import Informers
from kybern.clock import SystemClock
from node.dns import server as server_module
from node.dns import upstream as upstream_module
from node.dns.directory import InformerDirectory
from node.dns.records import Rcode
from node.dns.responder import Responder
from node.dns.server import DnsServer
from node.dns.upstream import Forwarder, Upstreams
from node.dns.zone import Zone
from node.network.informers import NetworkInformers
from tests.ports import free_port
from tests.unit.dns.cluster import SERVICES, SLICES, pod
from tests.unit.proxy.objects import SETTINGS, slice_document

HOST = "127.0.0.1"


class Upstream:
    """A name server that says what it is told to say."""

    def __init__(self) -> None:
        self.port = free_port()
        self.asked: list[tuple[str, bool]] = []
        self.silent = False
        self.rcode = Rcode.NOERROR
        self.address = "192.0.2.1"
        self.records = 1
        self.forge = False
        self.delay = 0.0

    def answer(self, data: bytes, *, tcp: bool) -> list[bytes]:
        record = dnslib.DNSRecord.parse(data)
        self.asked.append((str(record.q.qname), tcp))
        if self.silent:
            return []
        reply = record.reply()
        reply.header.rcode = self.rcode
        if self.rcode == Rcode.NOERROR:
            if self.records > 20 and not tcp:
                reply.header.tc = 1
            else:
                for _ in range(self.records):
                    reply.add_answer(dnslib.RR(record.q.qname, 1, 1, 60, dnslib.A(self.address)))
        packet = bytes(reply.pack())
        if not self.forge:
            return [packet]
        # Somebody guesses before the right answer comes: another id, another question.
        other = dnslib.DNSRecord.question("other.example.org").reply()
        other.header.id = record.header.id
        return [bytes([packet[0] ^ 1]) + packet[1:], bytes(other.pack()), b"x", packet]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        owner = self

        class Udp(asyncio.DatagramProtocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, addr: Any) -> None:
                for packet in owner.answer(data, tcp=False):
                    loop.call_later(owner.delay, self.transport.sendto, packet, addr)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                for packet in owner.answer(await reader.readexactly(length), tcp=True):
                    writer.write(struct.pack("!H", len(packet)) + packet)
                await writer.drain()
            writer.close()

        transport, _ = await loop.create_datagram_endpoint(Udp, local_addr=(HOST, self.port))
        server = await asyncio.start_server(connected, HOST, self.port)
        try:
            yield
        finally:
            transport.close()
            server.close()
            await server.wait_closed()


class World:
    """A server with its cluster and two upstreams."""

    def __init__(self) -> None:
        self.client = FakeClient(SystemClock())
        for document in SERVICES:
            self.client.put(resources.SERVICES, document)
        for document in SLICES:
            self.client.put(resources.ENDPOINT_SLICES, document)
        self.upstreams = [Upstream(), Upstream()]
        self.port = free_port()
        clock = SystemClock()
        self.informers = Informers(self.client)
        directory = InformerDirectory(NetworkInformers(self.informers))
        servers = Upstreams([f"{HOST}:{u.port}" for u in self.upstreams], IPv4Address("10.96.0.10"), clock)
        responder = Responder(Zone(SETTINGS, directory), directory, Forwarder(servers, clock))
        self.server = DnsServer(responder, HOST, self.port)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for upstream in self.upstreams:
                await stack.enter_async_context(upstream.running())
            tasks = [asyncio.create_task(self.informers.run()), asyncio.create_task(self.server.run())]
            await self.informers.synced()
            await self.server.ready.wait()
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def send(self, data: bytes, timeout: float = 6.0) -> bytes:
        """The answer to a packet over UDP."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, (HOST, self.port))
            await loop.sock_sendall(sock, data)
            async with asyncio.timeout(timeout):
                return await loop.sock_recv(sock, 65535)

    async def ask(self, name: str, kind: str = "A", edns: int = 0) -> dnslib.DNSRecord:
        record = dnslib.DNSRecord.question(name, kind)
        if edns:
            record.add_ar(dnslib.EDNS0(udp_len=edns))
        return dnslib.DNSRecord.parse(await self.send(bytes(record.pack())))

    async def ask_tcp(self, *names: str) -> list[dnslib.DNSRecord]:
        """Several questions over one connection."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        found = []
        for name in names:
            data = bytes(dnslib.DNSRecord.question(name).pack())
            writer.write(struct.pack("!H", len(data)) + data)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            found.append(dnslib.DNSRecord.parse(await reader.readexactly(length)))
        writer.close()
        await writer.wait_closed()
        return found


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    async with made.running():
        yield made


def texts(record: dnslib.DNSRecord) -> list[str]:
    return [str(r.rdata) for r in record.rr]


WEB = "web.default.svc.cluster.local"


async def test_both_transports_answer_for_the_cluster_and_for_the_rest(world: World) -> None:
    assert texts(await world.ask(WEB)) == ["10.96.0.20"]
    assert texts(await world.ask("www.example.org")) == ["192.0.2.1"]
    here, there, nowhere = await world.ask_tcp(WEB, "www.example.com", "x.cluster.local")
    assert (texts(here), texts(there), nowhere.header.rcode) == (["10.96.0.20"], ["192.0.2.1"], Rcode.NXDOMAIN)
    assert world.upstreams[0].asked == [("www.example.org.", False), ("www.example.com.", True)]


async def test_many_endpoints_over_udp_are_cut_and_over_tcp_are_all_there(world: World) -> None:
    world.client.put(
        resources.ENDPOINT_SLICES,
        slice_document([pod(f"10.244.3.{n}") for n in range(1, 201)], service="db", namespace="prod"),
    )
    await asyncio.sleep(0.05)
    name = "db.prod.svc.cluster.local"
    plain, large = await world.ask(name), await world.ask(name, edns=4096)
    assert (plain.header.tc, large.header.tc) == (1, 1)
    assert 10 < len(plain.rr) < len(large.rr) < 200
    [whole] = await world.ask_tcp(name)
    assert (whole.header.tc, len(whole.rr)) == (0, 200)


async def test_a_truncated_answer_of_an_upstream_is_asked_again_over_tcp_by_the_client(world: World) -> None:
    world.upstreams[0].records = 40
    first = await world.ask("large.example.org")
    assert (first.header.tc, len(first.rr)) == (1, 0)
    [second] = await world.ask_tcp("large.example.org")
    assert len(second.rr) == 40


async def test_an_answer_is_kept_and_questions_that_wait_are_asked_once(world: World) -> None:
    world.upstreams[0].delay = 0.2
    answers = await asyncio.gather(*(world.ask("www.example.org") for _ in range(50)))
    assert all(texts(a) == ["192.0.2.1"] for a in answers)
    assert texts(await world.ask("www.example.org")) == ["192.0.2.1"]
    assert len(world.upstreams[0].asked) == 1


async def test_a_guessed_answer_is_not_believed(world: World) -> None:
    world.upstreams[0].forge = True
    assert texts(await world.ask("www.example.org")) == ["192.0.2.1"]


async def test_the_next_server_is_asked_when_one_is_silent_or_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_module, "UDP_TIMEOUT", 0.1)
    first, second = world.upstreams
    first.silent, second.address = True, "192.0.2.2"
    assert texts(await world.ask("a.example.org")) == ["192.0.2.2"]
    # The silent one is asked last from now on.
    assert texts(await world.ask("b.example.org")) == ["192.0.2.2"]
    assert [name for name, _ in first.asked] == ["a.example.org."]
    second.rcode, first.silent = Rcode.SERVFAIL, False
    assert texts(await world.ask("c.example.org")) == ["192.0.2.1"]


async def test_servfail_when_nobody_answers_and_the_cluster_is_not_affected(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_module, "UDP_TIMEOUT", 0.05)
    for upstream in world.upstreams:
        upstream.silent = True
    waiting = asyncio.create_task(world.ask("www.example.org"))
    assert texts(await world.ask(WEB)) == ["10.96.0.20"]
    assert (await waiting).header.rcode == Rcode.SERVFAIL
    for upstream in world.upstreams:
        upstream.silent = False
    # A failure is not remembered.
    assert texts(await world.ask("www.example.org")) == ["192.0.2.1"]


async def test_the_failure_of_all_servers_is_handed_on(world: World) -> None:
    for upstream in world.upstreams:
        upstream.rcode = Rcode.REFUSED
    assert (await world.ask("www.example.org")).header.rcode == Rcode.REFUSED


async def test_strange_packets_do_no_harm(world: World) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for data in (b"", b"x", b"\0" * 11, b"\xff" * 100, bytes(range(256)) * 8):
            sock.sendto(data, (HOST, world.port))
    assert (await world.send(b"\x12\x34\1\0\0\1\0\0\0\0\0\0\5abc"))[3] & 0xF == Rcode.FORMERR
    reader, writer = await asyncio.open_connection(HOST, world.port)
    writer.write(b"\0\3abc")
    # Not a question: the connection is closed without a word.
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    assert texts(await world.ask(WEB)) == ["10.96.0.20"]


async def test_idle_connections_end_and_their_number_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "IDLE", 0.3)
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)
    idle = [await asyncio.open_connection(HOST, world.port) for _ in range(2)]
    await asyncio.sleep(0.05)
    reader, writer = await asyncio.open_connection(HOST, world.port)
    assert await reader.read() == b""
    writer.close()
    for reader, other in idle:
        async with asyncio.timeout(3):
            assert await reader.read() == b""
        other.close()
    [answer] = await world.ask_tcp(WEB)
    assert texts(answer) == ["10.96.0.20"]


async def test_a_port_that_is_taken_is_tried_again() -> None:
    world = World()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((HOST, world.port))
        task = asyncio.create_task(world.server.run())
        await asyncio.sleep(0.1)
        assert not world.server.ready.is_set()
    async with asyncio.timeout(5):
        await world.server.ready.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def clock_at(seconds: Callable[[], float]) -> Any:
    class Clock(SystemClock):
        def monotonic(self) -> float:
            return seconds()

    return Clock()


def test_resolv_conf_is_read_again_and_never_leads_back(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# comment\nnameserver 10.96.0.10\nnameserver 192.0.2.1\nnameserver nonsense\noptions ndots:5\n")
    now = time.monotonic()
    found = Upstreams([], IPv4Address("10.96.0.10"), clock_at(lambda: now), path)
    assert [s.host for s in found.current()] == ["192.0.2.1"]
    path.write_text("nameserver 2001:db8::1\n")
    assert [s.host for s in found.current()] == ["192.0.2.1"]
    now += 10
    assert [str(s) for s in found.current()] == ["[2001:db8::1]:53"]
    path.unlink()
    now += 10
    assert found.current() == []


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
    ],
)
def test_addresses_of_name_servers(text: str, want: tuple[str, int]) -> None:
    assert tuple(upstream_module.parse_server(text)) == want


@pytest.mark.parametrize("text", ["", "dns.example.org", "192.0.2.1:0", "192.0.2.1:x", "192.0.2.256"])
def test_what_is_no_address_of_a_name_server(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        upstream_module.parse_server(text)
