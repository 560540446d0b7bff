"""The Node object, the Lease, and what else a node does by itself, on virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kybern.api import resources
from kybern.api.errors import unavailable
from kybern.api.types import Condition
from kybern.client import kinds
from kybern.client.fake import FakeClient
from kybern.client.informer import Informer
from kybern.clock import run_virtual
from node.agent.host import Capacity, Pressure, os_image
from node.agent.image_garbage import ImageGarbage, choose
from node.agent.node_status import Health, conditions_of, resources_of
from node.agent.unwired import UnwiredPodNetwork
from node.network.interface import NetworkError
from node.runtime.interface import Image
from tests.unit.node.agent.bench import Bench, scenario

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def stored(node: Bench) -> dict[str, Any]:
    found = node.client.read(resources.NODES, "n1")
    assert found is not None
    return found


def ready(node: Bench) -> str:
    found = node.client.read(resources.NODES, "n1") or {}
    conditions = found.get("status", {}).get("conditions", ())
    return next((str(c["status"]) for c in conditions if c["type"] == "Ready"), "")


def test_a_node_registers(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        agent = node.start()
        await asyncio.wait_for(agent.ready(), 5)
        await node.until(lambda: ready(node) == "True")
        found = stored(node)
        labels = found["metadata"]["labels"]
        assert (labels["kubernetes.io/hostname"], labels["kubernetes.io/os"], labels["disk"]) == ("n1", "linux", "ssd")
        status = found["status"]
        assert {a["type"]: a["address"] for a in status["addresses"]} == {
            "InternalIP": "192.168.7.11",
            "Hostname": "n1",
        }
        assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
        assert len(status["nodeInfo"]) == 10
        assert status["nodeInfo"]["containerRuntimeVersion"] == "fake://1.0"
        assert status["capacity"]["pods"] == "110"
        assert {c["type"] for c in status["conditions"]} == {
            "Ready",
            "MemoryPressure",
            "DiskPressure",
            "PIDPressure",
            "NetworkUnavailable",
        }

    scenario(tmp_path, steps, labels={"disk": "ssd"})


def test_a_known_node_gets_its_labels_and_keeps_those_of_others(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        theirs = {
            "metadata": {"name": "n1", "labels": {"theirs": "x", "disk": "hdd"}},
            "spec": {"podCIDR": "10.1.0.0/24"},
        }
        node.client.put(resources.NODES, theirs)
        node.start()
        await node.until(lambda: "conditions" in stored(node).get("status", {}))
        found = stored(node)
        assert found["metadata"]["labels"]["theirs"] == "x"
        assert found["metadata"]["labels"]["disk"] == "ssd"
        assert found["spec"]["podCIDR"] == "10.1.0.0/24"

    scenario(tmp_path, steps, labels={"disk": "ssd"})


def test_the_lease_is_renewed_whatever_happens(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        agent = node.start()
        await agent.registration.registered.wait()

        async def hang() -> None:
            await asyncio.Event().wait()

        node.runtime.version = hang  # type: ignore[assignment,method-assign]
        node.runtime.lose()
        await asyncio.sleep(20)
        for _ in range(10):
            lease = node.client.read(resources.LEASES, "n1", "kube-node-lease")
            assert lease is not None
            renewed = datetime.fromisoformat(lease["spec"]["renewTime"])
            assert (node.clock.now() - renewed).total_seconds() <= 5.1
            assert lease["spec"]["leaseDurationSeconds"] == 20
            await asyncio.sleep(7)

    scenario(tmp_path, steps)


def test_status_is_written_when_it_changes_and_each_minute(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        await node.until(lambda: ready(node) == "True")
        await asyncio.sleep(15)
        node.client.calls.clear()
        await asyncio.sleep(290)
        writes = [c for c in node.client.calls if c.resource == resources.NODES]
        assert 3 <= len(writes) <= 6

    scenario(tmp_path, steps)


def test_a_node_that_was_declared_lost_says_at_once_that_it_is_not(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        await node.until(lambda: ready(node) == "True")
        await asyncio.sleep(15)
        conditions = [{**c, "status": "Unknown"} for c in stored(node)["status"]["conditions"]]
        patch = {"status": {"conditions": conditions}}
        await node.client.patch(resources.NODES, "n1", patch, subresource="status")
        assert await node.until(lambda: ready(node) == "True") < 1

    scenario(tmp_path, steps)


def test_a_node_that_was_deleted_registers_again(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.start()
        await node.until(lambda: ready(node) == "True")
        await node.client.delete(resources.NODES, "n1")
        await node.until(lambda: node.client.read(resources.NODES, "n1") is not None, 15)

    scenario(tmp_path, steps)


def test_a_node_registers_when_the_api_comes_later(tmp_path: Path) -> None:
    async def steps(node: Bench) -> None:
        node.client.fail_next("*", unavailable("not yet"), times=30)
        node.start()
        await node.until(lambda: node.client.read(resources.NODES, "n1") is not None, 60)

    scenario(tmp_path, steps)


FINE = Pressure(2**33, 2**36, 2**37, 100, 32768)


@pytest.mark.parametrize(
    ("health", "pressure", "expected"),
    [
        (Health(), FINE, {}),
        (Health("no runtime"), FINE, {"Ready": "ContainerRuntimeNotReady"}),
        (Health("", "no range"), FINE, {"Ready": "NetworkNotReady", "NetworkUnavailable": "NetworkNotReady"}),
        (Health(), replace(FINE, memory_available=2**20), {"MemoryPressure": "NodeHasInsufficientMemory"}),
        (Health(), replace(FINE, disk_available=2**30), {"DiskPressure": "NodeHasInsufficientDisk"}),
        (Health(), replace(FINE, processes=32000), {"PIDPressure": "NodeHasInsufficientPID"}),
    ],
)
def test_conditions(health: Health, pressure: Pressure, expected: dict[str, str]) -> None:
    good = {"Ready": "True"}
    found = conditions_of(health, pressure, (), NOW)
    wrong = {c["type"]: c["reason"] for c in found if c["status"] != good.get(c["type"], "False")}
    assert wrong == expected


def test_transitions_keep_their_time() -> None:
    before = [Condition("Ready", "True", last_transition_time=NOW - timedelta(days=1))]
    found = {c["type"]: c for c in conditions_of(Health(), FINE, before, NOW)}
    assert found["Ready"]["lastTransitionTime"] == "2025-12-31T00:00:00Z"
    assert found["Ready"]["lastHeartbeatTime"] == "2026-01-01T00:00:00Z"
    assert found["DiskPressure"]["lastTransitionTime"] == "2026-01-01T00:00:00Z"


def test_what_is_reserved_is_not_for_pods(tmp_path: Path) -> None:
    config = Bench(tmp_path, reserved={"cpu": "250m", "memory": "1Gi"}).config
    capacity, allocatable = resources_of(config, Capacity(4000, 8 * 2**30, 2**40))
    assert (capacity["cpu"], allocatable["cpu"]) == ("4", "3750m")
    assert (capacity["memory"], allocatable["memory"]) == (f"{8 * 2**20}Ki", f"{7 * 2**20}Ki")
    assert (allocatable["ephemeral-storage"], allocatable["pods"]) == (f"{2**30}Ki", "110")


def test_the_systems_name() -> None:
    assert os_image('NAME="x"\nPRETTY_NAME="Debian GNU/Linux 12"\n') == "Debian GNU/Linux 12"
    assert os_image("") == "Linux"


# --- images


def image(name: str, size: int = 10) -> Image:
    return Image(name, (name,), (), size)


def test_images_that_were_used_longest_ago_go_first() -> None:
    ages = {"a": 10, "b": 30, "c": 20, "used": 40, "new": 1}
    seen = {name: NOW - timedelta(minutes=minutes) for name, minutes in ages.items()}
    every = [image(name) for name in ages]

    def chosen(to_free: int) -> list[str]:
        return [i.id for i in choose(every, {"used"}, seen, NOW, to_free)]

    assert chosen(0) == []
    assert chosen(10) == ["b"]
    assert chosen(11) == ["b", "c"]
    assert chosen(1000) == ["b", "c", "a"]


def test_images_are_removed_only_when_the_disk_is_full(tmp_path: Path) -> None:
    async def main() -> None:
        node = Bench(tmp_path)
        node.runtime.add_image("old:1", size_bytes=100)
        usage = [(50, 100)]
        garbage = ImageGarbage(node.runtime, node.clock, lambda: usage[0])
        await garbage.collect()
        await asyncio.sleep(600)
        await garbage.collect()
        assert len(await node.runtime.images()) == 1
        usage[0] = (90, 100)
        await garbage.collect()
        assert not await node.runtime.images()

    run_virtual(main())


# --- network without wires


def test_addresses_without_wires() -> None:
    async def main() -> None:
        client = FakeClient()
        nodes = Informer(client, kinds.NODES)
        informer = asyncio.create_task(nodes.run())
        network = UnwiredPodNetwork("n1", nodes)
        with pytest.raises(NetworkError, match="no pod range yet"):
            await network.attach("s1", Path("/ns"))
        client.put(resources.NODES, {"metadata": {"name": "n2"}, "spec": {"podCIDR": "10.244.9.0/24"}})
        client.put(resources.NODES, {"metadata": {"name": "n1"}, "spec": {"podCIDR": "10.244.3.0/29"}})
        await network.ready()
        first = await network.attach("s1", Path("/ns"))
        assert await network.attach("s1", Path("/ns")) == first
        others = [await network.attach(f"x{n}", Path("/ns")) for n in range(4)]
        assert len({first, *others}) == 5
        with pytest.raises(NetworkError, match="no address is free"):
            await network.attach("y", Path("/ns"))
        await network.detach("s1")
        assert await network.attach("y", Path("/ns")) == first
        assert len(await network.addresses()) == 5
        informer.cancel()

    run_virtual(main())
