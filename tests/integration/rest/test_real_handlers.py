"""kubectl against the door on the real API server, with its store in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from kybern.api import resources
from kybern.client.memory_store import MemoryStore
from master.apiserver.server import ApiServer
from tests.integration.apiserver.api import Api, node
from tests.integration.rest.serving import Kubectl, find_kubectl, serve

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "busybox:1"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80}]}
"""


@dataclass
class Cluster:
    """The API in process, and kubectl at its door."""

    api: Api
    kubectl: Kubectl


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """An API server with a node and the namespace `default`."""
    program = find_kubectl()
    assert program is not None, "no kubectl: set KYBERN_KUBECTL, or run `make up` once"
    store = MemoryStore()
    async with ApiServer(store, rng=Random(1)) as server:
        api = Api(server)
        await api.prepare()
        await api.create(resources.NODES, node("n1"))
        async with serve(server.handlers, server.authenticator, tmp_path) as served:
            yield Cluster(api, Kubectl(program, served))
    await store.close()


async def test_a_deployment_and_its_service(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    assert (await kubectl("apply", "-f", "-", stdin=MANIFEST)).count(" created") == 2
    assert (await kubectl("apply", "-f", "-", stdin=MANIFEST)).count(" unchanged") == 2
    service = (await kubectl("get", "svc", "web", "--no-headers")).split()
    assert service[1] == "NodePort"
    assert service[4].startswith("80:3")
    await kubectl("scale", "deploy/web", "--replicas=5")
    await kubectl("set", "image", "deploy/web", "c=busybox:2")
    await kubectl("rollout", "restart", "deploy/web")
    await kubectl("label", "deploy/web", "a=b")
    await kubectl("edit", "deploy/web", KUBE_EDITOR="sed -i s/busybox:2/busybox:3/")
    stored = await cluster.api.get(resources.DEPLOYMENTS, "web")
    assert stored["spec"]["replicas"] == 5
    assert stored["spec"]["template"]["spec"]["containers"][0]["image"] == "busybox:3"
    managers = {m["manager"] for m in json.loads(
        await kubectl("get", "deploy", "web", "-o", "json", "--show-managed-fields")
    )["metadata"]["managedFields"]}  # fmt: skip
    assert {"kubectl-client-side-apply", "kubectl-edit", "kubectl-rollout", "kubectl"} <= managers
    conflict = await kubectl.run("apply", "--server-side", "-f", "-", stdin=MANIFEST)
    assert "conflict" in conflict.err
    assert "serverside-applied" in await kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=MANIFEST
    )
    described = await kubectl("describe", "deploy", "web")
    assert "busybox:1" in described
    assert (await kubectl("delete", "deploy,svc", "--all")).count(" deleted") == 2


async def test_created_by_protobuf(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    assert "created" in await kubectl("create", "deployment", "d", "--image=i", "--replicas=3", "--port=80")
    assert (await cluster.api.get(resources.DEPLOYMENTS, "d"))["spec"]["replicas"] == 3
    assert "created" in await kubectl("create", "ns", "n")
    assert "created" in await kubectl("create", "sa", "s", "-n", "n")
    assert "created" in await kubectl("create", "service", "clusterip", "d", "--tcp=80:8080")
    assert len((await kubectl("create", "token", "s", "-n", "n")).split(".")) == 3
    assert "exposed" in await kubectl("expose", "deploy", "d", "--name=e")


async def test_refusals_name_what_is_wrong(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    for change, text in [
        (("replicas:", "replicass:"), 'unknown field "spec.replicass"'),
        (("replicas: 2", "replicas: two"), "spec.replicas"),
        (("name: web,", "name: Web_,"), "metadata.name"),
        (("image:", "image: x, imagePullPolicy:"), "imagePullPolicy"),
    ]:
        result = await kubectl.run("apply", "-f", "-", stdin=MANIFEST.split("---", maxsplit=1)[0].replace(*change))
        assert result.code != 0, text
        assert text in result.err
    assert "No resources" in (await kubectl.run("get", "deploy")).err
    stored = json.loads(await kubectl("create", "cm", "m", "--from-literal=a=b", "-o", "json"))
    await kubectl("label", "cm", "m", "x=y")
    stale = await kubectl.run("replace", "-f", "-", stdin=json.dumps(stored))
    assert "the object has been modified" in stale.err


async def test_pods_and_nodes(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    await kubectl("run", "p", "--image=i")
    row = (await kubectl("get", "pods", "--no-headers")).split()
    assert row[:4] == ["p", "0/1", "Pending", "0"]
    for command, text in [("cordon", "cordoned"), ("drain", "drained"), ("uncordon", "uncordoned")]:
        assert text in await kubectl(command, "n1")
    assert "tainted" in await kubectl("taint", "node", "n1", "a=b:NoSchedule")
    waiting = asyncio.create_task(kubectl("wait", "pod/p", "--for=condition=Ready", "--timeout=30s"))
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    await cluster.api.patch(resources.PODS, "p", {"status": status}, sub="status")
    assert "condition met" in await waiting
    assert "Running" in await kubectl("get", "pods")
    refused = await kubectl.run("logs", "p")
    assert refused.code != 0
    assert "deleted" in await kubectl("delete", "pod", "p")
    assert "No resources found" in (await kubectl.run("get", "pods")).err


async def test_a_watch_through_the_door(cluster: Cluster) -> None:
    kubectl = cluster.kubectl
    await kubectl("create", "cm", "first")
    process = await asyncio.create_subprocess_exec(
        *kubectl.command("get", "cm", "--watch", "--output-watch-events"),
        stdout=asyncio.subprocess.PIPE,
        env=kubectl.environment(),
    )
    assert process.stdout is not None
    rows = []
    try:
        async with asyncio.timeout(60):
            # With the first row on its screen kubectl has its list, and watches from there.
            rows += [(await process.stdout.readline()).decode().split()[:3] for _ in range(2)]
            await kubectl("create", "cm", "m", "--from-literal=a=b")
            await kubectl("patch", "cm", "m", "-p", '{"data":{"c":"d"}}')
            await kubectl("delete", "cm", "m")
            rows += [(await process.stdout.readline()).decode().split()[:3] for _ in range(3)]
    finally:
        process.kill()
        await process.communicate()
    assert rows[:2] == [["EVENT", "NAME", "DATA"], ["ADDED", "first", "0"]]
    assert rows[2:] == [["ADDED", "m", "1"], ["MODIFIED", "m", "2"], ["DELETED", "m", "2"]]


async def test_a_kind_that_nobody_serves(cluster: Cluster) -> None:
    manifest = json.dumps({"apiVersion": "example.com/v1", "kind": "Nothing", "metadata": {"name": "x"}})
    result = await cluster.kubectl.run("apply", "-f", "-", stdin=manifest)
    assert result.code == 1
    assert 'no matches for kind "Nothing" in version "example.com/v1"' in result.err
