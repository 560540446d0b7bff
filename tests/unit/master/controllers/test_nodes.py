"""Lost nodes, on virtual time: what is given up, when, and what is not."""

from __future__ import annotations

import asyncio

from kybern.api import resources
from kybern.api.errors import StatusError
from kybern.client.fake import Document
from kybern.clock import run_virtual
from tests.unit.master.cluster import NAMESPACE, World, deployment, is_ready


def patient(seconds: int | None) -> list[Document]:
    """Tolerations for lost nodes; without a limit when `seconds` is None."""
    limit = {} if seconds is None else {"tolerationSeconds": seconds}
    keys = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    return [{"key": key, "operator": "Exists", "effect": "NoExecute", **limit} for key in keys]


async def deployed(world: World, replicas: int, tolerations: list[Document]) -> None:
    wanted = deployment(replicas=replicas)
    wanted["spec"]["template"]["spec"]["tolerations"] = tolerations
    await world.client.create(resources.DEPLOYMENTS, wanted, NAMESPACE)
    await world.until(lambda: world.rolled_out("web"))


def taints(world: World, node: str) -> set[tuple[str, str]]:
    found = world.client.read(resources.NODES, node)
    assert found is not None
    return {(t["key"].rpartition("/")[2], t["effect"]) for t in found["spec"].get("taints") or ()}


def on(world: World, node: str) -> list[Document]:
    return [p for p in world.client.all(resources.PODS) if p["spec"].get("nodeName") == node]


def test_pods_of_a_lost_node_are_replaced_without_its_word_and_end_when_it_is_back() -> None:
    async def main() -> None:
        world = World()
        async with world.running(nodes=3):
            await deployed(world, 6, patient(5))
            await asyncio.sleep(30)
            world.agents.down.add("n1")
            silent = await world.until(lambda: ("unreachable", "NoExecute") in taints(world, "n1"), within=60)
            assert 15 <= silent <= 21
            assert ("unreachable", "NoSchedule") in taints(world, "n1")
            await world.until(lambda: not any(is_ready(p) for p in on(world, "n1")), within=1)
            assert all("deletionTimestamp" not in p["metadata"] for p in on(world, "n1"))
            took = await world.until(lambda: len(world.ready()) == 6)
            assert took < 10
            # They may still run there: the objects stay until the node has confirmed their end.
            await asyncio.sleep(300)
            lost = on(world, "n1")
            assert lost and all(p["metadata"]["deletionTimestamp"] for p in lost)
            assert len(world.ready()) == 6
            world.agents.down.clear()
            await world.until(lambda: not on(world, "n1") and not taints(world, "n1"))
            assert len(world.client.all(resources.PODS)) == 6

    run_virtual(main())


def test_pods_stay_as_long_as_their_own_tolerations_say() -> None:
    async def main() -> None:
        world = World()
        async with world.running(nodes=2):
            await deployed(world, 4, patient(None))
            world.agents.down.add("n1")
            await asyncio.sleep(900)
            assert len(on(world, "n1")) == 2
            assert all("deletionTimestamp" not in p["metadata"] for p in on(world, "n1"))

    run_virtual(main())


def test_a_node_that_is_back_in_time_loses_no_pod() -> None:
    async def main() -> None:
        world = World()
        async with world.running(nodes=2):
            await deployed(world, 4, patient(30))
            before = {p["metadata"]["uid"] for p in world.pods()}
            world.agents.down.add("n1")
            await world.until(lambda: ("unreachable", "NoExecute") in taints(world, "n1"), within=60)
            await asyncio.sleep(20)
            world.agents.down.clear()
            await asyncio.sleep(120)
            assert {p["metadata"]["uid"] for p in world.ready()} == before
            assert not taints(world, "n1")

    run_virtual(main())


def test_nobody_is_evicted_when_every_node_falls_silent_at_once() -> None:
    async def main() -> None:
        world = World()
        async with world.running(nodes=2):
            await deployed(world, 4, patient(0))
            before = {p["metadata"]["uid"] for p in world.pods()}
            world.agents.down.update(("n1", "n2"))
            await asyncio.sleep(300)
            assert ("unreachable", "NoSchedule") in taints(world, "n2")
            assert all(is_ready(p) for p in world.pods())
            world.agents.down.clear()
            await asyncio.sleep(120)
            assert {p["metadata"]["uid"] for p in world.ready()} == before
            assert not any(taints(world, n) for n in ("n1", "n2"))

    run_virtual(main())


