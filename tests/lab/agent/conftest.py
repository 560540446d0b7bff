"""An agent on a real Docker engine and real mounts, with the API in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from kybern.api import resources
from kybern.client.fake import FakeClient
from kybern.client.informer import Informers
from kybern.clock import SystemClock
from kybern.config.models import DockerRuntime as DockerConfig
from kybern.config.models import NodeConfig, Tls
from node.agent.agent import Agent
from node.network.interface import FakePodNetwork
from node.runtime.docker import DockerRuntime
from tests.lab.engine import Engine, engine

PATIENCE = 60.0


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="package")
def docker() -> Iterator[Engine]:
    with engine() as made:
        made.load_busybox()
        yield made


class Node:
    """One node; `start` and `kill` its agent at will."""

    def __init__(self, docker: Engine, data_dir: Path) -> None:
        self.clock = SystemClock()
        self.client = FakeClient(self.clock)
        nothing = Path("none")
        self.config = NodeConfig(
            name="n1",
            address="192.168.7.11",
            agent_address="192.168.7.11:10250",
            masters=[],
            tls=Tls(nothing, nothing, nothing),
            data_dir=data_dir,
            runtime=DockerConfig(endpoint=docker.endpoint),
        )
        self.runtime: DockerRuntime | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._network = FakePodNetwork("10.244.77.0/24")

    def start(self) -> DockerRuntime:
        informers = Informers(self.client)
        self.runtime = DockerRuntime(DockerConfig(endpoint=self.config.runtime.endpoint))  # type: ignore[union-attr]
        agent = Agent(self.config, self.client, self.clock, self.runtime, self._network, informers)
        self._tasks = [asyncio.create_task(informers.run()), asyncio.create_task(agent.run())]
        return self.runtime

    async def kill(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks = []
        if self.runtime is not None:
            await self.runtime.close()

    def pod(self, name: str, *containers: dict[str, Any], **spec: Any) -> str:
        """Bind a pod to the node; returns its uid."""
        body = {"nodeName": "n1", "terminationGracePeriodSeconds": 1, "containers": list(containers), **spec}
        document = {"metadata": {"name": name, "namespace": "default"}, "spec": body}
        return str(self.client.put(resources.PODS, document)["metadata"]["uid"])

    def status(self, name: str) -> dict[str, Any]:
        found = self.client.read(resources.PODS, name, "default") or {}
        status: dict[str, Any] = found.get("status", {})
        return status

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                if holds():
                    return
                await asyncio.sleep(0.05)

    async def running(self, name: str) -> dict[str, Any]:
        """Wait until a pod is ready; returns the first container's entry."""
        await self.until(
            lambda: any(c["type"] == "Ready" and c["status"] == "True" for c in self.status(name).get("conditions", ()))
        )
        entry: dict[str, Any] = self.status(name)["containerStatuses"][0]
        return entry

    async def clear(self) -> None:
        """Delete all pods and wait until nothing of them is left."""
        for document in self.client.all(resources.PODS):
            await self.client.delete(resources.PODS, document["metadata"]["name"], "default", grace_seconds=1)
        await self.until(lambda: not self.client.all(resources.PODS))


@pytest.fixture
async def node(docker: Engine, tmp_path: Path) -> AsyncIterator[Node]:
    made = Node(docker, tmp_path)
    try:
        yield made
        if not made._tasks:
            made.start()
        await made.clear()
    finally:
        await made.kill()
