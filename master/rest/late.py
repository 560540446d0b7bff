"""An answer of many pieces that begins a little late, so that a refusal can still be an HTTP status."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

# How long a refusal may take; after that the headers leave, since clients wait for them.
_REFUSAL_SECONDS = 0.1


class LateAnswer:
    """A chunked answer, whose headers leave with the first piece, or after a moment."""

    def __init__(self, request: web.BaseRequest, headers: Mapping[str, str]) -> None:
        self.response = web.StreamResponse(headers=headers)
        self._request = request
        self._beginning: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def begun(self) -> bool:
        """Whether it is too late for another status."""
        return self._beginning is not None

    def begin_later(self) -> None:
        """Begin by itself in a moment, unless there is a refusal before (`cancel`)."""
        self._timer = asyncio.get_running_loop().call_later(_REFUSAL_SECONDS, self._start)

    def cancel(self) -> None:
        """Do not begin by itself any more."""
        if self._timer is not None:
            self._timer.cancel()

    async def begin(self) -> None:
        """Send the headers, unless they are sent already."""
        self.cancel()
        if self._beginning is None:
            self._start()
        if self._beginning is not None:
            # Also when it is done: that is where a lost client shows.
            await asyncio.shield(self._beginning)

    async def write(self, data: bytes) -> None:
        """Send a piece; empty ones are none."""
        if data:
            await self.begin()
            await self.response.write(data)

    def _start(self) -> None:
        self._beginning = asyncio.ensure_future(self.response.prepare(self._request))
