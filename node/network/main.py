"""The node's network as one: pod network, routes, service routing, DNS."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable

from kybern.backoff import Backoff
from kybern.client.informer import Informers
from kybern.client.interface import Client
from kybern.clock import Clock
from kybern.config.models import NodeConfig
from kybern.daemon import StartupError, require_root
from node.dns.directory import InformerDirectory
from node.dns.responder import Responder
from node.dns.server import DnsServer
from node.dns.upstream import Forwarder, Upstreams
from node.dns.zone import Zone
from node.network.informers import NetworkInformers
from node.network.interface import PodNetwork
from node.network.pods import LinuxPodNetwork
from node.network.reconciler import NetworkReconciler
from node.network.routes import DirectReach
from node.network.settings import settings_of
from node.proxy.conntrack import KernelFlows
from node.proxy.iptables import IptablesRouting
from node.proxy.proxier import Proxier

log = logging.getLogger(__name__)


class NetworkStack:
    """What the agent starts.

    `pod_network` can be used from the start: it refuses (NetworkError) until the node has its range. `run` keeps
    everything going until it is cancelled, and leaves links and rules in force then. Informers are shared: pass the
    agent's own `Informers` and run them there (after this was made), or none to have them made and run here.
    """

    def __init__(self, config: NodeConfig, client: Client, clock: Clock, informers: Informers | None = None) -> None:
        """Nothing is touched before `run`.

        Raises:
            StartupError: when the configuration's ranges or addresses are not valid; the text names the field.
        """
        settings = settings_of(config)
        self._informers = Informers(client) if informers is None else informers
        self._runs_informers = informers is None
        shared = self.informers = NetworkInformers(self._informers)
        reach = DirectReach()
        self._network = LinuxPodNetwork(settings, reach)
        self._reconciler = NetworkReconciler(settings, shared.nodes, self._network, reach)
        self.proxier = Proxier(settings.node, shared, IptablesRouting(settings), KernelFlows(), clock)
        try:
            upstreams = Upstreams(config.upstream_dns, settings.dns, clock)
        except ValueError as error:
            raise StartupError(f"upstream_dns: {error}") from error
        directory = InformerDirectory(shared)
        responder = Responder(Zone(settings, directory), directory, Forwarder(upstreams, clock))
        self._dns = DnsServer(responder, str(settings.dns))

    @property
    def pod_network(self) -> PodNetwork:
        """The pod network, for the agent."""
        return self._network

    async def ready(self) -> None:
        """Wait until pods can be wired, service rules are in force and DNS answers.

        Needs the Node object with its range: do not wait for this before the node is registered.
        """
        for part in (self._reconciler, self.proxier, self._dns):
            await part.ready.wait()

    async def run(self) -> None:
        """Run all parts until cancelled.

        Raises:
            StartupError: when this host cannot do it: no root, no iptables.
        """
        require_root("the pod network")
        if shutil.which("iptables-restore") is None or shutil.which("iptables-save") is None:
            raise StartupError("service routing needs iptables-save and iptables-restore: install iptables")
        parts = {
            "pod network": self._reconciler.run,
            "service routing": self.proxier.run,
            "cluster DNS": self._dns.run,
        }
        async with asyncio.TaskGroup() as tasks:
            if self._runs_informers:
                tasks.create_task(self._informers.run(), name="network informers")
            for name, run in parts.items():
                tasks.create_task(_supervise(name, run), name=name)

    async def close(self) -> None:
        """Give the pod network's thread back; after this `pod_network` must not be used any more."""
        await self._network.close()


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
