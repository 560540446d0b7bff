"""Controllers under failures: lost answers, refused writes, a leader that changes in the middle."""

from __future__ import annotations

import asyncio

from kybern.api import resources
from kybern.api.errors import StatusError, forbidden, unavailable
from kybern.client.acting import LeadershipLost
from kybern.client.fake import FakeClient
from kybern.client.interface import Fence
from kybern.clock import run_virtual
from master.controllers import main as controllers_main
from master.controllers.service_accounts import ServiceAccountController
from tests.unit.master.cluster import NAMESPACE, World, deployment, image_patch


async def create(world: World, **spec: object) -> None:
    await world.client.create(resources.DEPLOYMENTS, deployment(**spec), NAMESPACE)  # type: ignore[arg-type]


def test_failing_writes_cost_time_and_nothing_else() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            world.client.fail_next("*", unavailable("no leader"), times=40)
            await asyncio.sleep(10)
            await create(world, replicas=5)
            await world.until(lambda: world.rolled_out("web"))
            for verb in ("create", "patch", "delete", "get"):
                world.client.fail_next(verb, unavailable("no leader"), times=10)
            await world.client.patch(resources.DEPLOYMENTS, "web", image_patch("v2"), NAMESPACE)
            await world.until(lambda: "v2" in world.sets() and world.rolled_out("web"), within=600)
            await asyncio.sleep(60)
            assert len(world.pods()) == 5

    run_virtual(main())


class LosesAnswers(FakeClient):
    """Carries pod creations out, but says that they failed, now and then; its watches are late."""

    lost = 0

    async def watch(self, *args, **more):  # type: ignore[no-untyped-def]
        async for events in super().watch(*args, **more):
            await asyncio.sleep(0.2)
            yield events

    async def create(self, resource, document, namespace="", **more):  # type: ignore[no-untyped-def]
        result = await super().create(resource, document, namespace, **more)
        if resource == resources.PODS and not more.get("subresource") and self.lost > 0:
            self.lost -= 1
            raise StatusError(504, "Timeout", "the answer was lost")
        return result


def test_a_lost_answer_makes_no_pod_too_many() -> None:
    async def main() -> None:
        world = World()
        world.client = LosesAnswers(world.clock)
        world.agents = type(world.agents)(world.client, world.clock)
        async with world.running():
            world.client.lost = 3
            await create(world, replicas=4)
            most = 0
            for _ in range(600):
                most = max(most, len(world.client.all(resources.PODS)))
                await asyncio.sleep(0.1)
            assert len(world.ready()) == 4
            assert most == 4

    run_virtual(main())


def test_a_used_up_quota_is_asked_a_few_times_only_and_reported() -> None:
    async def main() -> None:
        world = World()
        async with world.running():
            refusal = forbidden("pods", "", "web", "exceeded quota")
            world.client.fail_next("create", unavailable("busy"), times=0)
            original = world.client.create
            asked = 0

            async def refuse(resource, *args, **more):  # type: ignore[no-untyped-def]
                nonlocal asked
                if resource == resources.PODS:
                    asked += 1
                    raise refusal
                return await original(resource, *args, **more)

            world.client.create = refuse  # type: ignore[method-assign]
            await create(world, replicas=100)
            await asyncio.sleep(20)
            assert 1 <= asked < 20
            (owner,) = world.sets().values()
            (condition,) = owner["status"]["conditions"]
            assert (condition["type"], condition["reason"]) == ("ReplicaFailure", "FailedCreate")
            await world.until(lambda: "ReplicaFailure" in str(world.deployment("web")["status"]))
            world.client.create = original  # type: ignore[method-assign]
            await world.until(lambda: "ReplicaFailure" not in str(world.deployment("web")["status"]), within=200)

    run_virtual(main())


def test_a_new_leader_goes_on_in_the_middle_of_a_rollout() -> None:
    async def main() -> None:
        world = World(start=3.0)
        for name in ("n1", "n2"):
            world.add_node(name)
        async with world.agents_running():
            async with world.leading():
                await create(world, replicas=8)
                await world.until(lambda: world.rolled_out("web"))
                await world.client.patch(resources.DEPLOYMENTS, "web", image_patch("v2"), NAMESPACE)
                await world.until(lambda: len(world.ready()) > 0 and len(world.sets()) == 2)
                await asyncio.sleep(4)
                assert not world.rolled_out("web")
            for seed in range(2, 6):  # several short reigns
                async with world.leading(seed=seed):
                    await asyncio.sleep(1.5)
            async with world.leading(seed=9):
                await world.until(lambda: world.rolled_out("web"))
                await asyncio.sleep(30)
                assert len(world.pods()) == 8
                assert {p["spec"]["containers"][0]["image"] for p in world.pods()} == {"v2"}
                numbers = [
                    s["metadata"]["annotations"]["deployment.kubernetes.io/revision"] for s in world.sets().values()
                ]
                assert sorted(numbers) == ["1", "2"]

    run_virtual(main())


def test_who_no_longer_leads_writes_nothing() -> None:
    async def main() -> None:
        world = World()

        def no_fence() -> Fence:
            raise LeadershipLost

        async with world.agents_running(), world.leading(fence=no_fence):
            world.add_node("n1")
            await create(world)
            before = len(world.client.calls)
            await asyncio.sleep(60)
            writers = {c.options.field_manager for c in world.client.calls[before:]}
            assert writers <= {""}  # the agents' alone
            assert not world.sets()

    run_virtual(main())


def test_every_write_of_a_reign_carries_its_fence_and_its_writer() -> None:
    async def main() -> None:
        world = World()
        fence = Fence("kube-system", "kybern-controllers", 7)
        async with world.agents_running(), world.leading(fence=lambda: fence):
            world.add_node("n1")
            await create(world)
            await world.until(lambda: world.rolled_out("web"))
        ours = [c for c in world.client.calls if c.options.field_manager]
        assert {"deployment-controller", "replicaset-controller", "default-scheduler"} <= {
            c.options.field_manager for c in ours
        }
        assert all(c.options.fence == fence for c in ours)

    run_virtual(main())


def test_a_controller_that_fails_is_started_again_and_the_others_go_on(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    async def main() -> None:
        class Failing(ServiceAccountController):
            tries = 0

            async def run(self) -> None:
                Failing.tries += 1
                if Failing.tries < 4:
                    raise RuntimeError("a fault that nobody expected")
                await super().run()

        monkeypatch.setattr(controllers_main, "ServiceAccountController", Failing)
        world = World()
        async with world.running():
            await create(world)
            await world.until(lambda: world.rolled_out("web"), within=5)
            await world.until(lambda: len(world.client.all(resources.SERVICE_ACCOUNTS)) == 3)
            assert Failing.tries == 4

    run_virtual(main())
