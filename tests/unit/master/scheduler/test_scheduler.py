"""The scheduler against the API in memory, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kybern.api import resources
from kybern.api.errors import conflict, unavailable
from kybern.client.controller import ControllerContext
from kybern.client.fake import FakeClient
from kybern.client.informer import Informers
from kybern.clock import LoopClock, run_virtual
from master.scheduler.main import run_scheduler
from master.scheduler.pods import PodInfo
from master.scheduler.profile import Refusal
from master.scheduler.scheduler import Scheduler
from tests.unit.master.scheduler.objects import NAMESPACE, node_document, pod_document


class Cluster:
    def __init__(self) -> None:
        self.clock = LoopClock()
        self.client = FakeClient(self.clock)
        context = ControllerContext(self.client, Informers(self.client), clock=self.clock, rng=random.Random(1))
        self.informers = context.informers
        self.scheduler = Scheduler(context)

    def node(self, name: str, **more: Any) -> None:
        self.client.put(resources.NODES, node_document(name, **more))

    async def pod(self, name: str, **more: Any) -> None:
        await self.client.create(resources.PODS, pod_document(name, **more), NAMESPACE)

    def where(self, name: str) -> str:
        found = self.client.read(resources.PODS, name, NAMESPACE)
        assert found is not None
        return str(found["spec"].get("nodeName", ""))

    def condition(self, name: str) -> dict[str, Any]:
        found = self.client.read(resources.PODS, name, NAMESPACE)
        assert found is not None
        (condition,) = found["status"]["conditions"]
        assert isinstance(condition, dict)
        return condition

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.informers.run()), asyncio.create_task(self.scheduler.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.scheduler.close()


def test_a_refusal_is_told_and_ends_when_there_is_room() -> None:
    async def main() -> None:
        cluster = Cluster()
        cluster.node("n1", cpu="1")
        async with cluster.running():
            await cluster.pod("big", requests={"cpu": "2"})
            await asyncio.sleep(5)
            message = "0/1 nodes are available: 1 Insufficient cpu."
            condition = cluster.condition("big")
            assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
            assert condition["message"] == message
            assert [e["message"] for e in cluster.client.all(resources.EVENTS)] == [message]
            calls = len(cluster.client.calls)
            await asyncio.sleep(30)
            assert len(cluster.client.calls) == calls  # nothing changed, nothing to say
            cluster.node("n2", cpu="4")
            await asyncio.sleep(5)
            assert cluster.where("big") == "n2"
            assert cluster.condition("big")["status"] == "True"

    run_virtual(main())


def test_room_that_a_deleted_pod_leaves_is_used() -> None:
    async def main() -> None:
        cluster = Cluster()
        cluster.node("n1", cpu="1")
        async with cluster.running():
            await cluster.pod("first", requests={"cpu": "1"})
            await cluster.pod("second", requests={"cpu": "1"})
            await asyncio.sleep(3)
            assert (cluster.where("first"), cluster.where("second")) == ("n1", "")
            # On its way out it still takes its room.
            await cluster.client.delete(resources.PODS, "first", NAMESPACE)
            await asyncio.sleep(20)
            assert cluster.where("second") == ""
            await cluster.client.delete(resources.PODS, "first", NAMESPACE, grace_seconds=0)
            await asyncio.sleep(11)
            assert cluster.where("second") == "n1"

    run_virtual(main())


def test_no_node_gets_more_than_it_has_although_the_cache_is_late() -> None:
    class Late(FakeClient):
        async def watch(self, *args: Any, **more: Any) -> Any:
            async for events in super().watch(*args, **more):
                await asyncio.sleep(0.5)
                yield events

    async def main() -> None:
        cluster = Cluster()
        cluster.client = Late(cluster.clock)
        context = ControllerContext(
            cluster.client, Informers(cluster.client), clock=cluster.clock, rng=random.Random(1)
        )
        cluster.informers, cluster.scheduler = context.informers, Scheduler(context)
        for name in ("n1", "n2"):
            cluster.node(name, cpu="2")
        async with cluster.running():
            for number in range(6):
                await cluster.pod(f"p{number}", requests={"cpu": "1"})
            await asyncio.sleep(30)
            placed = sorted(cluster.where(f"p{n}") for n in range(6))
            assert placed == ["", "", "n1", "n1", "n2", "n2"]
            bound = [c for c in cluster.client.calls if c.subresource == "binding"]
            assert len(bound) == 4

    run_virtual(main())


def test_a_binding_that_fails_is_tried_again_and_gives_its_room_back() -> None:
    async def main() -> None:
        cluster = Cluster()
        cluster.node("n1", cpu="2")
        async with cluster.running():
            await asyncio.sleep(1)
            await cluster.pod("a", requests={"cpu": "1"})
            cluster.client.fail_next("create", unavailable("no leader"), times=2)
            await asyncio.sleep(10)
            assert cluster.where("a") == "n1"
            await cluster.pod("b", requests={"cpu": "1"})
            await asyncio.sleep(1)
            assert cluster.where("b") == "n1"
            await cluster.pod("c", requests={"cpu": "1"})
            await asyncio.sleep(1)
            assert cluster.where("c") == ""

    run_virtual(main())


def test_a_pod_that_somebody_else_bound_counts_where_it_is() -> None:
    async def main() -> None:
        cluster = Cluster()
        cluster.node("n1", cpu="1")
        cluster.node("n2", cpu="1")
        async with cluster.running():
            await asyncio.sleep(1)
            cluster.client.fail_next("create", conflict("pods", "", "a", "already assigned"), times=0)
            await cluster.pod("a", requests={"cpu": "1"}, nodeName="n1")
            await cluster.pod("b", requests={"cpu": "1"})
            await asyncio.sleep(2)
            assert cluster.where("b") == "n2"

    run_virtual(main())


def test_gated_pods_and_those_of_other_schedulers_are_left_alone() -> None:
    async def main() -> None:
        cluster = Cluster()
        cluster.node("n1")
        async with cluster.running():
            await cluster.pod("gated", schedulingGates=[{"name": "example.com/wait"}])
            await cluster.pod("other", schedulerName="somebody")
            await asyncio.sleep(100)
            assert (cluster.where("gated"), cluster.where("other")) == ("", "")
            await cluster.client.patch(resources.PODS, "gated", {"spec": {"schedulingGates": None}}, NAMESPACE)
            await asyncio.sleep(2)
            assert cluster.where("gated") == "n1"

    run_virtual(main())


def test_a_pod_or_node_that_cannot_be_read_stops_nobody() -> None:
    async def main() -> None:
        cluster = Cluster()
        cluster.node("bad", cpu="lots")
        cluster.node("n1")
        async with cluster.running():
            await cluster.pod("bad", requests={"cpu": "many"})
            await cluster.pod("good", requests={"cpu": "1"})
            await asyncio.sleep(5)
            assert (cluster.where("bad"), cluster.where("good")) == ("", "n1")

    run_virtual(main())


def test_pods_deleted_before_their_turn_leave_nothing() -> None:
    async def main() -> None:
        cluster = Cluster()
        async with cluster.running():
            for number in range(5):
                await cluster.pod(f"p{number}")
            await asyncio.sleep(1)
            for number in range(5):
                await cluster.client.delete(resources.PODS, f"p{number}", NAMESPACE)
            await asyncio.sleep(1)
            assert len(cluster.scheduler.queue) == 0
            assert len(cluster.scheduler.snapshot) == 0

    run_virtual(main())


def test_a_scheduler_that_fails_is_started_again_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Scheduler.decide
    tries = 0

    def failing(self: Scheduler, info: PodInfo) -> tuple[PodInfo, str | Refusal]:
        nonlocal tries
        tries += 1
        if tries == 2:
            raise RuntimeError("a fault that nobody expected")
        return original(self, info)

    async def main() -> None:
        cluster = Cluster()
        cluster.node("n1", cpu="4")
        monkeypatch.setattr(Scheduler, "decide", failing)
        context = ControllerContext(
            cluster.client, Informers(cluster.client), clock=cluster.clock, rng=random.Random(1)
        )
        tasks = [asyncio.create_task(run_scheduler(context)), asyncio.create_task(context.informers.run())]
        for number in range(6):
            await cluster.pod(f"p{number}", requests={"cpu": "1"})
        await asyncio.sleep(30)
        assert sorted(cluster.where(f"p{n}") for n in range(6)) == ["", "", "n1", "n1", "n1", "n1"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run_virtual(main())
