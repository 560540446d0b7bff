"""An agent on virtual time, with the API, the runtime and the network in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kybern.api import resources
from kybern.api.types import Container as ContainerSpec
from kybern.api.types import Pod
from kybern.api.types.pods import Probe
from kybern.client.fake import FakeClient
from kybern.client.informer import Informers
from kybern.clock import LoopClock, run_virtual
from kybern.config.models import Cluster, NodeConfig, Tls
from kybern.config.models import FakeRuntime as FakeRuntimeConfig
from node.agent.agent import Agent, Edges
from node.agent.gate import NetworkGate
from node.agent.probes import Answer
from node.network.interface import FakePodNetwork
from node.runtime.fake import FakeRuntime
from node.runtime.interface import Container, ContainerState
from node.volumes.interface import run_inline

NODE = "n1"
SERVER = ["httpd"]


class FakeMounter:
    """Remembers what is mounted."""

    def __init__(self) -> None:
        self.mounted: dict[Path, tuple[int | None, int]] = {}

    def mount_tmpfs(self, path: Path, size_bytes: int | None, mode: int) -> None:
        self.mounted.setdefault(path, (size_bytes, mode))

    def unmount_below(self, root: Path) -> None:
        self.mounted = {p: m for p, m in self.mounted.items() if p != root and root not in p.parents}


class FakeProber:
    """Answers by container name; yes unless told otherwise."""

    def __init__(self) -> None:
        self.bad: set[str] = set()
        self.asked: list[str] = []

    async def probe(self, probe: Probe, pod: Pod, spec: ContainerSpec, container_id: str, address: str) -> Answer:
        self.asked.append(spec.name)
        return Answer(spec.name not in self.bad, "" if spec.name not in self.bad else "no")


class Bench:
    """One node."""

    def __init__(self, data_dir: Path, **config: Any) -> None:
        self.clock = LoopClock()
        self.client = FakeClient(self.clock)
        self.runtime = FakeRuntime(self.clock)
        self.network = FakePodNetwork()
        self.prober = FakeProber()
        self.mounter = FakeMounter()
        nothing = Path("none")
        self.config = NodeConfig(
            name=NODE,
            address="192.168.7.11",
            agent_address="192.168.7.11:10250",
            masters=[],
            tls=Tls(nothing, nothing, nothing),
            data_dir=data_dir,
            runtime=FakeRuntimeConfig(),
            network=False,
            cluster=Cluster(),
            **config,
        )
        self.gate = NetworkGate()
        self.agent: Agent | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> Agent:
        """Start an agent (again) on what there is."""
        informers = Informers(self.client)
        edges = Edges(blocking=run_inline, mounter=self.mounter, prober=self.prober)
        self.agent = Agent(
            self.config, self.client, self.clock, self.runtime, self.network, informers, gate=self.gate, edges=edges
        )
        self._tasks = [asyncio.create_task(informers.run()), asyncio.create_task(self.agent.run())]
        return self.agent

    async def stop(self) -> None:
        """End the agent, as kill -9 would: it gets to do nothing more."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    # --- pods

    def pod(self, name: str, **spec: Any) -> dict[str, Any]:
        """Bind a pod to the node."""
        return self.client.put(resources.PODS, pod(name, **spec))

    def status(self, name: str) -> dict[str, Any]:
        """The pod's status in the API."""
        found = self.client.read(resources.PODS, name, "default")
        assert found is not None
        status: dict[str, Any] = found.get("status", {})
        return status

    def entry(self, name: str, container: str = "main") -> dict[str, Any]:
        """A container's entry in the status."""
        status = self.status(name)
        every = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
        return next((e for e in every if e["name"] == container), {})

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        """A condition of a pod."""
        return next((c for c in self.status(name).get("conditions", ()) if c["type"] == kind), {})

    def exists(self, name: str) -> bool:
        """Whether the API has the pod."""
        return self.client.read(resources.PODS, name, "default") is not None

    def reasons(self, name: str) -> list[str]:
        """The reasons of the events about a pod, in order."""
        events = self.client.all(resources.EVENTS)
        return [e["reason"] for e in events if e["involvedObject"]["name"] == name]

    async def containers(self, name: str = "", *, running: bool = True) -> list[Container]:
        """What the runtime has of a pod."""
        found = [c for c in await self.runtime.containers() if not name or c.pod.name == name]
        return [c for c in found if not running or c.state is ContainerState.RUNNING]

    async def until(self, holds: Callable[[], bool], seconds: float = 30.0) -> float:
        """Wait for something; returns the virtual seconds that it took."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while not holds():
            assert loop.time() - begun < seconds, "it never came true"
            await asyncio.sleep(0.05)
        return loop.time() - begun

    async def running(self, *names: str) -> None:
        """Wait until pods are Running."""
        await self.until(lambda: all(self.status(n).get("phase") == "Running" for n in names))


def container(name: str = "main", command: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """A container of a pod."""
    return {
        "name": name,
        "image": "busybox:1",
        "imagePullPolicy": "IfNotPresent",
        "command": command or SERVER,
        **more,
    }


def pod(name: str, *containers: dict[str, Any], uid: str = "", **spec: Any) -> dict[str, Any]:
    """A pod that is bound to the node."""
    metadata = {"name": name, "namespace": "default", **({"uid": uid} if uid else {})}
    spec.setdefault("containers", list(containers) or [container()])
    return {"metadata": metadata, "spec": {"nodeName": NODE, "terminationGracePeriodSeconds": 30, **spec}}


def scenario(tmp_path: Path, steps: Callable[[Bench], Awaitable[None]], **config: Any) -> None:
    """Run steps against a node."""

    async def main() -> None:
        node = Bench(tmp_path, **config)
        try:
            await steps(node)
        finally:
            await node.stop()

    run_virtual(main())
