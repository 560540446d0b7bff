"""From a packet to its answer, with informers that change and upstreams in memory."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import dnslib

from kybern.api import resources
from kybern.api.resources import Resource
from kybern.client.fake import FakeClient
from kybern.client.informer import Informers
from kybern.clock import run_virtual
from node.dns import wire
from node.dns.directory import InformerDirectory
from node.dns.records import Rcode
from node.dns.responder import Responder
from node.dns.zone import Zone
from node.network.informers import NetworkInformers
from tests.unit.dns.cluster import SERVICES, SLICES, pod
from tests.unit.proxy.objects import SETTINGS, service_document, slice_document


class FakeForwarder:
    """Knows one name."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.silent = False

    def cached(self, query: bytes, *, tcp: bool) -> bytes | None:
        return None

    async def ask(self, query: bytes, *, tcp: bool) -> bytes | None:
        record = dnslib.DNSRecord.parse(query)
        self.asked.append(str(record.q.qname))
        if self.silent:
            return None
        reply = record.reply()
        if str(record.q.qname) == "www.example.org.":
            reply.add_answer(dnslib.RR(record.q.qname, 1, 1, 60, dnslib.A("192.0.2.1")))
        else:
            reply.header.rcode = Rcode.NXDOMAIN
        return bytes(reply.pack())


class World:
    def __init__(self, services: list[dict[str, Any]], slices: list[dict[str, Any]]) -> None:
        self.client = FakeClient()
        for document in services:
            self.client.put(resources.SERVICES, document)
        for document in slices:
            self.client.put(resources.ENDPOINT_SLICES, document)
        self.informers = Informers(self.client)
        directory = InformerDirectory(NetworkInformers(self.informers))
        self.forwarder = FakeForwarder()
        self.responder = Responder(Zone(SETTINGS, directory), directory, self.forwarder)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.informers.run())
        await self.informers.synced()
        yield
        task.cancel()

    async def ask(self, name: str, kind: str = "A", *, tcp: bool = False) -> dnslib.DNSRecord:
        data = bytes(dnslib.DNSRecord.question(name, kind).pack())
        answer = self.responder.answer_now(data, tcp=tcp)
        if isinstance(answer, wire.Query):
            answer = await self.responder.answer_later(answer, tcp=tcp)
        assert answer is not None
        assert answer[:2] == data[:2]
        return dnslib.DNSRecord.parse(answer)


def texts(record: dnslib.DNSRecord) -> list[str]:
    return [str(r.rdata) for r in record.rr]


def test_answers_follow_the_cluster_at_once() -> None:
    async def main() -> None:
        world = World(SERVICES, SLICES)
        async with world.running():
            name = "new.default.svc.cluster.local"
            assert (await world.ask(name)).header.rcode == Rcode.NXDOMAIN
            assert (await world.ask("77.0.96.10.in-addr.arpa", "PTR")).header.rcode == Rcode.NXDOMAIN
            world.client.put(resources.SERVICES, service_document("new", "10.96.0.77"))
            await asyncio.sleep(0.01)
            assert texts(await world.ask(name)) == ["10.96.0.77"]
            assert texts(await world.ask("77.0.96.10.in-addr.arpa", "PTR")) == [name + "."]
            # Asked twice: from the cache, with the id of the second question.
            assert texts(await world.ask(name)) == ["10.96.0.77"]
            await world.client.delete(resources.SERVICES, "new", "default")
            await asyncio.sleep(0.01)
            assert (await world.ask(name)).header.rcode == Rcode.NXDOMAIN
            db = "db.prod.svc.cluster.local"
            assert len(texts(await world.ask(db))) == 3
            world.client.put(
                resources.ENDPOINT_SLICES, slice_document([pod("10.244.1.6", "db-0")], service="db", namespace="prod")
            )
            await asyncio.sleep(0.01)
            assert texts(await world.ask(db)) == ["10.244.1.6"]
            assert (await world.ask("db-1." + db)).header.rcode == Rcode.NXDOMAIN

    run_virtual(main())


