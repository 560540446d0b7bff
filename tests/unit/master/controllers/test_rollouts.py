"""Deployments from the first pod to the last, on virtual time."""

from __future__ import annotations

import asyncio
from functools import partial

from kybern.api import resources
from kybern.clock import run_virtual
from tests.unit.master.cluster import NAMESPACE, World, deployment, image_patch


async def created(world: World, **spec: object) -> None:
    await world.client.create(resources.DEPLOYMENTS, deployment(**spec), NAMESPACE)  # type: ignore[arg-type]
    await world.until(lambda: world.rolled_out("web"))


def rolled_to(world: World, image: str) -> bool:
    return image in world.sets() and world.rolled_out("web")


def test_a_deployment_becomes_ready_pods_on_all_nodes() -> None:
    async def main() -> None:
        world = World()
        async with world.running(nodes=2):
            await created(world, replicas=4)
            assert len(world.ready(app="web")) == 4
            assert sorted(p["spec"]["nodeName"] for p in world.pods()) == ["n1", "n1", "n2", "n2"]
            found = world.deployment("web")
            assert found["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
            conditions = {c["type"]: c for c in found["status"]["conditions"]}
            await world.until(lambda: "has successfully progressed" in str(world.deployment("web")["status"]))
            assert conditions["Available"]["status"] == "True"
            (owner,) = world.sets().values()
            await asyncio.sleep(1)
            assert world.events("ScalingReplicaSet") == [
                f"Scaled up replica set {owner['metadata']['name']} from 0 to 4"
            ]
            assert len(world.events("SuccessfulCreate")) == 4
            assert len(world.events("Scheduled")) == 4

    run_virtual(main())


def test_a_rolling_update_keeps_to_its_bounds() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}}
            await created(world, replicas=6, strategy=rolling)
            await world.client.patch(resources.DEPLOYMENTS, "web", image_patch("v2"), NAMESPACE)
            fewest, most = 6, 6
            while not (world.rolled_out("web") and "v2" in world.sets()):
                fewest = min(fewest, len(world.ready()))
                most = max(most, len(world.pods()))
                await asyncio.sleep(0.05)
            assert fewest >= 5
            assert most <= 8
            assert {p["spec"]["containers"][0]["image"] for p in world.pods()} == {"v2"}
            assert world.sets()["v1"]["spec"]["replicas"] == 0
            assert world.deployment("web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"

    run_virtual(main())


def test_going_back_reuses_the_old_set_and_makes_it_the_newest_revision() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await created(world)
            first = world.sets()["v1"]["metadata"]["name"]
            for image in ("v2", "v1"):
                await world.client.patch(resources.DEPLOYMENTS, "web", image_patch(image), NAMESPACE)
                await world.until(lambda: not world.rolled_out("web"))
                await world.until(lambda: world.rolled_out("web"))
            again = world.sets()["v1"]
            assert again["metadata"]["name"] == first
            assert again["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
            assert again["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"
            assert world.deployment("web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"

    run_virtual(main())


def test_a_rollout_that_is_overtaken_ends_with_the_last_template() -> None:
    async def main() -> None:
        world = World(start=5.0)
        async with world.running():
            await created(world, replicas=4)
            for image in ("v2", "v3", "v4"):
                await world.client.patch(resources.DEPLOYMENTS, "web", image_patch(image), NAMESPACE)
                await asyncio.sleep(2)
            await world.until(lambda: world.rolled_out("web"))
            assert {p["spec"]["containers"][0]["image"] for p in world.pods()} == {"v4"}
            sizes = {image: s["spec"]["replicas"] for image, s in world.sets().items()}
            assert sizes == {"v1": 0, "v2": 0, "v3": 0, "v4": 4}

    run_virtual(main())


def test_a_stuck_rollout_says_so_and_keeps_what_serves() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await created(world, replicas=4, progressDeadlineSeconds=30)
            await world.client.patch(resources.DEPLOYMENTS, "web", image_patch("broken"), NAMESPACE)

            def stuck() -> bool:
                return "ProgressDeadlineExceeded" in str(world.deployment("web")["status"]["conditions"])

            took = await world.until(stuck)
            assert 30 <= took < 40
            assert len(world.ready()) == 3  # a quarter of four may be missing
            await world.client.patch(resources.DEPLOYMENTS, "web", image_patch("v1"), NAMESPACE)
            await world.until(lambda: world.rolled_out("web"))
            await world.until(lambda: not stuck())

    run_virtual(main())


def test_recreate_never_runs_two_versions() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await created(world, strategy={"type": "Recreate"})
            await world.client.patch(resources.DEPLOYMENTS, "web", image_patch("v2"), NAMESPACE)
            while not (world.rolled_out("web") and "v2" in world.sets()):
                images = {p["spec"]["containers"][0]["image"] for p in world.client.all(resources.PODS)}
                assert len(images) <= 1
                await asyncio.sleep(0.05)

    run_virtual(main())


def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await created(world)
            patch = {"spec": {**image_patch("v2")["spec"], "paused": True, "replicas": 5}}
            await world.client.patch(resources.DEPLOYMENTS, "web", patch, NAMESPACE)
            await world.until(lambda: len(world.ready()) == 5)
            await asyncio.sleep(5)
            assert set(world.sets()) == {"v1"}
            assert "DeploymentPaused" in str(world.deployment("web")["status"]["conditions"])
            await world.client.patch(resources.DEPLOYMENTS, "web", {"spec": {"paused": None}}, NAMESPACE)
            await world.until(lambda: "v2" in world.sets() and world.rolled_out("web"))

    run_virtual(main())


def test_old_revisions_beyond_the_limit_go() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await created(world, replicas=1, revisionHistoryLimit=2)
            for number in range(2, 7):
                await world.client.patch(resources.DEPLOYMENTS, "web", image_patch(f"v{number}"), NAMESPACE)
                await world.until(partial(rolled_to, world, f"v{number}"))
            await world.until(lambda: len(world.sets()) == 3)
            assert set(world.sets()) == {"v4", "v5", "v6"}

    run_virtual(main())


def test_what_a_deleted_deployment_made_goes_with_it() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            await created(world)
            await world.client.delete(resources.DEPLOYMENTS, "web", NAMESPACE)
            await world.until(lambda: not world.client.all(resources.REPLICA_SETS))
            await world.until(lambda: not world.client.all(resources.PODS))

    run_virtual(main())
