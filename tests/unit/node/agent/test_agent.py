"""Scenarios of the whole agent on virtual time."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

from kybern.api import resources
from kybern.api.errors import unavailable
from node.agent.gate import NetworkGate
from node.runtime.interface import ContainerState
from tests.unit.node.agent.bench import Bench, container, pod, scenario


def test_a_pod_is_started_and_its_status_says_so(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        node.pod("web")
        await node.running("web")
        status = node.status("web")
        assert status["podIP"] == "10.244.0.2"
        assert status["podIPs"] == [{"ip": "10.244.0.2"}]
        assert (status["hostIP"], status["qosClass"]) == ("192.168.7.11", "BestEffort")
        assert {c["type"]: c["status"] for c in status["conditions"]} == {
            "PodReadyToStartContainers": "True",
            "Initialized": "True",
            "Ready": "True",
            "ContainersReady": "True",
            "PodScheduled": "True",
        }
        entry = node.entry("web")
        assert entry["ready"]
        assert entry["started"]
        assert entry["restartCount"] == 0
        assert entry["containerID"].startswith("fake://")
        assert "running" in entry["state"]
        await asyncio.sleep(1)
        assert node.reasons("web") == ["Pulling", "Pulled", "Created", "Started"]

    scenario(tmp_path, steps)


def test_a_deleted_pod_gets_its_grace_period_and_then_its_object_goes(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        node.pod("deaf", containers=[container(command=["sh", "-c", "trap '' TERM; httpd"])])
        await node.running("deaf")
        await node.client.delete(resources.PODS, "deaf", "default")
        await asyncio.sleep(29)
        assert node.exists("deaf")
        assert await node.containers("deaf")
        took = 29 + await node.until(lambda: not node.exists("deaf"))
        assert 30 <= took < 32
        assert not await node.containers("deaf", running=False)
        assert not await node.runtime.sandboxes()
        assert not await node.network.addresses()
        assert not list((tmp_path / "pods").iterdir())
        assert "Killing" in node.reasons("deaf")

    scenario(tmp_path, steps)


def test_a_shorter_grace_period_takes_the_place_of_a_longer_one(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        node.pod("deaf", containers=[container(command=["sh", "-c", "trap '' TERM; httpd"])])
        await node.running("deaf")
        await node.client.delete(resources.PODS, "deaf", "default")
        await asyncio.sleep(1)
        await node.client.delete(resources.PODS, "deaf", "default", grace_seconds=5)
        took = await node.until(lambda: not node.exists("deaf"))
        assert 5 <= took < 7

    scenario(tmp_path, steps)


def test_the_waits_of_a_crash_loop(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        node.pod("bad", containers=[container(command=["false"])])
        starts: list[float] = []
        loop = asyncio.get_running_loop()
        known: set[str] = set()
        while loop.time() < 1300:
            for one in await node.runtime.containers():
                if one.id not in known and one.started_at is not None:
                    known.add(one.id)
                    starts.append(loop.time())
            await asyncio.sleep(0.1)
        waits = [round(b - a) for a, b in itertools.pairwise(starts)]
        assert waits[:7] == [0, 10, 20, 40, 80, 160, 300]
        waiting = node.entry("bad")["state"]["waiting"]
        assert waiting["reason"] == "CrashLoopBackOff"
        assert waiting["message"].startswith("back-off 5m0s restarting failed container=main pod=bad_default(")
        assert node.entry("bad")["lastState"]["terminated"]["exitCode"] == 1
        assert node.entry("bad")["restartCount"] == len(starts) - 1
        assert node.status("bad")["phase"] == "Running"
        # Of the attempts only the last two are kept.
        assert len(await node.containers("bad", running=False)) == 2

    scenario(tmp_path, steps)


def test_an_agent_that_restarts_adopts_what_runs(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        node.pod("web", containers=[container(readinessProbe={"tcpSocket": {"port": 80}})])
        node.pod("once", containers=[container(command=["sleep", "5"])], restartPolicy="Never")
        await node.running("web", "once")
        await node.until(lambda: node.condition("web", "Ready")["status"] == "True")
        before = await node.containers("web")
        await node.stop()
        await asyncio.sleep(60)
        node.runtime.calls.clear()
        node.client.calls.clear()
        node.start()
        await node.until(lambda: node.status("once")["phase"] == "Succeeded")
        await asyncio.sleep(60)
        assert await node.containers("web") == before
        done = {name for name, _ in node.runtime.calls}
        assert not done & {"run_sandbox", "create_container", "start_container", "stop_container"}
        # A pod that serves is not declared unready only because its agent was away.
        statuses = [c.body for c in node.client.calls if c.subresource == "status" and c.key.name == "web"]
        assert all(e["ready"] for s in statuses for e in s["status"]["containerStatuses"])

    scenario(tmp_path, steps)


def test_an_agent_that_dies_in_the_middle_of_a_start_goes_on_with_it(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        for moment in range(1, 25):
            node.start()
            node.pod(f"p{moment}", initContainers=[container("init", ["true"])])
            await asyncio.sleep(moment * 0.02)
            await node.stop()
        node.start()
        names = [f"p{moment}" for moment in range(1, 25)]
        await node.running(*names)
        assert len(await node.containers()) == len(names)
        assert len(await node.runtime.sandboxes()) == len(names)
        assert all(node.entry(name)["restartCount"] == 0 for name in names)

    scenario(tmp_path, steps)


def test_while_the_api_is_away_pods_run_on_and_are_restarted(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        node.pod("web")
        node.pod("victim")
        await node.running("web", "victim")
        node.client.fail_next("*", unavailable("cut off"), times=100_000)
        node.client.break_watches()
        await asyncio.sleep(30)
        (first,) = await node.containers("web")
        node.runtime.finish(first.id, 3)
        await asyncio.sleep(30)
        (second,) = await node.containers("web")
        assert second.attempt == 1
        # Meanwhile one of them is deleted, and nobody can tell the agent.
        node.client._failures.clear()
        await node.client.delete(resources.PODS, "victim", "default", grace_seconds=0)
        await node.until(lambda: node.entry("web").get("restartCount") == 1)
        await asyncio.sleep(20)
        assert not await node.containers("victim", running=False)
        assert await node.containers("web") == [second]

    scenario(tmp_path, steps)


def test_what_belongs_to_no_pod_is_removed_once_the_api_has_said_so(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        node.pod("old")
        node.pod("kept")
        await node.running("old", "kept")
        await node.stop()
        await node.client.delete(resources.PODS, "old", "default", grace_seconds=0)
        node.client.fail_next("list", unavailable("cut off"), times=50)
        node.start()
        await asyncio.sleep(5)
        assert len(await node.containers()) == 2
        node.client._failures.clear()
        await asyncio.sleep(60)
        assert [c.pod.name for c in await node.containers(running=False)] == ["kept"]
        assert len(list((tmp_path / "pods").iterdir())) == 1

    scenario(tmp_path, steps)


def test_a_runtime_that_is_lost_and_comes_back(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        node.pod("web")
        await node.running("web")

        def ready() -> str:
            found = node.client.read(resources.NODES, "n1")
            assert found is not None
            return str(next(c["status"] for c in found["status"]["conditions"] if c["type"] == "Ready"))

        assert ready() == "True"
        before = await node.containers("web")
        node.runtime.lose()
        await node.until(lambda: ready() == "False")
        await asyncio.sleep(60)
        node.runtime.restore()
        await node.until(lambda: ready() == "True")
        await asyncio.sleep(30)
        assert await node.containers("web") == before
        node.runtime.lose()
        await asyncio.sleep(30)
        node.runtime.restore(kill=True)
        await node.until(lambda: node.entry("web")["restartCount"] == 1, 60)
        await node.until(lambda: node.condition("web", "Ready")["status"] == "True", 60)
        assert len(await node.containers("web")) == 1

    scenario(tmp_path, steps)


def test_a_namesake_starts_only_when_its_predecessor_has_ended(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        node.pod("db-0", containers=[container(command=["sh", "-c", "trap '' TERM; httpd"])])
        await node.running("db-0")
        await node.client.delete(resources.PODS, "db-0", "default", grace_seconds=0)
        node.client.put(resources.PODS, pod("db-0", uid="second"))
        most = 0
        for _ in range(1000):
            most = max(most, len(await node.containers("db-0")))
            await asyncio.sleep(0.02)
        assert most == 1
        await node.running("db-0")
        (only,) = await node.containers("db-0")
        assert only.pod.uid == "second"

    scenario(tmp_path, steps)


def test_a_pod_whose_object_is_taken_away_is_stopped(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        node.pod("web")
        await node.running("web")
        await node.client.delete(resources.PODS, "web", "default", grace_seconds=0)
        await asyncio.sleep(5)
        assert not await node.containers("web", running=False)
        assert node.agent is not None
        assert len(node.agent.workers) == 0

    scenario(tmp_path, steps)


def test_only_so_many_pods_start_at_once(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.runtime._start_seconds = 1.0
        node.start()
        names = [f"p{number}" for number in range(8)]
        for name in names:
            node.pod(name)
        starting = 0
        for _ in range(200):
            found = await node.runtime.containers()
            starting = max(starting, sum(c.state is ContainerState.CREATED for c in found))
            await asyncio.sleep(0.05)
        assert starting == 3
        await node.running(*names)

    scenario(tmp_path, steps, parallel_starts=3)


def test_pods_that_come_before_the_network_wait_for_it(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.gate = NetworkGate(ready=False)
        node.start()
        node.pod("early")
        node.pod("host", hostNetwork=True)
        node.pod("leaves")
        await node.running("host")
        await node.client.delete(resources.PODS, "leaves", "default")
        await node.until(lambda: not node.exists("leaves"), 2)
        found = node.client.read(resources.NODES, "n1")
        assert found is not None
        assert {c["status"] for c in found["status"]["conditions"] if c["type"] == "NetworkUnavailable"} == {"True"}
        node.gate.open()
        assert await node.until(lambda: node.status("early")["phase"] == "Running") < 1
        assert "FailedCreatePodSandBox" not in node.reasons("early")

    scenario(tmp_path, steps)
