"""`kybern-node --config /etc/kybern/node.yaml`: runs this host's pods, and routes and names its services."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kybern import daemon, pki
from kybern.client import kinds
from kybern.client.grpc import GrpcClient
from kybern.client.informer import Informers
from kybern.client.interface import Client
from kybern.clock import Clock, SystemClock
from kybern.config.loading import load
from kybern.config.models import DockerRuntime as DockerConfig
from kybern.config.models import NodeConfig
from kybern.daemon import StartupError
from node.agent.agent import Agent
from node.agent.gate import NetworkGate
from node.agent.unwired import UnwiredPodNetwork
from node.masters import Masters
from node.network.interface import PodNetwork
from node.network.main import NetworkStack
from node.runtime.interface import Runtime
from node.runtime.service import NodeAgentServer

NAME = "kybern-node"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; the result is the exit code."""
    parser = argparse.ArgumentParser(prog=NAME, description="Kybern's node agent: pods, service routing, cluster DNS.")
    parser.add_argument("--config", type=Path, default=Path("/etc/kybern/node.yaml"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        config = load(options.config, NodeConfig)
        check(config)
    except StartupError as error:
        return daemon.fail(NAME, error)

    async def run(process: daemon.Daemon) -> None:
        with only_agent(config.data_dir):
            await serve(config, process)

    return daemon.run(NAME, run, log_level=config.log.level, log_format=config.log.format)


def check(config: NodeConfig) -> None:
    """Check what can be checked before anything is opened.

    Raises:
        StartupError: when the certificate is not this node's, or root is needed and not there.
    """
    if not config.masters:
        raise StartupError("masters is empty: name the gRPC address of at least one master")
    if isinstance(config.runtime, DockerConfig) or config.network:
        daemon.require_root("running containers")
    identity = pki.check_files(config.tls.cert, config.tls.key, config.tls.ca, SystemClock().now())
    wanted = pki.NODE_USER_PREFIX + config.name
    if identity.name != wanted or pki.GROUP_NODES not in identity.groups:
        raise StartupError(
            f"the certificate {config.tls.cert} is that of {identity.name!r}, "
            f"but this node's must be that of {wanted!r} in the group {pki.GROUP_NODES}"
        )


@contextlib.contextmanager
def only_agent(data_dir: Path) -> Iterator[None]:
    """Hold the data directory: two agents on one would end each other's pods.

    Raises:
        StartupError: when the directory cannot be used, or another agent holds it.
    """
    descriptor = daemon.hold(data_dir, "agent.lock")
    try:
        yield
    finally:
        os.close(descriptor)


async def serve(config: NodeConfig, process: daemon.Daemon) -> None:
    """Run the node until the process is asked to stop; containers go on running."""
    clock = SystemClock()
    runtime = runtime_of(config, clock)
    client = GrpcClient(config.masters, config.tls)
    server = NodeAgentServer(config.agent_address, config.tls, runtime, clock=clock)
    await server.start()
    try:
        informers = Informers(client)
        async with network_of(config, client, clock, informers) as network:
            node = _Node(
                config,
                Agent(config, client, clock, runtime, network.pods, informers, gate=network.gate),
                network,
                informers,
                Masters(config.masters, config.data_dir, client, client.learn, clock),
            )
            await node.run(process)
    finally:
        await server.stop()
        await runtime.close()
        await client.close()


def runtime_of(config: NodeConfig, clock: Clock) -> Runtime:
    """The runtime that the configuration names."""
    # Only the one that is used is loaded.
    if isinstance(config.runtime, DockerConfig):
        from node.runtime.docker import DockerRuntime  # noqa: PLC0415

        return DockerRuntime(config.runtime, clock=clock)
    from node.runtime.fake import FakeRuntime  # noqa: PLC0415

    return FakeRuntime(clock, config.runtime.start_seconds)


class Network:
    """The pod network with all that belongs to it, or the one that wires nothing; opens the gate when it is ready."""

    def __init__(
        self, pods: PodNetwork, ready: Callable[[], Awaitable[None]], stack: NetworkStack | None = None
    ) -> None:
        self.pods = pods
        self.gate = NetworkGate(ready=False)
        self._ready = ready
        self._stack = stack

    async def ready(self) -> None:
        """Wait until pods can be wired and services are routed."""
        await self._ready()
        self.gate.open()

    async def run(self) -> None:
        """Run it until cancelled."""
        if self._stack is not None:
            await self._stack.run()


@asynccontextmanager
async def network_of(config: NodeConfig, client: Client, clock: Clock, informers: Informers) -> AsyncIterator[Network]:
    """The network that the configuration asks for."""
    if not config.network:
        unwired = UnwiredPodNetwork(config.name, informers.of(kinds.NODES))
        yield Network(unwired, unwired.ready)
        return
    stack = NetworkStack(config, client, clock, informers)
    try:
        yield Network(stack.pod_network, stack.ready, stack)
    finally:
        await stack.close()


@dataclass
class _Node:
    config: NodeConfig
    agent: Agent
    network: Network
    informers: Informers
    masters: Masters

    async def run(self, process: daemon.Daemon) -> None:
        async with asyncio.TaskGroup() as tasks:
            parts = [
                tasks.create_task(self.informers.run(), name="informers"),
                tasks.create_task(self.network.run(), name="network"),
                tasks.create_task(self.agent.run(), name="agent"),
                tasks.create_task(self.masters.run(), name="masters"),
                tasks.create_task(self._become_ready(process), name="readiness"),
            ]
            await process.run_until_stopped()
            for part in parts:
                part.cancel()

    async def _become_ready(self, process: daemon.Daemon) -> None:
        await self.agent.registration.registered.wait()
        await self.network.ready()
        self.agent.check()
        await self.agent.ready()
        process.ready(f"node {self.config.name}")


if __name__ == "__main__":
    sys.exit(main())
