"""Whether pods can be wired. Closed while the network starts, so that no pod fails only because it came early."""

from __future__ import annotations

import asyncio

from node.network.interface import NetworkError

# How long a pod waits before it is told that it cannot be started now.
PATIENCE = 20.0


class NetworkGate:
    """Opened once by whoever runs the network."""

    def __init__(self, *, ready: bool = True) -> None:
        self._ready = asyncio.Event()
        if ready:
            self._ready.set()

    def open(self) -> None:
        """Pods can be wired from now on."""
        self._ready.set()

    @property
    def problem(self) -> str:
        """Why pods cannot be wired; empty when they can."""
        return "" if self._ready.is_set() else "the pod network is not ready yet"

    async def passed(self) -> None:
        """Wait until pods can be wired.

        Raises:
            NetworkError: when that takes too long.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                await self._ready.wait()
        except TimeoutError:
            raise NetworkError(self.problem) from None
