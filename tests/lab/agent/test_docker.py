"""Real pods: what is in their containers, what survives the agent, what is left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from kybern.api import resources
from node.volumes.mounts import mount_points
from tests.lab.agent.conftest import Node


def shell(script: str, **more: Any) -> dict[str, Any]:
    base = {"name": "main", "image": "busybox", "imagePullPolicy": "Never"}
    return {**base, "command": ["sh", "-c"], "args": [script], **more}


WAIT = "trap 'exit 0' TERM; while true; do sleep 0.1; done"


async def test_what_containers_find(node: Node) -> None:
    runtime = node.start()
    metadata = {"namespace": "default"}
    node.client.put(resources.SECRETS, {"metadata": {"name": "s", **metadata}, "data": {"password": "aHVudGVyMg=="}})
    node.client.put(resources.CONFIG_MAPS, {"metadata": {"name": "c", **metadata}, "data": {"colour": "blue"}})
    mounts = [
        {"name": "memory", "mountPath": "/memory"},
        {"name": "secret", "mountPath": "/secret", "readOnly": True},
        {"name": "config", "mountPath": "/colour", "subPath": "colour"},
        {"name": "scratch", "mountPath": "/scratch"},
    ]
    uid = node.pod(
        "web",
        shell(
            WAIT,
            volumeMounts=mounts,
            env=[{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            readinessProbe={"exec": {"command": ["test", "-e", "/scratch/ready"]}, "periodSeconds": 1},
            lifecycle={"postStart": {"exec": {"command": ["touch", "/scratch/ready"]}}},
            resources={"limits": {"memory": "32Mi"}},
            securityContext={"runAsUser": 1234},
        ),
        volumes=[
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "secret", "secret": {"secretName": "s"}},
            {"name": "config", "configMap": {"name": "c"}},
            {"name": "scratch", "emptyDir": {}},
        ],
        hostAliases=[{"ip": "10.1.2.3", "hostnames": ["db"]}],
    )
    entry = await node.running("web")
    key = entry["containerID"].partition("//")[2]

    async def says(script: str) -> str:
        result = await runtime.exec_sync(key, ["sh", "-c", script], 10)
        return result.output.decode().strip()

    assert await says("cat /secret/password /colour; echo; id -u; echo $POD; hostname") == "hunter2blue\n1234\nweb\nweb"
    assert "tmpfs" in await says("grep ' /memory ' /proc/mounts")
    assert "size=1024k" in await says("grep ' /memory ' /proc/mounts")
    assert "tmpfs" in await says("grep ' /secret ' /proc/mounts")
    assert await says("touch /secret/x 2>&1; echo $?") != "0"
    assert "10.1.2.3\tdb" in await says("cat /etc/hosts")
    assert "search default.svc.cluster.local" in await says("cat /etc/resolv.conf")
    root = node.config.data_dir / "pods" / uid
    assert len([p for p in mount_points() if root in p.parents]) == 2
    await node.clear()
    assert not root.exists()
    assert not [p for p in mount_points() if root in p.parents]
    assert not await runtime.containers()
    assert not await runtime.sandboxes()


async def test_pods_survive_the_agent(node: Node) -> None:
    node.start()
    node.pod("web", shell(WAIT))
    node.pod("crash", shell("exit 3"), restartPolicy="Never")
    before = await node.running("web")
    await node.until(lambda: node.status("crash").get("phase") == "Failed")
    await node.kill()
    runtime = node.start()
    await asyncio.sleep(1)
    node.pod("second", shell(WAIT))
    await node.running("second")
    assert await node.running("web") == before
    assert node.status("crash")["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    assert len(await runtime.sandboxes()) == 3


async def test_a_container_that_ends_is_started_again(node: Node) -> None:
    node.start()
    node.pod("web", shell("echo bye > /dev/termination-log; sleep 0.2; exit 7"))
    await node.until(lambda: node.status("web").get("containerStatuses", [{}])[0].get("restartCount") == 1)
    await node.until(lambda: "terminated" in node.status("web")["containerStatuses"][0].get("lastState", {}))
    ended = node.status("web")["containerStatuses"][0]["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (7, "Error", "bye\n")


async def test_a_command_that_does_not_exist(node: Node) -> None:
    node.start()
    node.pod("bad", {**shell(""), "command": ["/no/such/program"]})

    def entry() -> dict[str, Any]:
        found: dict[str, Any] = node.status("bad").get("containerStatuses", [{}])[0]
        return found

    await node.until(lambda: bool(entry().get("state", {}).get("waiting", {}).get("message")))
    await node.until(
        lambda: "no/such/program" in str(entry()) and entry()["state"].get("waiting", {}).get("reason") is not None
    )


async def test_volumes_of_pods_that_are_gone_are_removed(node: Node, tmp_path: Path) -> None:
    node.start()
    uid = node.pod("web", shell(WAIT), volumes=[{"name": "m", "emptyDir": {"medium": "Memory"}}])
    await node.running("web")
    await node.kill()
    await node.client.delete(resources.PODS, "web", "default", grace_seconds=0)
    runtime = node.start()
    await node.until(lambda: not (tmp_path / "pods" / uid).exists())
    async with asyncio.timeout(30):
        while True:
            if not await runtime.sandboxes():
                break
            await asyncio.sleep(0.1)
    assert not [p for p in mount_points() if tmp_path in p.parents]
