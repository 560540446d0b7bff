"""Namespaces, garbage, accounts: scenarios on virtual time."""

from __future__ import annotations

import asyncio

from kybern.api import resources
from kybern.client.controller import ControllerContext
from kybern.client.fake import Document
from kybern.client.informer import Informers
from kybern.client.interface import Propagation
from kybern.clock import run_virtual
from master.controllers.pod_gc import PodGarbageCollector
from tests.unit.master.cluster import CA, NAMESPACE, World, deployment


def config(name: str, owner: Document | None = None, *, blocks: bool = True, namespace: str = NAMESPACE) -> Document:
    meta: Document = {"name": name, "namespace": namespace}
    if owner is not None:
        meta["ownerReferences"] = [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "blockOwnerDeletion": blocks,
            }
        ]
    return {"metadata": meta}


def names(world: World) -> set[str]:
    return {
        d["metadata"]["name"]
        for d in world.client.all(resources.CONFIG_MAPS)
        if d["metadata"]["namespace"] == NAMESPACE
    } - {"kube-root-ca.crt"}


def owners(world: World, name: str) -> list[Document]:
    found = world.client.read(resources.CONFIG_MAPS, name, NAMESPACE) or {"metadata": {}}
    return list(found["metadata"].get("ownerReferences", []))


def test_every_namespace_has_an_account_and_the_authority() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await world.client.create(resources.NAMESPACES, {"metadata": {"name": "shop"}})
            await world.until(lambda: world.client.read(resources.SERVICE_ACCOUNTS, "default", "shop") is not None)
            await world.until(lambda: world.client.read(resources.CONFIG_MAPS, "kube-root-ca.crt", "shop") is not None)
            await world.client.delete(resources.SERVICE_ACCOUNTS, "default", "shop")
            await world.until(lambda: world.client.read(resources.SERVICE_ACCOUNTS, "default", "shop") is not None)
            await world.client.patch(resources.CONFIG_MAPS, "kube-root-ca.crt", {"data": {"ca.crt": "forged"}}, "shop")

            def mended() -> bool:
                found = world.client.read(resources.CONFIG_MAPS, "kube-root-ca.crt", "shop")
                return found is not None and found["data"] == {"ca.crt": CA.decode()}

            await world.until(mended)

    run_virtual(main())


def test_a_deleted_namespace_goes_with_all_that_is_in_it() -> None:
    async def main() -> None:
        world = World(stop=3.0)
        async with world.running():
            await world.client.create(resources.NAMESPACES, {"metadata": {"name": "shop"}})
            await world.client.create(resources.DEPLOYMENTS, deployment() | {"metadata": {"name": "web"}}, "shop")
            await world.client.create(resources.CONFIG_MAPS, config("settings", namespace="shop"), "shop")
            await world.until(lambda: len(world.ready()) == 3)
            held = config("held", namespace="shop")
            held["metadata"]["finalizers"] = ["example.com/mine"]
            await world.client.create(resources.CONFIG_MAPS, held, "shop")
            await world.client.delete(resources.NAMESPACES, "shop")
            await asyncio.sleep(30)
            found = world.client.read(resources.NAMESPACES, "shop")
            assert found is not None
            assert "example.com/mine in 1 resource instances" in str(found["status"]["conditions"])
            assert world.client.read(resources.CONFIG_MAPS, "settings", "shop") is None
            await world.client.patch(resources.CONFIG_MAPS, "held", {"metadata": {"finalizers": None}}, "shop")
            await world.until(lambda: world.client.read(resources.NAMESPACES, "shop") is None)
            left = [r.plural for r in resources.BUILT_IN if r.namespaced for d in world.client.all(r)
                    if d["metadata"]["namespace"] == "shop" and r != resources.EVENTS]  # fmt: skip
            assert not left

    run_virtual(main())


