"""The pod network of a Linux node: bridge, veth pairs, direct routes.

All netlink runs in one thread that this class owns; so changes are made one after the other, and the loop never waits
for the kernel.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

from node.network import sysctl
from node.network.addresses import gateway_of, next_free
from node.network.interface import NetworkError
from node.network.links import BRIDGE, Links
from node.network.routes import DirectReach, Reach, Route, RouteTable
from node.network.settings import NetworkSettings

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class _Kernel:
    links: Links
    routes: RouteTable


# Used while no interface has the node's own address (a translated one, for example).
_DEFAULT_MTU = 1500


class LinuxPodNetwork:
    """Implements `PodNetwork`. `configure` gives it the node's range; until then `attach` refuses."""

    def __init__(self, settings: NetworkSettings, reach: Reach | None = None) -> None:
        self._settings = settings
        self._reach: Reach = reach or DirectReach()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="netlink")
        # All of these belong to the thread.
        self._kernel: _Kernel | None = None
        self._range: IPv4Network | None = None
        self._mtu = _DEFAULT_MTU
        self._wired: dict[str, IPv4Address] = {}
        self._last: IPv4Address | None = None

    # --- PodNetwork

    async def attach(self, sandbox: str, namespace: Path) -> str:
        """As `PodNetwork.attach`."""
        return await self._run(lambda: self._attach(sandbox, namespace))

    async def detach(self, sandbox: str) -> None:
        """As `PodNetwork.detach`."""
        await self._run(lambda: self._detach(sandbox))

    async def addresses(self) -> Mapping[str, str]:
        """As `PodNetwork.addresses`."""
        return await self._run(self._addresses)

    # --- for whoever runs it

    async def configure(self, pods: IPv4Network, routes: Mapping[IPv4Network, Route]) -> None:
        """Make bridge, addresses, kernel settings and routes right; call it again to repair what others changed.

        Raises:
            OSError: when the kernel refuses something; what could be done is done.
        """
        await self._run(lambda: self._configure(pods, routes))

    async def close(self) -> None:
        """End the thread; what is wired stays."""
        await self._run(self._close)
        self._thread.shutdown()

    # --- in the thread

    def _configure(self, pods: IPv4Network, routes: Mapping[IPv4Network, Route]) -> None:
        links = self._open().links
        uplink = links.uplink(self._settings.address)
        self._mtu = (uplink.mtu if uplink else _DEFAULT_MTU) - self._reach.overhead
        gateway = gateway_of(pods)
        bridge = links.ensure_bridge(gateway, [self._settings.dns], self._mtu)
        sysctl.apply()
        if self._range != pods:
            self._load(links)
            self._range = pods
            log.info("pods of this node: %s on %s, MTU %d", pods, BRIDGE, self._mtu)
        # A process of the node that asks for a service sends from the gateway's address, which the other nodes have a
        # route to; and it needs some route to the services' range before the address is translated at all.
        to_services = Route(self._settings.services, source=gateway.ip)
        self._open().routes.sync({**routes, to_services.destination: to_services}, bridge)

    def _attach(self, sandbox: str, namespace: Path) -> str:
        pods = self._range
        if pods is None:
            raise NetworkError(f"{sandbox}: this node has no pod range yet (Node.spec.podCIDR)")
        links = self._open().links
        gateway = gateway_of(pods).ip
        try:
            descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NetworkError(f"{sandbox}: cannot open the namespace {namespace}: {error.strerror}") from error
        try:
            known = self._wired.get(sandbox)
            if known is not None and known in pods and links.is_wired(sandbox, known, gateway, descriptor):
                return str(known)
            # Whatever is there belongs to an earlier namespace of the sandbox, or was never finished.
            self._detach(sandbox)
            address = self._allocate(links, pods, sandbox)
            links.wire(sandbox, address, gateway, descriptor, self._mtu)
        except OSError as error:
            self._give_up(sandbox)
            raise NetworkError(f"{sandbox}: cannot be wired: {error.strerror or error}") from error
        finally:
            os.close(descriptor)
        self._wired[sandbox] = self._last = address
        return str(address)

    def _allocate(self, links: Links, pods: IPv4Network, sandbox: str) -> IPv4Address:
        address = next_free(pods, self._wired.values(), self._last)
        if address is None:
            # Sandboxes that died took their interfaces with them.
            self._load(links)
            address = next_free(pods, self._wired.values(), self._last)
        if address is None:
            raise NetworkError(f"{sandbox}: no address is free in {pods}")
        return address

    def _detach(self, sandbox: str) -> None:
        try:
            self._open().links.unwire(sandbox)
        except OSError as error:
            raise NetworkError(f"{sandbox}: cannot be taken off the network: {error.strerror}") from error
        self._wired.pop(sandbox, None)

    def _give_up(self, sandbox: str) -> None:
        try:
            self._detach(sandbox)
        except NetworkError as error:
            log.warning("%s", error)

    def _addresses(self) -> Mapping[str, str]:
        self._load(self._open().links)
        return {sandbox: str(address) for sandbox, address in self._wired.items()}

    def _load(self, links: Links) -> None:
        """Learn from the kernel what is wired; remove what was begun and never finished."""
        wired = {}
        for port in links.ports():
            if port.address is None:
                links.remove(port.name)
            else:
                wired[port.sandbox] = port.address
        self._wired = wired
        if self._last is None and wired:
            self._last = max(wired.values())

    def _open(self) -> _Kernel:
        if self._kernel is None:
            self._kernel = _Kernel(Links(), RouteTable())
        return self._kernel

    def _close(self) -> None:
        if self._kernel is not None:
            self._kernel.links.close()
            self._kernel.routes.close()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
