"""Keeps bridge and routes as the Node objects want them. Reads the node informer, acts through the pod network."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import Protocol

from kybern.api.types import Node
from kybern.backoff import Backoff
from kybern.client.informer import Informer
from kybern.key import Key
from node.network.addresses import parse_network
from node.network.routes import Reach, Route
from node.network.settings import NetworkSettings

log = logging.getLogger(__name__)

# How often everything is looked at without any change, to repair what others changed.
INTERVAL = 30.0
# Nodes that come and go together are routed together.
BATCH = 0.1


class Configurable(Protocol):
    """The part of the pod network that this needs (see `LinuxPodNetwork.configure`)."""

    async def configure(self, pods: IPv4Network, routes: Mapping[IPv4Network, Route]) -> None:
        """Make bridge, addresses, kernel settings and routes right."""
        ...


class NetworkReconciler:
    """Run it in a task; `ready` is set once pods can be wired."""

    def __init__(self, settings: NetworkSettings, nodes: Informer[Node], network: Configurable, reach: Reach) -> None:
        self.ready = asyncio.Event()
        self._settings = settings
        self._nodes = nodes
        self._network = network
        self._reach = reach
        self._wake = asyncio.Event()
        self._waiting = False
        nodes.on_change(lambda old, new: self._wake.set())

    async def run(self) -> None:
        """Reconcile until cancelled. Leaves everything as it is."""
        await self._nodes.synced()
        backoff = Backoff(base=0.5, cap=30.0)
        while True:
            self._wake.clear()
            try:
                await self._reconcile()
            except OSError as error:
                wait = backoff.next()
                log.warning("the pod network is not as it should be: %s; trying again in %.1f s", error.strerror, wait)
                await asyncio.sleep(wait)
                continue
            backoff.reset()
            try:
                async with asyncio.timeout(INTERVAL):
                    await self._wake.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(BATCH)

    async def _reconcile(self) -> None:
        pods = self._own_range()
        if pods is None:
            return
        await self._network.configure(pods, self._reach.plan(self._nodes.all(), self._settings.node))
        self.ready.set()

    def _own_range(self) -> IPv4Network | None:
        node = self._nodes.get(Key("", self._settings.node))
        text = node.spec.pod_cidr if node is not None else ""
        if not text:
            if not self._waiting:
                log.info("waiting for the control plane to give this node a range (Node.spec.podCIDR)")
            self._waiting = True
            return None
        self._waiting = False
        try:
            pods = parse_network(text)
        except ValueError as error:
            log.warning("spec.podCIDR of this node: %s", error)
            return None
        if not pods.subnet_of(self._settings.pods):
            log.warning("spec.podCIDR %s of this node is not in the cluster's range %s", pods, self._settings.pods)
            return None
        return pods