def test_dependents_go_after_their_last_owner() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            first, second = (world.client.put(resources.CONFIG_MAPS, config(n)) for n in ("first", "second"))
            both = config("both", first)
            both["metadata"]["ownerReferences"] += config("", second)["metadata"]["ownerReferences"]
            world.client.put(resources.CONFIG_MAPS, both)
            child = world.client.put(resources.CONFIG_MAPS, config("child", first))
            world.client.put(resources.CONFIG_MAPS, config("grandchild", child))
            await asyncio.sleep(5)
            await world.client.delete(resources.CONFIG_MAPS, "first", NAMESPACE)
            await world.until(lambda: names(world) == {"second", "both"})
            await world.until(lambda: len(owners(world, "both")) == 1)
            await world.client.delete(resources.CONFIG_MAPS, "second", NAMESPACE)
            await world.until(lambda: not names(world))

    run_virtual(main())


def test_in_the_foreground_the_owner_goes_last() -> None:
    async def main() -> None:
        world = World(stop=5.0)
        async with world.running():
            await world.client.create(resources.DEPLOYMENTS, deployment(), NAMESPACE)
            await world.until(lambda: world.rolled_out("web"))
            await world.client.delete(resources.DEPLOYMENTS, "web", NAMESPACE, propagation=Propagation.FOREGROUND)
            while world.client.all(resources.DEPLOYMENTS):
                if not world.client.all(resources.REPLICA_SETS):
                    assert not world.client.all(resources.PODS)
                await asyncio.sleep(0.05)
            assert not world.client.all(resources.REPLICA_SETS)
            assert not world.client.all(resources.PODS)

    run_virtual(main())


def test_orphans_stay_and_are_adopted_again() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await world.client.create(resources.DEPLOYMENTS, deployment(), NAMESPACE)
            await world.until(lambda: world.rolled_out("web"))
            before = {p["metadata"]["uid"] for p in world.pods()}
            await world.client.delete(resources.DEPLOYMENTS, "web", NAMESPACE, propagation=Propagation.ORPHAN)
            await world.until(lambda: not world.client.all(resources.DEPLOYMENTS))
            await asyncio.sleep(10)
            (left,) = world.sets().values()
            assert not left["metadata"].get("ownerReferences")
            await world.client.create(resources.DEPLOYMENTS, deployment(), NAMESPACE)
            await world.until(lambda: world.rolled_out("web"))
            assert {p["metadata"]["uid"] for p in world.pods()} == before

    run_virtual(main())


def test_an_owner_of_another_uid_is_no_owner() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            namesake = world.client.put(resources.CONFIG_MAPS, config("owner"))
            stranger = config("child", namesake)
            stranger["metadata"]["ownerReferences"][0]["uid"] = "somebody-before"
            world.client.put(resources.CONFIG_MAPS, stranger)
            unknown = config("of-a-custom-kind", namesake)
            unknown["metadata"]["ownerReferences"][0] |= {"apiVersion": "example.com/v1", "kind": "Widget"}
            world.client.put(resources.CONFIG_MAPS, unknown)
            await world.until(lambda: names(world) == {"owner", "of-a-custom-kind"})

    run_virtual(main())


def test_ended_pods_beyond_the_limit_go_the_oldest_first() -> None:
    async def main() -> None:
        world = World()
        for number in range(8):
            world.client.put(
                resources.PODS,
                {
                    "metadata": {
                        "name": f"job-{number}",
                        "namespace": NAMESPACE,
                        "creationTimestamp": f"2026-01-01T00:00:0{number}Z",
                    },
                    "spec": {"containers": []},
                    "status": {"phase": "Succeeded"},
                },
            )
        context = ControllerContext(world.client, Informers(world.client), clock=world.clock)
        collector = PodGarbageCollector(context, limit=5)
        tasks = [asyncio.create_task(collector.run()), asyncio.create_task(context.informers.run())]
        await world.until(lambda: len(world.client.all(resources.PODS)) == 5)
        assert [p["metadata"]["name"] for p in world.client.all(resources.PODS)] == [f"job-{n}" for n in range(3, 8)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run_virtual(main())


def test_a_deleted_pod_that_never_had_a_node_goes() -> None:
    async def main() -> None:
        world = World()
        async with world.running(nodes=0):
            lost = {"metadata": {"name": "p", "namespace": NAMESPACE, "deletionTimestamp": "2026-01-01T00:00:00Z"}}
            world.client.put(resources.PODS, {**lost, "spec": {"containers": []}})
            await world.until(lambda: not world.client.all(resources.PODS))

    run_virtual(main())
