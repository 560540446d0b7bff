"""The node agent: puts the parts together and runs them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from kybern.backoff import Backoff
from kybern.client import kinds
from kybern.client.events import EventRecorder
from kybern.client.informer import Informer, Informers
from kybern.client.interface import Client
from kybern.clock import Clock
from kybern.config.models import NodeConfig
from node.agent import host
from node.agent.context import NodeContext
from node.agent.environment import Environment
from node.agent.gate import NetworkGate
from node.agent.image_garbage import ImageGarbage, disk_usage
from node.agent.images import ImageService
from node.agent.lease import NodeLease
from node.agent.node_status import Health
from node.agent.observer import Observer
from node.agent.prober import NetworkProber
from node.agent.probes import Prober
from node.agent.registration import Registration
from node.agent.sources import ApiSources
from node.agent.statuses import StatusWriter
from node.agent.workers import Workers
from node.network.interface import PodNetwork
from node.runtime.interface import Runtime, RuntimeFailure
from node.volumes.interface import Blocking, HostFacts, Mounter, run_in_thread
from node.volumes.manager import VolumeManager
from node.volumes.mounts import LinuxMounter

log = logging.getLogger(__name__)

_HEALTH_INTERVAL = 5.0


@dataclass(frozen=True)
class Edges:
    """What tests put something else in the place of."""

    blocking: Blocking = run_in_thread
    mounter: Mounter | None = None
    prober: Prober | None = None


class Agent:
    """Runs this node's pods. `run` goes on until cancelled, and leaves what runs running.

    Informers are the caller's: it runs them, after this was made. `gate` tells whether pods
    can be wired by now.
    """

    def __init__(
        self,
        config: NodeConfig,
        client: Client,
        clock: Clock,
        runtime: Runtime,
        network: PodNetwork,
        informers: Informers,
        *,
        gate: NetworkGate | None = None,
        edges: Edges | None = None,
    ) -> None:
        edges = edges or Edges()
        self._runtime = runtime
        self._gate = gate or NetworkGate()
        self._version = ""
        found = host.capacity(config.data_dir)
        facts = HostFacts(config.name, config.address, found.cpu_milli, found.memory_bytes, found.storage_bytes)
        sources = ApiSources(client)
        self._hooks = NetworkProber(runtime)
        self._pods = Informer(client, kinds.PODS, fields=f"spec.nodeName={config.name}")
        self.registration = Registration(
            config, client, clock, informers.of(kinds.NODES), self._health, lambda: self._version
        )
        self._lease = NodeLease(config, client, clock, lambda: self.registration.uid)
        self._images = ImageService(runtime, sources)
        self._garbage = ImageGarbage(runtime, clock, lambda: disk_usage(config.data_dir))
        self._node = NodeContext(
            config=config,
            clock=clock,
            runtime=runtime,
            network=network,
            gate=self._gate,
            observer=Observer(runtime, network),
            volumes=VolumeManager(
                config.data_dir, sources, facts, clock, edges.mounter or LinuxMounter(), edges.blocking
            ),
            images=self._images,
            environment=Environment(sources, facts),
            services=informers.of(kinds.SERVICES),
            statuses=StatusWriter(client),
            events=EventRecorder(client, "kubelet", clock, host=config.name),
            prober=edges.prober or self._hooks,
            hooks=self._hooks,
            host=facts,
            blocking=edges.blocking,
            starts=asyncio.Semaphore(config.parallel_starts),
        )
        self.workers = Workers(self._node, self._pods)
        # Set once the runtime has answered for the first time.
        self.runtime_ready = asyncio.Event()
        config.data_dir.mkdir(parents=True, exist_ok=True)

    async def run(self) -> None:
        """Run everything until cancelled."""
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "node lease": self._lease.run,
            "registration": self.registration.run,
            "pod informer": self._pods.run,
            "runtime health": self._watch_runtime,
            "runtime observer": self._node.observer.run,
            "pod statuses": self._node.statuses.run,
            "events": self._node.events.run,
            "pods": self.workers.run,
            "image garbage": self._garbage.run,
        }
        try:
            async with asyncio.TaskGroup() as tasks:
                for name, run in parts.items():
                    tasks.create_task(_supervise(name, run), name=name)
        finally:
            await self._images.close()
            await self._hooks.close()

    async def ready(self) -> None:
        """Wait until the node is registered and the runtime answers."""
        await self.registration.registered.wait()
        await self.runtime_ready.wait()

    def check(self) -> None:
        """The node's health may have changed: report it soon."""
        self.registration.check()

    def _health(self) -> Health:
        problem = self._runtime_problem
        return Health("" if not problem else f"container runtime: {problem}", self._gate.problem)

    _runtime_problem = "it has not answered yet"

    async def _watch_runtime(self) -> None:
        prepared = False
        while True:
            try:
                async with asyncio.timeout(10.0):
                    version = await self._runtime.version()
                if not prepared:
                    await self._runtime.prepare()
                    prepared = True
                problem = ""
                self._version = f"{version.name}://{version.version}"
                self._node.runtime_name = version.name
                self.runtime_ready.set()
            except RuntimeFailure as failure:
                problem = str(failure)
            except TimeoutError:
                problem = "it does not answer within 10 s"
            if problem != self._runtime_problem:
                self._runtime_problem = problem
                self.registration.check()
            await asyncio.sleep(_HEALTH_INTERVAL if not problem else 1.0)


async def _supervise(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Each part handles the failures that it knows; one that it does not know must not end the others."""
    backoff = Backoff(base=1.0, cap=30.0)
    while True:
        try:
            await run()
        except Exception:
            wait = backoff.next()
            log.exception("%s failed; starting it again in %.1f s", name, wait)
            await asyncio.sleep(wait)
