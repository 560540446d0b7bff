"""Controllers and scheduler on a real API server: what the API in memory does not have is there (admission, validation,
defaults, fences), and time is virtual all the same.
"""

from __future__ import annotations

import asyncio

from kybern.api import resources
from kybern.client.fake import Document
from kybern.client.interface import Propagation
from kybern.clock import run_virtual
from tests.integration.control.served import ServedWorld, serving
from tests.unit.master.cluster import NAMESPACE, deployment, image_patch, is_ready

SERVICE: Document = {
    "metadata": {"name": "web"},
    "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
}


async def create(world: ServedWorld, **spec: object) -> None:
    await world.client.create(resources.DEPLOYMENTS, deployment(**spec), NAMESPACE)  # type: ignore[arg-type]


def ready_endpoints(world: ServedWorld) -> set[str]:
    return {
        e["targetRef"]["name"]
        for s in world.client.all(resources.ENDPOINT_SLICES)
        if s["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
        for e in s.get("endpoints") or ()
        if e["conditions"]["ready"]
    }


def versions(world: ServedWorld) -> list[str]:
    """Versions of everything that only controllers and scheduler have to do with."""
    kinds = (resources.DEPLOYMENTS, resources.REPLICA_SETS, resources.PODS, resources.ENDPOINT_SLICES, resources.NODES)
    return [d["metadata"]["resourceVersion"] for kind in kinds for d in world.client.all(kind)]


def taints(world: ServedWorld, node: str) -> list[Document]:
    found = world.client.read(resources.NODES, node)
    assert found is not None
    return list(found["spec"].get("taints") or ())


def test_a_deployment_from_its_creation_to_its_end() -> None:
    async def main() -> None:
        async with serving() as world, world.reign("m1"):
            await world.client.create(resources.SERVICES, SERVICE, NAMESPACE)
            await create(world, replicas=4)
            await world.until(lambda: world.rolled_out("web"))
            assert sorted(p["spec"]["nodeName"] for p in world.pods()) == ["n1", "n1", "n2", "n2"]
            await world.until(lambda: len(ready_endpoints(world)) == 4)
            for image in ("v2", "v1"):
                await world.client.patch(resources.DEPLOYMENTS, "web", image_patch(image), NAMESPACE)
                await world.until(lambda: not world.rolled_out("web"))
                await world.until(lambda: world.rolled_out("web"))
            revisions = {
                image: s["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
                for image, s in world.sets().items()
            }
            assert revisions == {"v1": "3", "v2": "2"}
            await world.client.patch(
                resources.DEPLOYMENTS, "web", {"spec": {"replicas": 10}}, NAMESPACE, subresource="scale"
            )
            await world.until(lambda: len(world.ready()) == 10)
            await asyncio.sleep(30)
            before = versions(world)
            await asyncio.sleep(60)
            assert versions(world) == before  # nothing is left to do, so nobody writes
            await world.client.delete(resources.DEPLOYMENTS, "web", NAMESPACE, propagation=Propagation.FOREGROUND)
            await world.until(lambda: not world.client.all(resources.DEPLOYMENTS))
            assert not world.client.all(resources.REPLICA_SETS)
            assert not world.client.all(resources.PODS)
            await world.client.delete(resources.SERVICES, "web", NAMESPACE)
            await world.until(lambda: not ready_endpoints(world))

    run_virtual(main())


def test_a_lost_node_is_replaced_and_nothing_runs_twice_when_it_is_back() -> None:
    async def main() -> None:
        async with serving(nodes=3) as world, world.reign("m1"):
            await world.client.create(resources.SERVICES, SERVICE, NAMESPACE)
            await create(world, replicas=6)
            await world.until(lambda: world.rolled_out("web"))
            await asyncio.sleep(20)
            world.agents.down.add("n1")
            took = await world.until(lambda: len([p for p in world.ready() if p["spec"]["nodeName"] != "n1"]) == 6)
            assert took < 30
            await world.until(lambda: len(ready_endpoints(world)) == 6, within=1)
            there = [p for p in world.client.all(resources.PODS) if p["spec"]["nodeName"] == "n1"]
            assert len(there) == 2
            assert not any(is_ready(p) for p in there)
            world.agents.down.clear()
            await world.until(lambda: len(world.client.all(resources.PODS)) == 6)
            await world.until(lambda: not taints(world, "n1"))

    run_virtual(main())


def test_another_master_goes_on_where_the_first_stopped() -> None:
    async def main() -> None:
        async with serving(start=3.0) as world:
            async with world.reign("m1"):
                await create(world, replicas=8)
                await world.until(lambda: len(world.pods()) == 8)
            async with world.reign("m2"):
                await world.until(lambda: world.rolled_out("web"))
                await world.client.patch(resources.DEPLOYMENTS, "web", image_patch("v2"), NAMESPACE)
                await world.until(lambda: "v2" in world.sets())
            async with world.reign("m1"):
                await world.until(lambda: world.rolled_out("web"))
                await asyncio.sleep(20)
                assert len(world.pods()) == 8
                assert {p["spec"]["containers"][0]["image"] for p in world.pods()} == {"v2"}

    run_virtual(main())


def test_a_namespace_goes_with_all_that_is_in_it() -> None:
    async def main() -> None:
        async with serving() as world, world.reign("m1"):
            await world.client.create(resources.NAMESPACES, {"metadata": {"name": "shop"}})
            await world.until(lambda: world.client.read(resources.SERVICE_ACCOUNTS, "default", "shop") is not None)
            await world.client.create(resources.DEPLOYMENTS, deployment() | {"metadata": {"name": "web"}}, "shop")
            await world.client.create(resources.SERVICES, SERVICE, "shop")
            await world.until(lambda: len(world.ready()) == 3)
            await world.client.delete(resources.NAMESPACES, "shop")
            await world.until(lambda: world.client.read(resources.NAMESPACES, "shop") is None)
            left = [d for r in resources.BUILT_IN if r.namespaced for d in world.client.all(r)]
            assert not [d for d in left if d["metadata"]["namespace"] == "shop"]

    run_virtual(main())


def test_orphans_stay_and_are_adopted_again() -> None:
    async def main() -> None:
        async with serving() as world, world.reign("m1"):
            await create(world)
            await world.until(lambda: world.rolled_out("web"))
            before = {p["metadata"]["uid"] for p in world.pods()}
            await world.client.delete(resources.DEPLOYMENTS, "web", NAMESPACE, propagation=Propagation.ORPHAN)
            await world.until(lambda: not world.client.all(resources.DEPLOYMENTS))
            await asyncio.sleep(10)
            await create(world)
            await world.until(lambda: world.rolled_out("web"))
            assert {p["metadata"]["uid"] for p in world.pods()} == before

    run_virtual(main())


def test_what_cannot_be_placed_says_why_and_is_placed_when_a_node_joins() -> None:
    async def main() -> None:
        async with serving(nodes=1) as world, world.reign("m1"):
            wanted = deployment(replicas=2)
            wanted["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "3"}}
            await world.client.create(resources.DEPLOYMENTS, wanted, NAMESPACE)
            message = "0/1 nodes are available: 1 Insufficient cpu."
            await world.until(lambda: message in world.events("FailedScheduling"))
            waiting = [p for p in world.pods() if not p["spec"].get("nodeName")]
            assert [c["message"] for c in waiting[0]["status"]["conditions"]] == [message]
            await world.join("n2")
            await world.until(lambda: len(world.ready()) == 2)

    run_virtual(main())
