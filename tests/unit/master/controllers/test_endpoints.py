"""EndpointSlices and Endpoints of Services, on virtual time."""

from __future__ import annotations

import asyncio

from kybern.api import resources
from kybern.client.fake import Document
from kybern.clock import run_virtual
from tests.unit.master.cluster import NAMESPACE, World, deployment

SERVICE: Document = {
    "metadata": {"name": "web", "namespace": NAMESPACE, "labels": {"team": "a"}},
    "spec": {
        "selector": {"app": "web"},
        "clusterIP": "10.96.0.77",
        "clusterIPs": ["10.96.0.77"],
        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
    },
}


def slices(world: World) -> list[Document]:
    return world.client.all(resources.ENDPOINT_SLICES)


def endpoints(world: World, condition: str = "ready") -> set[str]:
    return {
        e["targetRef"]["name"] for s in slices(world) for e in s["endpoints"] if e["conditions"].get(condition) is True
    }


def legacy(world: World) -> Document:
    found = world.client.read(resources.ENDPOINTS, "web", NAMESPACE)
    assert found is not None
    return found


def test_slices_follow_the_pods() -> None:
    async def main() -> None:
        world = World(stop=5.0)
        async with world.running():
            world.client.put(resources.SERVICES, SERVICE)
            await world.until(lambda: len(slices(world)) == 1)
            assert slices(world)[0]["endpoints"] == []
            await world.client.create(resources.DEPLOYMENTS, deployment(), NAMESPACE)
            await world.until(lambda: len(endpoints(world)) == 3)
            (only,) = slices(world)
            assert only["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080}]
            assert only["addressType"] == "IPv4"
            assert only["metadata"]["labels"] == {
                "team": "a",
                "kubernetes.io/service-name": "web",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            }
            assert {e["nodeName"] for e in only["endpoints"]} == {"n1", "n2"}
            await world.until(lambda: len(legacy(world).get("subsets", [{}])[0].get("addresses", [])) == 3)
            victim = world.pods()[0]["metadata"]["name"]
            await world.client.delete(resources.PODS, victim, NAMESPACE)
            await world.until(lambda: victim in endpoints(world, "terminating"))
            assert victim in endpoints(world, "serving") - endpoints(world, "ready")
            await world.until(lambda: len(endpoints(world)) == 3 and not endpoints(world, "terminating"))
            await world.client.delete(resources.SERVICES, "web", NAMESPACE)
            await world.until(lambda: not world.client.all(resources.ENDPOINTS))

    run_virtual(main())


def test_a_rollout_changes_endpoints_in_few_writes() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            world.client.put(resources.SERVICES, SERVICE)
            await world.client.create(resources.DEPLOYMENTS, deployment(replicas=60), NAMESPACE)
            await world.until(lambda: len(endpoints(world)) == 60)
            written = [c for c in world.client.calls if c.resource == resources.ENDPOINT_SLICES]
            assert len(written) <= 12
            await asyncio.sleep(60)
            assert [c for c in world.client.calls if c.resource == resources.ENDPOINT_SLICES] == written

    run_virtual(main())


def test_a_changed_service_changes_ports_and_labels() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            world.client.put(resources.SERVICES, SERVICE)
            await world.client.create(resources.DEPLOYMENTS, deployment(replicas=1), NAMESPACE)
            await world.until(lambda: len(endpoints(world)) == 1)
            ports = [{"name": "http", "port": 80, "targetPort": 9090, "protocol": "TCP"}]
            patch = {"metadata": {"labels": {"team": None, "tier": "front"}}, "spec": {"ports": ports}}
            await world.client.patch(resources.SERVICES, "web", patch, NAMESPACE)
            await world.until(lambda: [s["ports"][0]["port"] for s in slices(world)] == [9090])
            labels = slices(world)[0]["metadata"]["labels"]
            assert "team" not in labels
            assert labels["tier"] == "front"
            await world.until(lambda: legacy(world)["metadata"]["labels"].get("tier") == "front")

    run_virtual(main())


def test_a_service_without_selector_is_left_alone() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            own = {
                "metadata": {"name": "web", "namespace": NAMESPACE},
                "subsets": [{"addresses": [{"ip": "192.0.2.1"}]}],
            }
            before = world.client.put(resources.ENDPOINTS, own)
            world.client.put(resources.SERVICES, {**SERVICE, "spec": {**SERVICE["spec"], "selector": {}}})
            await asyncio.sleep(10)
            assert not slices(world)
            await world.client.delete(resources.SERVICES, "web", NAMESPACE)
            await asyncio.sleep(10)
            assert legacy(world) == before

    run_virtual(main())