def test_what_was_denied_is_not_denied_once_it_is_there() -> None:
    """Every kind of name, asked before and after what it depends on."""
    late = service_document("late", "None", namespace="new", ports=[{"name": "sql", "port": 1}])
    node = {"metadata": {"name": "n9"}, "status": {"addresses": [{"type": "InternalIP", "address": "192.168.7.19"}]}}
    slices = slice_document(
        [pod("10.244.5.5", "x-0")], service="late", namespace="new", ports=[{"name": "sql", "port": 2}]
    )
    questions = {
        ("late.new.svc.cluster.local", "A"): ["10.244.5.5"],
        ("x-0.late.new.svc.cluster.local", "A"): ["10.244.5.5"],
        ("_sql._tcp.late.new.svc.cluster.local", "SRV"): ["0 100 2 x-0.late.new.svc.cluster.local."],
        ("5.5.244.10.in-addr.arpa", "PTR"): ["x-0.late.new.svc.cluster.local."],
        ("192-168-7-19.new.pod.cluster.local", "A"): ["192.168.7.19"],
    }
    parts = [(resources.SERVICES, late), (resources.ENDPOINT_SLICES, slices), (resources.NODES, node)]

    async def main(order: tuple[tuple[Resource, dict[str, Any]], ...]) -> None:
        world = World([], [])
        async with world.running():
            for resource, document in order:
                for name, kind in questions:
                    await world.ask(name, kind)
                world.client.put(resource, document)
                await asyncio.sleep(0.01)
            for (name, kind), want in questions.items():
                assert texts(await world.ask(name, kind)) == want, (name, [r.plural for r, _ in order])

    for order in itertools.permutations(parts):
        run_virtual(main(order))


def test_nothing_is_denied_before_everything_is_known() -> None:
    async def main() -> None:
        world = World(SERVICES, SLICES)
        for name in ("web.default.svc.cluster.local", "20.0.96.10.in-addr.arpa"):
            assert (await world.ask(name)).header.rcode == Rcode.SERVFAIL
        # What is not the cluster's needs no cluster.
        assert texts(await world.ask("www.example.org")) == ["192.0.2.1"]
        async with world.running():
            assert texts(await world.ask("web.default.svc.cluster.local")) == ["10.96.0.20"]

    run_virtual(main())


def test_every_endpoint_comes_first_in_some_answer() -> None:
    async def main() -> None:
        world = World(SERVICES, SLICES)
        async with world.running():
            first = {texts(await world.ask("db.prod.svc.cluster.local"))[0] for _ in range(10)}
            assert first == {"10.244.1.6", "10.244.2.6", "10.244.2.7"}

    run_virtual(main())


def test_other_names_are_asked_upstream() -> None:
    async def main() -> None:
        world = World(SERVICES, SLICES)
        async with world.running():
            assert texts(await world.ask("www.example.org")) == ["192.0.2.1"]
            assert (await world.ask("nowhere.example.org")).header.rcode == Rcode.NXDOMAIN
            world.forwarder.silent = True
            assert (await world.ask("www.example.org")).header.rcode == Rcode.SERVFAIL
            assert (await world.ask("nowhere.default.svc.cluster.local")).header.rcode == Rcode.NXDOMAIN
            assert "nowhere.default.svc.cluster.local." not in world.forwarder.asked

    run_virtual(main())


def test_external_names_are_followed_to_the_end() -> None:
    async def main() -> None:
        services = [
            *SERVICES,
            service_document("twice", "", type="ExternalName", externalName="outside.default.svc.cluster.local"),
            service_document("inside", "", type="ExternalName", externalName="web.default.svc.cluster.local"),
            service_document("dead", "", type="ExternalName", externalName="nowhere.example.org"),
            service_document("circle", "", type="ExternalName", externalName="circle.default.svc.cluster.local"),
        ]
        world = World(services, SLICES)
        async with world.running():
            end = ".default.svc.cluster.local"
            assert texts(await world.ask("outside" + end)) == ["www.example.org.", "192.0.2.1"]
            assert texts(await world.ask("twice" + end)) == [
                f"outside{end}.",
                "www.example.org.",
                "192.0.2.1",
            ]
            assert texts(await world.ask("inside" + end)) == [f"web{end}.", "10.96.0.20"]
            assert texts(await world.ask("outside" + end, "CNAME")) == ["www.example.org."]
            dead = await world.ask("dead" + end)
            assert (dead.header.rcode, texts(dead)) == (Rcode.NXDOMAIN, ["nowhere.example.org."])
            assert (await world.ask("circle" + end)).header.rcode == Rcode.SERVFAIL
            world.forwarder.silent = True
            assert (await world.ask("outside" + end)).header.rcode == Rcode.SERVFAIL

    run_virtual(main())
