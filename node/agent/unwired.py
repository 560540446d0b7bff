"""A pod network that gives addresses and wires nothing, for nodes whose containers exist in memory alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from pathlib import Path

from node.network.addresses import next_free
from node.network.interface import NetworkError


class UnwiredPodNetwork:
    """Implements `PodNetwork`; addresses come from the node's range, which `pod_range` gives once it is known."""

    def __init__(self, pod_range: Callable[[], str]) -> None:
        self._range = pod_range
        self._addresses: dict[str, ipaddress.IPv4Address] = {}
        self._last: ipaddress.IPv4Address | None = None

    async def attach(self, sandbox: str, namespace: Path) -> str:
        """As `PodNetwork.attach`."""
        known = self._addresses.get(sandbox)
        if known is not None:
            return str(known)
        text = self._range()
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
