"""The proxier on virtual time: informers on one side, a packet filter in memory on the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address
from typing import Any

import pytest

from kybern.api import resources
from kybern.api.types import EndpointSlice, Service
from kybern.client.fake import FakeClient
from kybern.client.informer import Informers
from kybern.clock import LoopClock, run_virtual
from kybern.key import Key
from node.network.informers import NetworkInformers
from node.proxy import proxier
from node.proxy.conntrack import Expected, Flow
from node.proxy.interface import FakeRouting
from node.proxy.model import PortRoute, Target, resolve
from node.proxy.proxier import RESYNC_INTERVAL, Proxier
from tests.unit.proxy.objects import endpoint, service_document, slice_document

WEB = Key("default", "web")


class FakeFlows:
    """Notes what it was told to expect."""

    def __init__(self) -> None:
        self.seen: list[Expected] = []
        self.fail = 0

    async def clear_stale(self, expected: Expected) -> int:
        if self.fail:
            self.fail -= 1
            raise OSError(1, "not allowed")
        self.seen.append(expected)
        return 0


class World:
    def __init__(self) -> None:
        self.client = FakeClient()
        self.backend = FakeRouting()
        self.flows = FakeFlows()
        shared = Informers(self.client)
        self.informers = shared
        self.proxier = Proxier("n1", NetworkInformers(shared), self.backend, self.flows, LoopClock())

    def put(self, service: dict[str, Any], *slices: dict[str, Any]) -> None:
        for document in slices:
            self.client.put(resources.ENDPOINT_SLICES, document)
        self.client.put(resources.SERVICES, service)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.informers.run()), asyncio.create_task(self.proxier.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task


def udp(*addresses: str) -> tuple[dict[str, Any], dict[str, Any]]:
    service = service_document(ports=[{"port": 53, "name": "dns", "protocol": "UDP"}])
    slices = slice_document([endpoint(a) for a in addresses], ports=[{"port": 53, "name": "dns", "protocol": "UDP"}])
    return service, slices


def flow(to: str, answered_by: str) -> Flow:
    return Flow(Target(IPv4Address(to), 53), Target(IPv4Address(answered_by), 53), b"")


def test_rules_follow_services_and_endpoints() -> None:
    async def main() -> None:
        world = World()
        world.put(service_document(), slice_document([endpoint("10.244.1.5"), endpoint("10.244.2.5", "n2")]))
        async with world.running():
            await world.proxier.ready.wait()
            assert [str(t) for t in world.backend.active[WEB][0].endpoints] == ["10.244.1.5:8080", "10.244.2.5:8080"]
            # The node of one endpoint is lost: its slice says that it is not ready.
            world.client.put(
                resources.ENDPOINT_SLICES,
                slice_document([endpoint("10.244.1.5"), endpoint("10.244.2.5", "n2", ready=False)]),
            )
            await asyncio.sleep(0.1)
            assert [str(t) for t in world.backend.active[WEB][0].endpoints] == ["10.244.1.5:8080"]
            await world.client.delete(resources.SERVICES, "web", "default")
            await asyncio.sleep(0.1)
            assert WEB not in world.backend.active

    run_virtual(main())


def test_nothing_is_written_before_everything_is_known() -> None:
    async def main() -> None:
        world = World()
        world.put(service_document(), slice_document([endpoint("10.244.1.5")]))
        proxier = asyncio.create_task(world.proxier.run())
        await asyncio.sleep(300)
        # Without its informers the proxier would take away the rules of every service.
        assert world.backend.syncs + world.backend.resyncs == 0
        proxier.cancel()

    run_virtual(main())


def test_many_changes_at_once_are_few_writes() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await world.proxier.ready.wait()
            before = world.backend.syncs
            for number in range(500):
                world.put(service_document(f"s{number}", f"10.96.{number // 250}.{number % 250 + 1}"))
            await asyncio.sleep(0.5)
            assert len(world.backend.active) == 500
            assert world.backend.syncs - before < 10

    run_virtual(main())


def test_a_failing_packet_filter_is_tried_again_until_it_works() -> None:
    async def main() -> None:
        world = World()
        world.backend.fail = 4
        world.put(service_document(), slice_document([endpoint("10.244.1.5")]))
        async with world.running():
            await asyncio.wait_for(world.proxier.ready.wait(), 30)
            world.backend.fail = 3
            await world.client.delete(resources.SERVICES, "web", "default")
            await asyncio.sleep(30)
            assert not world.backend.active

    run_virtual(main())


def test_everything_is_compared_now_and_then() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await world.proxier.ready.wait()
            world.backend.active = {WEB: ()}
            await asyncio.sleep(RESYNC_INTERVAL + 1)
            assert not world.backend.active
            assert world.backend.resyncs == 2

    run_virtual(main())


def test_nodes_are_known_to_the_rules() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await world.proxier.ready.wait()
            status = {"addresses": [{"type": "InternalIP", "address": "192.168.7.12"}]}
            world.client.put(resources.NODES, {"metadata": {"name": "n2"}, "status": status})
            await asyncio.sleep(0.1)
            assert world.backend.nodes == {IPv4Address("192.168.7.12")}

    run_virtual(main())


def test_udp_flows_to_endpoints_that_are_gone_are_cleared() -> None:
    async def main() -> None:
        world = World()
        world.put(*udp("10.244.1.5", "10.244.1.6"))
        async with world.running():
            await world.proxier.ready.wait()
            # At the start, for what happened while no agent ran.
            stale = world.flows.seen[0].is_stale
            assert stale(flow("10.96.0.20", "10.244.1.9"), lambda a: False)
            assert not stale(flow("10.96.0.20", "10.244.1.5"), lambda a: False)
            world.flows.fail = 1
            world.put(*udp("10.244.1.6"))
            await asyncio.sleep(1)
            assert len(world.flows.seen) == 1
            # What failed comes again with the next change, of whatever service.
            world.put(service_document("other", "10.96.0.30"))
            await asyncio.sleep(1)
            assert world.flows.seen[1].is_stale(flow("10.96.0.20", "10.244.1.5"), lambda a: False)
            assert not world.flows.seen[1].is_stale(flow("10.96.0.20", "10.244.1.6"), lambda a: False)
            await world.client.delete(resources.SERVICES, "web", "default")
            await asyncio.sleep(1)
            assert world.flows.seen[2].is_stale(flow("10.96.0.20", "10.244.1.6"), lambda a: False)

    run_virtual(main())


def test_flows_of_node_ports_are_those_to_this_host() -> None:
    async def main() -> None:
        world = World()
        service, slices = udp("10.244.1.5")
        service["spec"].update(type="NodePort", ports=[{**service["spec"]["ports"][0], "nodePort": 53}])
        world.put(service, slices)
        async with world.running():
            await world.proxier.ready.wait()
            [expected] = world.flows.seen
            here = IPv4Address("192.168.7.11")
            # Before the Service had a rule, the packets went to the node itself.
            assert expected.is_stale(flow(str(here), str(here)), lambda a: a == here)
            assert not expected.is_stale(flow(str(here), "10.244.1.5"), lambda a: a == here)
            assert not expected.is_stale(flow("192.0.2.1", "192.0.2.1"), lambda a: a == here)

    run_virtual(main())


def test_a_service_that_cannot_be_read_harms_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def resolve_or_fail(service: Service, slices: Iterable[EndpointSlice], node: str) -> tuple[PortRoute, ...]:
        if service.name == "poison":
            raise LookupError("what is this")
        return resolve(service, slices, node)

    monkeypatch.setattr(proxier, "resolve", resolve_or_fail)

    async def main() -> None:
        world = World()
        world.put(service_document("poison", "10.96.0.66"))
        world.put(service_document(), slice_document([endpoint("10.244.1.5")]))
        async with world.running():
            await world.proxier.ready.wait()
            assert set(world.backend.active) == {WEB}
            assert "service default/poison cannot be routed" in caplog.text

    run_virtual(main())