def test_a_node_that_does_not_come_back_after_a_general_silence_is_given_up_after_its_full_grace() -> None:
    async def main() -> None:
        world = World()
        async with world.running(nodes=3):
            await deployed(world, 6, patient(0))
            world.agents.down.update(("n1", "n2", "n3"))
            await asyncio.sleep(100)
            world.agents.down.difference_update(("n1", "n2"))
            took = await world.until(lambda: len([p for p in world.ready() if p["spec"]["nodeName"] != "n3"]) == 6)
            assert took >= 20

    run_virtual(main())


def test_a_new_leader_gives_every_node_a_full_grace_period() -> None:
    async def main() -> None:
        world = World()
        for name in ("n1", "n2", "n3"):
            world.add_node(name)
        async with world.agents_running():
            async with world.leading():
                await deployed(world, 3, patient(0))
            # Nobody leads, and one node is away in the meantime.
            world.agents.down.add("n1")
            await asyncio.sleep(200)
            before = {p["metadata"]["uid"] for p in world.pods()}
            async with world.leading(seed=2):
                await asyncio.sleep(15)
                assert {p["metadata"]["uid"] for p in world.pods()} == before
                world.agents.down.clear()
                await asyncio.sleep(60)
                assert {p["metadata"]["uid"] for p in world.ready()} == before

    run_virtual(main())


def test_nodes_that_are_lost_one_after_the_other_are_given_up_slowly() -> None:
    async def main() -> None:
        world = World()
        async with world.running(nodes=6):
            await asyncio.sleep(10)
            world.agents.down.update(("n1", "n2"))
            gone: dict[str, float] = {}
            while len(gone) < 2:
                for name in ("n1", "n2"):
                    if ("unreachable", "NoExecute") in taints(world, name):
                        gone.setdefault(name, world.clock.monotonic())
                await asyncio.sleep(0.1)
            first, second = sorted(gone.values())
            assert 9 <= second - first <= 11

    run_virtual(main())


def test_pods_of_a_deleted_node_are_removed_and_replaced() -> None:
    async def main() -> None:
        world = World()
        async with world.running(nodes=2):
            await deployed(world, 4, patient(None))
            world.agents.down.add("n1")
            await world.client.delete(resources.NODES, "n1")
            await world.until(lambda: len(world.ready()) == 4 and not on(world, "n1"))
            assert {p["spec"]["nodeName"] for p in world.ready()} == {"n2"}

    run_virtual(main())


def test_terminating_pods_go_at_once_when_somebody_vouches_for_the_node() -> None:
    async def main() -> None:
        world = World()
        async with world.running(nodes=2):
            await deployed(world, 2, patient(0))
            world.agents.down.add("n1")
            await world.until(lambda: any(p["metadata"].get("deletionTimestamp") for p in on(world, "n1")))
            await asyncio.sleep(60)
            assert on(world, "n1")
            found = world.client.read(resources.NODES, "n1")
            assert found is not None
            out = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
            patch = {"spec": {"taints": [*found["spec"]["taints"], out]}}
            await world.client.patch(resources.NODES, "n1", patch)
            await world.until(lambda: not on(world, "n1"))

    run_virtual(main())


def test_cordoned_nodes_are_tainted_and_take_no_pods() -> None:
    async def main() -> None:
        world = World()
        async with world.running(nodes=2):
            await world.client.patch(resources.NODES, "n1", {"spec": {"unschedulable": True}})
            await world.until(lambda: ("unschedulable", "NoSchedule") in taints(world, "n1"))
            await deployed(world, 3, [])
            assert {p["spec"]["nodeName"] for p in world.pods()} == {"n2"}
            await world.client.patch(resources.NODES, "n1", {"spec": {"unschedulable": None}})
            await world.until(lambda: not taints(world, "n1"))

    run_virtual(main())


def test_a_lost_race_with_the_agent_is_tried_again() -> None:
    async def main() -> None:
        world = World()
        async with world.running(nodes=2):
            await asyncio.sleep(10)
            world.agents.down.add("n1")
            world.client.fail_next("patch", StatusError(409, "Conflict", "the object has been modified"), times=3)
            await world.until(lambda: ("unreachable", "NoExecute") in taints(world, "n1"), within=60)

    run_virtual(main())
