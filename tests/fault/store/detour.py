"""A way for packets through this process, where they wait or get lost: a tun device and a queue.

It stands in for netem, which not every kernel has. The kernel routes packets into the device, and routes those that are
written back on to where they go.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import struct
from collections import deque

DEVICE = "detour"
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_MTU = 65536
# More than that waits for nobody: it is lost, as on a full link.
_MOST = 4096


class Detour:
    """The device `DEVICE`; it has to be set up and routed to. What comes before `set` passes at once."""

    def __init__(self) -> None:
        """Make the device.

        Raises:
            OSError: when that is not possible.
        """
        self._file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(self._file, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._file, self._read)
        self._delay = 0.0
        self._loss = 0.0
        self._rng = random.Random()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.passed = self.lost = 0

    def set(self, delay: float = 0.0, loss: float = 0.0, seed: int = 0) -> None:
        """Let packets wait so many seconds, and lose a share of them; those that wait go on at once."""
        self._delay, self._loss, self._rng = delay, loss, random.Random(seed)
        self._send(upto=float("inf"))

    def close(self) -> None:
        """Remove the device."""
        self._loop.remove_reader(self._file)
        if self._timer is not None:
            self._timer.cancel()
        os.close(self._file)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = os.read(self._file, _MTU)
                if self._rng.random() < self._loss or len(self._waiting) >= _MOST:
                    self.lost += 1
                    continue
                self._waiting.append((self._loop.time() + self._delay, packet))
        self._send(upto=self._loop.time())

    def _send(self, upto: float) -> None:
        while self._waiting and self._waiting[0][0] <= upto:
            # A link that is down takes nothing; packets get lost.
            with contextlib.suppress(OSError):
                os.write(self._file, self._waiting.popleft()[1])
            self.passed += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            self._timer = self._loop.call_at(self._waiting[0][0], self._due)

    def _due(self) -> None:
        self._timer = None
        self._send(upto=self._loop.time())
