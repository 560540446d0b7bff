"""Minutes of random faults on virtual time, by seed; afterwards everything must come to what is wanted, exactly."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from kybern.api import resources
from kybern.api.errors import StatusError, expired, modified, timeout, unavailable
from kybern.clock import run_virtual
from tests.unit.master.cluster import NAMESPACE, World, deployment, image_patch, is_ready

NODES = ("n1", "n2", "n3")
SERVICE = {
    "metadata": {"name": "web", "namespace": NAMESPACE},
    "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.9", "ports": [{"port": 80, "protocol": "TCP"}]},
}


class Chaos:
    """Does harm, one thing at a time, and keeps count of what is wanted."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.replicas = 6
        self.version = 1

    async def act(self) -> None:
        action = self.rng.choice(
            [self.fail, self.fail, self.break_watches, self.expire, self.cut, self.heal, self.kill_pod, self.scale,
             self.change, self.wait, self.wait]
        )  # fmt: skip
        with contextlib.suppress(StatusError):  # the administrator is not spared
            await action()

    async def fail(self) -> None:
        error = self.rng.choice([unavailable("no leader"), timeout("slow"), modified("pods", "", "x")])
        self.world.client.fail_next(self.rng.choice(["*", "create", "patch", "delete"]), error, self.rng.randint(1, 8))

    async def break_watches(self) -> None:
        self.world.client.break_watches()

    async def expire(self) -> None:
        self.world.client.break_watches(expired("too old"))
        self.world.client.compact()

    async def cut(self) -> None:
        self.world.agents.down.add(self.rng.choice(NODES))

    async def heal(self) -> None:
        self.world.agents.down.clear()

    async def kill_pod(self) -> None:
        pods = self.world.pods()
        if pods:
            await self.world.client.delete(resources.PODS, self.rng.choice(pods)["metadata"]["name"], NAMESPACE)

    async def scale(self) -> None:
        replicas = self.rng.randint(0, 12)
        await self.world.client.patch(resources.DEPLOYMENTS, "web", {"spec": {"replicas": replicas}}, NAMESPACE)
        self.replicas = replicas

    async def change(self) -> None:
        version = self.rng.randint(1, 4)
        await self.world.client.patch(resources.DEPLOYMENTS, "web", image_patch(f"v{version}"), NAMESPACE)
        self.version = version

    async def wait(self) -> None:
        await asyncio.sleep(self.rng.uniform(0, 40))


def settled(world: World, chaos: Chaos) -> bool:
    """Whether everything is exactly as it is wanted, with nothing left over."""
    pods = world.client.all(resources.PODS)
    images = {p["spec"]["containers"][0]["image"] for p in pods}
    endpoints = [
        e["targetRef"]["name"]
        for s in world.client.all(resources.ENDPOINT_SLICES)
        for e in s["endpoints"]
        if e["conditions"]["ready"]
    ]
    return (
        world.rolled_out("web")
        and len(pods) == chaos.replicas
        and all(is_ready(p) and not p["metadata"].get("deletionTimestamp") for p in pods)
        and images <= {f"v{chaos.version}"}
        and sorted(endpoints) == sorted(p["metadata"]["name"] for p in pods)
        and not any(n["spec"].get("taints") for n in world.client.all(resources.NODES))
    )


@pytest.mark.parametrize("seed", range(8))
def test_everything_comes_right_after_faults_of_every_kind(seed: int) -> None:
    async def main() -> None:
        world, rng = World(), random.Random(seed)
        for name in NODES:
            world.add_node(name)
        world.client.put(resources.SERVICES, SERVICE)
        await world.client.create(resources.DEPLOYMENTS, deployment(replicas=6), NAMESPACE)
        chaos = Chaos(world, rng)
        async with world.agents_running():
            for reign in range(6):
                async with world.leading(seed=reign):
                    for _ in range(rng.randint(3, 12)):
                        await chaos.act()
                        await asyncio.sleep(rng.uniform(0, 3))
            # The faults end.
            await chaos.heal()
            world.client.fail_next("none", unavailable(""), times=0)
            async with world.leading(seed=99):
                await world.until(lambda: settled(world, chaos), within=400)
                await asyncio.sleep(120)
                assert settled(world, chaos)

    run_virtual(main())


def test_nothing_is_written_while_nothing_changes() -> None:
    async def main() -> None:
        world = World()
        async with world.running(nodes=3):
            world.client.put(resources.SERVICES, SERVICE)
            await world.client.create(resources.DEPLOYMENTS, deployment(replicas=6), NAMESPACE)
            await world.until(lambda: world.rolled_out("web"))
            await asyncio.sleep(30)
            before = len(world.client.calls)
            await asyncio.sleep(600)
            renewals = [c for c in world.client.calls[before:] if c.resource == resources.LEASES]
            assert len(world.client.calls) - before == len(renewals)

    run_virtual(main())
