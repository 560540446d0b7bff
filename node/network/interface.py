"""What the agent needs of the pod network, and the fake that tests use in its place."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class NetworkError(Exception):
    """A pod could not be wired; the message names the sandbox and the reason. Trying again may help."""


class PodNetwork(Protocol):
    """Gives sandboxes an address and takes it back. A sandbox is known by the runtime's id for it.

    Everything is idempotent, and nothing is remembered that the kernel cannot give back: after a restart of the agent
    `addresses` tells what is wired.
    """

    async def attach(self, sandbox: str, namespace: Path) -> str:
        """Wire the network namespace at that path (`/proc/PID/ns/net`) and return the pod's IPv4 address.

        Raises:
            NetworkError: when there is no address left, the node has no range yet, or the kernel refused.
        """
        ...

    async def detach(self, sandbox: str) -> None:
        """Take the sandbox's interface and address away; nothing happens when it has none."""
        ...

    async def addresses(self) -> Mapping[str, str]:
        """The addresses of all wired sandboxes, read from the kernel."""
        ...


class FakePodNetwork:
    """Counts up addresses; wires nothing."""

    def __init__(self, cidr: str = "10.244.0.0/24") -> None:
        self._free = ipaddress.ip_network(cidr).hosts()
        next(self._free)
        self._addresses: dict[str, str] = {}

    async def attach(self, sandbox: str, namespace: Path) -> str:
        """As `PodNetwork.attach`."""
        if sandbox not in self._addresses:
            self._addresses[sandbox] = str(next(self._free))
        return self._addresses[sandbox]

    async def detach(self, sandbox: str) -> None:
        """As `PodNetwork.detach`."""
        self._addresses.pop(sandbox, None)

    async def addresses(self) -> Mapping[str, str]:
        """As `PodNetwork.addresses`."""
        return dict(self._addresses)
