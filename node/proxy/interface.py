"""What the service routing needs of a packet filter, and the fake that tests use in its place."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import IPv4Address
from typing import Protocol

from kybern.key import Key
from node.proxy.model import PortRoute


class RoutingError(Exception):
    """Rules could not be read or written; the message has the tool's own words. Trying again may help."""


class RoutingBackend(Protocol):
    """Holds what is wanted (`set_...`, no effect yet) and brings the packet filter there (`sync`, `resync`).

    What it wrote survives this process untouched.
    """

    def set_nodes(self, addresses: Collection[IPv4Address]) -> None:
        """The addresses of all nodes of the cluster."""
        ...

    def set_service(self, service: Key, routes: Sequence[PortRoute]) -> None:
        """The routes of a Service; none when it is gone."""
        ...

    async def sync(self) -> int:
        """Write what changed since the last time; returns how many chains or maps that were.

        Raises:
            RoutingError: when nothing was written. The next `sync` compares everything.
        """
        ...

    async def resync(self) -> int:
        """Compare everything with what the packet filter has, and repair it; returns how much differed.

        Raises:
            RoutingError: as `sync`.
        """
        ...


class FakeRouting:
    """Remembers what it was told; `fail` makes the next calls of `sync` and `resync` fail."""

    def __init__(self) -> None:
        self.nodes: frozenset[IPv4Address] = frozenset()
        self.services: dict[Key, tuple[PortRoute, ...]] = {}
        # What the packets would see: a copy of `services` as of the last sync.
        self.active: dict[Key, tuple[PortRoute, ...]] = {}
        self.syncs = 0
        self.resyncs = 0
        self.fail = 0

    def set_nodes(self, addresses: Collection[IPv4Address]) -> None:
        """As `RoutingBackend.set_nodes`."""
        self.nodes = frozenset(addresses)

    def set_service(self, service: Key, routes: Sequence[PortRoute]) -> None:
        """As `RoutingBackend.set_service`."""
        if routes:
            self.services[service] = tuple(routes)
        else:
            self.services.pop(service, None)

    async def sync(self) -> int:
        """As `RoutingBackend.sync`."""
        self.syncs += 1
        return self._write()

    async def resync(self) -> int:
        """As `RoutingBackend.resync`."""
        self.resyncs += 1
        return self._write()

    def _write(self) -> int:
        if self.fail:
            self.fail -= 1
            raise RoutingError("told to fail")
        changed = len(self.services.items() ^ self.active.items())
        self.active = dict(self.services)
        return changed
