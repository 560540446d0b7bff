"""kubectl's verbs against the door."""

from __future__ import annotations

import asyncio
import json

from kybern.api.resources import DEPLOYMENTS, NODES, PODS
from tests.integration.rest.double import DoubleHandlers
from tests.integration.rest.serving import Kubectl

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
"""


def pod(name: str, phase: str = "Running") -> dict[str, object]:
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": phase, "podIPs": [{"ip": "10.244.0.9"}], "podIP": "10.244.0.9"},
    }


async def test_discovery_and_explain(kubectl: Kubectl) -> None:
    assert "Server Version: v1.37.0" in await kubectl("version")
    listed = await kubectl("api-resources")
    assert "deployments" in listed
    assert "deploy " in listed
    assert "apps/v1" in await kubectl("api-versions")
    assert "containers" in await kubectl("explain", "pod.spec")
    assert await kubectl("get", "--raw", "/readyz") == "ok"


async def test_create_get_delete(handlers: DoubleHandlers, kubectl: Kubectl) -> None:
    assert "created" in await kubectl("create", "deployment", "d", "--image=i")
    assert "created" in await kubectl("create", "configmap", "m", "--from-literal=a=b")
    secret = await kubectl.run("create", "secret", "generic", "s", "--from-literal=a=b")
    assert 'Warning: say "hi"' in secret.err
    assert "created (server dry run)" in await kubectl(
        "create", "configmap", "dry", "--from-literal=a=b", "--dry-run=server"
    )
    again = await kubectl.run("create", "configmap", "m", "--from-literal=a=b")
    assert "already exists" in again.err
    assert "NotFound" in (await kubectl.run("get", "configmap", "dry")).err
    table = (await kubectl("get", "cm,secret,deploy")).split("\n")
    assert table[0].split() == ["NAME", "DATA", "AGE"]
    assert table[1].split()[:2] == ["configmap/m", "1"]
    assert json.loads(await kubectl("get", "cm", "m", "-o", "json"))["data"] == {"a": "b"}
    assert "deleted" in await kubectl("delete", "cm", "m")
    assert "deleted" in await kubectl("delete", "deploy", "--all")
    assert "No resources found" in (await kubectl.run("get", "deploy")).err


async def test_tables_of_pods_and_nodes(handlers: DoubleHandlers, kubectl: Kubectl) -> None:
    handlers.client.put(PODS, pod("a"))
    handlers.client.put(PODS, pod("b", "Succeeded"))
    node = {"metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    handlers.client.put(NODES, node)
    wide = (await kubectl("get", "pods", "-A", "-o", "wide")).split("\n")
    assert wide[0].split()[:6] == ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert wide[1].split() == [
        "default",
        "a",
        "0/1",
        "Running",
        "0",
        wide[1].split()[5],
        "10.244.0.9",
        "n1",
        "<none>",
        "<none>",
    ]
    assert (
        await kubectl("get", "pods", "-l", "app=web", "--field-selector=status.phase=Succeeded", "-o", "name")
    ) == "pod/b\n"
    assert (await kubectl("get", "nodes")).split("\n")[1].split()[:2] == ["n1", "Ready"]
    assert "Node:         n1" in await kubectl("describe", "pod", "a")
    assert "Roles:" in await kubectl("describe", "node", "n1")
    assert (await kubectl("get", "pods", "--sort-by=.metadata.name", "--no-headers")).startswith("a ")
    assert "app=web" in await kubectl("get", "pods", "--show-labels")


async def test_apply_and_change(handlers: DoubleHandlers, kubectl: Kubectl) -> None:
    assert "web created" in await kubectl("apply", "-f", "-", stdin=MANIFEST)
    assert "web unchanged" in await kubectl("apply", "-f", "-", stdin=MANIFEST)
    changed = MANIFEST.replace("busybox:1", "busybox:2")
    assert "busybox:2" in (await kubectl.run("diff", "-f", "-", stdin=changed)).out
    assert "web configured" in await kubectl("apply", "-f", "-", stdin=changed)
    assert "serverside-applied" in await kubectl("apply", "--server-side", "-f", "-", stdin=changed)
    await kubectl("label", "deploy/web", "a=b")
    await kubectl("annotate", "deploy/web", "note=x")
    await kubectl("set", "image", "deploy/web", "c=busybox:3")
    await kubectl("set", "env", "deploy/web", "K=v")
    await kubectl("scale", "deploy/web", "--replicas=5")
    await kubectl("patch", "deploy/web", "-p", '{"spec":{"paused":true}}')
    await kubectl("rollout", "resume", "deploy/web")
    await kubectl("rollout", "restart", "deploy/web")
    editor = "sed -i s/busybox:3/busybox:4/"
    assert "edited" in await kubectl("edit", "deploy", "web", KUBE_EDITOR=editor)
    stored = handlers.client.read(DEPLOYMENTS, "web", "default")
    assert stored is not None
    container = stored["spec"]["template"]["spec"]["containers"][0]
    assert (container["image"], container["env"]) == ("busybox:4", [{"name": "K", "value": "v"}])
    assert (stored["spec"]["replicas"], stored["metadata"]["labels"]) == (5, {"app": "web", "a": "b"})
    assert "kubectl.kubernetes.io/restartedAt" in stored["spec"]["template"]["metadata"]["annotations"]
    assert "exposed" in await kubectl("expose", "deploy", "web", "--port=80")
    assert (await kubectl("get", "svc", "-o", "wide")).split("\n")[0].split()[-1] == "SELECTOR"
    scale = await kubectl("get", "deploy", "web", "--subresource=scale")
    assert scale.split("\n")[0].split()[:3] == ["NAME", "DESIRED", "AVAILABLE"]
    bad = await kubectl.run(
        "apply", "--validate=false", "-f", "-", stdin=MANIFEST.replace("kind: Deployment", "kind: Nothing")
    )
    assert "no matches for kind" in bad.err


async def test_rollout_status_waits_for_the_watch(handlers: DoubleHandlers, kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=MANIFEST)
    waiting = asyncio.create_task(kubectl("rollout", "status", "deploy/web", "--timeout=30s"))
    async with asyncio.timeout(30):
        while not any(verb == "watch" for verb, _, _ in handlers.calls):  # noqa: ASYNC110 - kubectl starts when it does
            await asyncio.sleep(0.01)
        stored = handlers.client.read(DEPLOYMENTS, "web", "default")
        assert stored is not None
        counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 2)
        stored["status"] = {"observedGeneration": stored["metadata"]["generation"], **counts}
        handlers.client.put(DEPLOYMENTS, stored)
        assert "successfully rolled out" in await waiting


async def test_a_watch_prints_rows_as_they_come(handlers: DoubleHandlers, kubectl: Kubectl) -> None:
    handlers.client.put(PODS, pod("a", "Pending"))
    process = await asyncio.create_subprocess_exec(
        *kubectl.command("get", "pods", "-w"),
        stdout=asyncio.subprocess.PIPE,
        env=kubectl.environment(),
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            rows = [(await process.stdout.readline()).split() for _ in range(2)]
            handlers.client.put(PODS, pod("b"))
            rows.append((await process.stdout.readline()).split())
    finally:
        process.kill()
        await process.communicate()
    assert rows[0][:3] == [b"NAME", b"READY", b"STATUS"]
    assert [row[0:3:2] for row in rows[1:]] == [[b"a", b"Pending"], [b"b", b"Running"]]


async def test_waiting_for_a_deletion(handlers: DoubleHandlers, kubectl: Kubectl) -> None:
    handlers.client.put(PODS, pod("a"))
    waiting = asyncio.create_task(kubectl("delete", "pod", "a"))
    async with asyncio.timeout(30):
        while not any(verb == "delete" for verb, _, _ in handlers.calls):  # noqa: ASYNC110 - kubectl starts when it does
            await asyncio.sleep(0.01)
        await handlers.client.delete(PODS, "a", "default", grace_seconds=0)
        assert "deleted" in await waiting
    handlers.client.put(PODS, pod("b"))
    assert "condition met" in await kubectl("wait", "pod/b", "--for=jsonpath={.status.phase}=Running", "--timeout=20s")
