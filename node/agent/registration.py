"""Keeps this node's object: made when it is missing, its labels and status kept as they are to be.

The Lease is renewed by a task of its own (`node.agent.lease`), so that nothing here can delay the sign of life.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from kybern import __version__
from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.api.types import Node
from kybern.api.types.base import decode
from kybern.client.informer import Informer
from kybern.client.interface import Client, WriteOptions
from kybern.clock import Clock
from kybern.config.models import NodeConfig
from kybern.key import Key
from node.agent import host
from node.agent.node_status import Health, conditions_of, resources_of, without_heartbeats

log = logging.getLogger(__name__)

KUBELET_VERSION = f"v1.37.0+kybern{__version__}"
# Status is compared so often, and written at least so often.
CHECK_INTERVAL = 10.0
WRITE_INTERVAL = 60.0
_OPTIONS = WriteOptions(field_manager="kybern-node")


class Registration:
    """`run` keeps the object; `registered` is set once it exists."""

    def __init__(
        self,
        config: NodeConfig,
        client: Client,
        clock: Clock,
        nodes: Informer[Node],
        health: Callable[[], Health],
        runtime_version: Callable[[], str],
    ) -> None:
        self._config = config
        self._client = client
        self._clock = clock
        self._health = health
        self._runtime_version = runtime_version
        self.registered = asyncio.Event()
        # The node's uid, for the Lease's owner.
        self.uid = ""
        self._written: dict[str, Any] = {}
        self._written_at = float("-inf")
        self._known: Node | None = None
        self._wake = asyncio.Event()
        nodes.on_change(self._node_changed)

    def check(self) -> None:
        """Something about the node's health has changed: do not wait for the next interval."""
        self._wake.set()

    async def run(self) -> None:
        """Register and report until cancelled."""
        retry = min(2.0, self._config.cluster.node_lease_interval)
        while True:
            self._wake.clear()
            wait = CHECK_INTERVAL
            try:
                async with asyncio.timeout(10.0):
                    if not self.registered.is_set():
                        await self._register()
                    await self._report()
            except StatusError as error:
                if error.reason == Reason.NOT_FOUND:
                    self.registered.clear()
                log.warning("the node's object could not be written: %s", error)
                wait = retry
            except TimeoutError:
                log.warning("the node's object could not be written: no answer within 10 s")
                wait = retry
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def labels(self) -> dict[str, str]:
        """The labels that this agent answers for."""
        return {
            "kubernetes.io/hostname": self._config.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": host.architecture(),
            "beta.kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": host.architecture(),
            **self._config.labels,
        }

    async def _register(self) -> None:
        name = self._config.name
        try:
            document = await self._client.get(resources.NODES, name)
            node = decode(document, Node)
            if any(node.metadata.labels.get(k) != v for k, v in self.labels().items()):
                patch = {"metadata": {"labels": self.labels()}}
                document = await self._client.patch(resources.NODES, name, patch, options=_OPTIONS)
        except StatusError as error:
            if error.reason != Reason.NOT_FOUND:
                raise
            document = await self._create(name)
        self._know(decode(document, Node))
        # Whatever an earlier agent wrote is written anew.
        self._written = {}
        self.registered.set()

    async def _create(self, name: str) -> bytes:
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": self.labels()},
            "spec": {},
            "status": self._status(),
        }
        try:
            created = await self._client.create(resources.NODES, node, options=_OPTIONS)
        except StatusError as error:
            if error.reason != Reason.ALREADY_EXISTS:
                raise
            return await self._client.get(resources.NODES, name)
        log.info("registered node %s", name)
        return created

    async def _report(self) -> None:
        status = self._status()
        now = self._clock.monotonic()
        changed = without_heartbeats(status) != self._written or self._contradicted(status)
        if not changed and now - self._written_at < WRITE_INTERVAL:
            return
        answer = await self._client.patch(
            resources.NODES, self._config.name, {"status": status}, subresource="status", options=_OPTIONS
        )
        self._written, self._written_at = without_heartbeats(status), now
        self._know(decode(answer, Node))

    def _contradicted(self, status: dict[str, Any]) -> bool:
        """Whether the API says otherwise: a node that was cut off is marked by others."""
        if self._known is None:
            return False
        theirs = {c.type: c.status for c in self._known.status.conditions}
        return any(theirs.get(c["type"]) != c["status"] for c in status["conditions"])

    def _status(self) -> dict[str, Any]:
        config = self._config
        found = host.capacity(config.data_dir)
        capacity, allocatable = resources_of(config, found)
        before = self._known.status.conditions if self._known is not None else ()
        pressure = host.pressure(config.data_dir)
        return {
            "capacity": capacity,
            "allocatable": allocatable,
            "addresses": [
                {"type": "InternalIP", "address": config.address},
                {"type": "Hostname", "address": config.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": int(config.agent_address.rpartition(":")[2] or 0)}},
            "nodeInfo": host.node_info(self._runtime_version(), KUBELET_VERSION),
            "conditions": conditions_of(self._health(), pressure, before, self._clock.now()),
        }

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        state = new or old
        if state is None or state.key != Key("", self._config.name):
            return
        if new is None:
            self.registered.clear()
            self._known = None
            self.check()
        elif self._known is None or new.revision > self._known.revision:
            self._know(new)
            if self._written and self._contradicted(self._status()):
                self.check()

    def _know(self, node: Node) -> None:
        if self._known is None or node.revision >= self._known.revision or node.uid != self._known.uid:
            self._known = node
            self.uid = node.uid
