"""A cluster in memory on virtual time: controllers, scheduler, and nodes whose agents do what agents do."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

from kybern.api import resources
from kybern.api.errors import StatusError
from kybern.api.types import Node, Pod
from kybern.client import kinds
from kybern.client.controller import ControllerContext
from kybern.client.fake import Document, FakeClient
from kybern.client.informer import Informers
from kybern.client.interface import Client, Fence
from kybern.clock import LoopClock, rfc3339, rfc3339_micro
from kybern.config.models import Cluster
from master.controllers import conditions
from master.controllers.main import run_controllers
from master.scheduler.main import run_scheduler

NAMESPACE = "default"
LEASES = "kube-node-lease"
SYSTEM_NAMESPACES = ("default", "kube-system", "kube-node-lease")
IMAGE_THAT_FAILS = "broken"
CA = b"-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n"


class Agents:
    """The agents of all nodes. A node in `down` is cut off: it neither renews nor acts, and its pods keep running."""

    def __init__(self, client: Client, clock: LoopClock, *, start: float = 1.0, stop: float = 1.0) -> None:
        self.client = client
        self.clock = clock
        self.down: set[str] = set()
        self.start = start
        self.stop = stop
        self._stopping: dict[str, float] = {}
        self._renewed: dict[str, float] = {}
        self._addresses = iter(range(1, 60000))
        self._informers = Informers(client)
        self._pods = self._informers.of(kinds.PODS)
        self._nodes = self._informers.of(kinds.NODES)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._informers.run())
            await self._informers.synced()
            while True:
                for node in list(self._nodes.all()):
                    if node.name not in self.down:
                        await self._sync(node)
                await asyncio.sleep(0.5)

    async def _sync(self, node: Node) -> None:
        with contextlib.suppress(StatusError):
            await self._renew(node)
        for pod in [p for p in self._pods.all() if p.spec.node_name == node.name]:
            with contextlib.suppress(StatusError):
                await self._sync_pod(pod)

    async def _renew(self, node: Node) -> None:
        now = self.clock.now()
        renewal = {"spec": {"holderIdentity": node.name, "leaseDurationSeconds": 40, "renewTime": rfc3339_micro(now)}}
        last = self._renewed.get(node.name)
        if last is None:
            lease = {"metadata": {"name": node.name}, **renewal}
            with contextlib.suppress(StatusError):
                await self.client.create(resources.LEASES, lease, LEASES)
        elif self.clock.monotonic() - last >= 5:
            await self.client.patch(resources.LEASES, node.name, renewal, LEASES)
        if last is None or self.clock.monotonic() - last >= 5:
            self._renewed[node.name] = self.clock.monotonic()
        if not node.ready:
            ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": rfc3339(now)}
            await self.client.patch(
                resources.NODES, node.name, {"status": {"conditions": [ready]}}, subresource="status"
            )

    async def _sync_pod(self, pod: Pod) -> None:
        now = self.clock.now()
        if pod.metadata.deletion_timestamp is not None:
            began = self._stopping.setdefault(pod.uid, self.clock.monotonic())
            if self.clock.monotonic() - began >= self.stop:
                await self.client.delete(resources.PODS, pod.name, pod.namespace, uid=pod.uid, grace_seconds=0)
            return
        created = pod.metadata.creation_timestamp
        assert created is not None
        broken = any(c.image == IMAGE_THAT_FAILS for c in pod.spec.containers)
        if pod.ready or broken or (now - created).total_seconds() < self.start:
            return
        others = [conditions.document(c) for c in pod.status.conditions if c.type != "Ready"]
        address = pod.status.pod_ip or f"10.244.{(number := next(self._addresses)) // 250}.{number % 250 + 1}"
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [*others, {"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(now)}],
        }
        await self.client.patch(resources.PODS, pod.name, {"status": status}, pod.namespace, subresource="status")


class World:
    """What a scenario sees and does."""

    def __init__(self, **agents: float) -> None:
        self.clock = LoopClock()
        self.client = FakeClient(self.clock)
        self.agents = Agents(self.client, self.clock, **agents)
        self.cluster = Cluster(default_toleration_seconds=10)
        for name in SYSTEM_NAMESPACES:
            self.client.put(
                resources.NAMESPACES,
                {"metadata": {"name": name}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}},
            )

    def add_node(self, name: str, *, cpu: str = "4", labels: dict[str, str] | None = None, **spec: Any) -> None:
        self.client.put(resources.NODES, node(name, self.clock.now(), cpu=cpu, labels=labels, **spec))

    @contextlib.asynccontextmanager
    async def leading(
        self, fence: Callable[[], Fence] | None = None, seed: int = 1
    ) -> AsyncIterator[ControllerContext]:
        """A reign: controllers and scheduler run until the block ends."""
        context = ControllerContext(
            self.client, Informers(self.client), self.cluster, self.clock, random.Random(seed), fence
        )
        tasks = [
            asyncio.create_task(run_controllers(context, ca_pem=CA)),
            asyncio.create_task(run_scheduler(context)),
            asyncio.create_task(context.informers.run()),
        ]
        try:
            yield context
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def agents_running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.agents.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def running(self, nodes: int = 2) -> AsyncIterator[None]:
        for number in range(1, nodes + 1):
            self.add_node(f"n{number}")
        async with self.agents_running(), self.leading():
            yield

    async def until(self, condition: Callable[[], bool], within: float = 120.0) -> float:
        """Wait (virtual time) until something holds; returns how long that took."""
        began = self.clock.monotonic()
        while not condition():
            assert self.clock.monotonic() - began < within, "this did not happen in time"
            await asyncio.sleep(0.1)
        return self.clock.monotonic() - began

    # --- reading

    def pods(self, **labels: str) -> list[Document]:
        """Pods that are neither deleted nor ended."""
        return [
            p
            for p in self.client.all(resources.PODS)
            if not p["metadata"].get("deletionTimestamp")
            and p.get("status", {}).get("phase") not in ("Failed", "Succeeded")
            and labels.items() <= p["metadata"].get("labels", {}).items()
        ]

    def ready(self, **labels: str) -> list[Document]:
        return [p for p in self.pods(**labels) if is_ready(p)]

    def deployment(self, name: str) -> Document:
        found = self.client.read(resources.DEPLOYMENTS, name, NAMESPACE)
        assert found is not None
        return found

    def sets(self) -> dict[str, Document]:
        """ReplicaSets by the image of their template."""
        return {
            s["spec"]["template"]["spec"]["containers"][0]["image"]: s for s in self.client.all(resources.REPLICA_SETS)
        }

    def rolled_out(self, name: str) -> bool:
        """As `kubectl rollout status` judges."""
        found = self.client.read(resources.DEPLOYMENTS, name, NAMESPACE)
        if found is None:
            return False
        status, wanted = found.get("status", {}), found["spec"]["replicas"]
        return bool(
            status.get("observedGeneration", 0) >= found["metadata"]["generation"]
            and status.get("updatedReplicas", 0) == wanted
            and status.get("replicas", 0) == status.get("updatedReplicas", 0)
            and status.get("availableReplicas", 0) == status.get("updatedReplicas", 0)
        )

    def events(self, reason: str) -> list[str]:
        return [e["message"] for e in self.client.all(resources.EVENTS) if e["reason"] == reason]


def ready_condition(now: datetime) -> Document:
    moment = rfc3339(now)
    return {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "",
        "lastHeartbeatTime": moment,
        "lastTransitionTime": moment,
    }


def node(name: str, now: datetime, *, cpu: str = "4", labels: dict[str, str] | None = None, **spec: Any) -> Document:
    have = {"cpu": cpu, "memory": "8Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": spec,
        "status": {"capacity": have, "allocatable": have, "conditions": [ready_condition(now)]},
    }


def is_ready(pod: Document) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))


def deployment(name: str = "web", replicas: int = 3, image: str = "v1", **spec: Any) -> Document:
    labels = {"app": name}
    return {
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": image}], "terminationGracePeriodSeconds": 30},
            },
            **spec,
        },
    }


def image_patch(image: str) -> Document:
    return {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}}
