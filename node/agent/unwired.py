"""A pod network that gives addresses and wires nothing, for nodes whose containers exist in memory alone."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from pathlib import Path

from kybern.api.types import Node
from kybern.client.informer import Informer
from kybern.key import Key
from node.network.addresses import next_free
from node.network.interface import NetworkError


class UnwiredPodNetwork:
    """Implements `PodNetwork`; addresses come from the node's range, once its object has one."""

    def __init__(self, node: str, nodes: Informer[Node]) -> None:
        self._range = ""
        self._ready = asyncio.Event()
        self._key = Key("", node)
        nodes.on_change(self._node_changed)
        self._addresses: dict[str, ipaddress.IPv4Address] = {}
        self._last: ipaddress.IPv4Address | None = None

    async def ready(self) -> None:
        """Wait until the node has its range."""
        await self._ready.wait()

    async def attach(self, sandbox: str, namespace: Path) -> str:
        """As `PodNetwork.attach`."""
        known = self._addresses.get(sandbox)
        if known is not None:
            return str(known)
        text = self._range
        if not text:
            raise NetworkError(f"{sandbox}: this node has no pod range yet (Node.spec.podCIDR)")
        address = next_free(ipaddress.IPv4Network(text), self._addresses.values(), self._last)
        if address is None:
            raise NetworkError(f"{sandbox}: no address is free in {text}")
        self._addresses[sandbox] = self._last = address
        return str(address)

    async def detach(self, sandbox: str) -> None:
        """As `PodNetwork.detach`."""
        self._addresses.pop(sandbox, None)

    async def addresses(self) -> Mapping[str, str]:
        """As `PodNetwork.addresses`."""
        return {sandbox: str(address) for sandbox, address in self._addresses.items()}

    def _node_changed(self, _: Node | None, new: Node | None) -> None:
        if new is not None and new.key == self._key and new.spec.pod_cidr:
            self._range = new.spec.pod_cidr
            self._ready.set()
