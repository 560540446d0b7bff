"""Watches: a chunked answer with a JSON frame per event, as few writes as there are batches."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from aiohttp import web

from kybern.api.errors import StatusError, internal
from kybern.client.interface import EventType, WatchEvent, revision_of
from kybern.clock import Clock
from master.apiserver.interface import Handlers
from master.rest import options
from master.rest.answers import JSON_HEADERS, Shape, failure, metadata_of, table
from master.rest.connection import Sessions
from master.rest.late import LateAnswer
from master.rest.negotiation import Form
from master.rest.objects import Call
from master.rest.printers import printer_of

log = logging.getLogger(__name__)

_HEADS = {kind: f'{{"type":"{kind}","object":'.encode() for kind in EventType}
_ERROR_HEAD = b'{"type":"ERROR","object":'


class Watches:
    """The verb `watch`."""

    def __init__(self, handlers: Handlers, sessions: Sessions, clock: Clock) -> None:
        self._handlers = handlers
        self._sessions = sessions
        self._clock = clock

    async def watch(self, call: Call) -> web.StreamResponse:
        """Stream events until the client goes, its time is up, the server stops or the watch fails."""
        shape = call.shape()
        chosen = options.watch_options(call.query)
        seconds = options.watch_seconds(call.query)
        frames = Frames(call, shape, self._clock)
        answer = LateAnswer(call.request, JSON_HEADERS)
        events = self._handlers.watch(call.user, call.target, chosen)
        try:
            async with self._sessions.hold(call.request, seconds):
                await _pump(events, frames, answer)
        finally:
            # Leaving the loop of a generator does not end it; its watcher must go now, not with the garbage.
            if isinstance(events, AsyncGenerator):
                await events.aclose()
        # A watch whose end came before its first event still has an answer: an empty one.
        await answer.begin()
        return answer.response


async def _pump(events: AsyncIterator[Sequence[WatchEvent]], frames: Frames, answer: LateAnswer) -> None:
    answer.begin_later()
    try:
        async for batch in events:
            # An empty batch says that the watch stands: clients wait for the headers.
            await answer.begin()
            await answer.write(frames.encode(batch))
    except StatusError as error:
        if not answer.begun:
            raise
        await answer.write(_ERROR_HEAD + failure(error)[:-1] + b"}\n")
    except ConnectionError:
        raise
    except Exception:
        if not answer.begun:
            raise
        log.exception("a watch failed")
        await answer.write(_ERROR_HEAD + failure(internal("the watch failed"))[:-1] + b"}\n")
    finally:
        answer.cancel()


class Frames:
    """Encodes the events of one watch."""

    def __init__(self, call: Call, shape: Shape, clock: Clock) -> None:
        self._shape = shape
        self._clock = clock
        self._printer = printer_of(call.resource)
        self._heads = True

    def encode(self, batch: Sequence[WatchEvent]) -> bytes:
        """The frames of a batch."""
        form = self._shape.accepted.form
        parts: list[bytes] = []
        for event in batch:
            if form is Form.WHOLE:
                shown = event.object
            elif form is Form.METADATA:
                shown = metadata_of(event.object, self._shape.accepted)
            else:
                shown = self._table(event)
            parts += (_HEADS[event.type], shown, b"}\n")
        return b"".join(parts)

    def _table(self, event: WatchEvent) -> bytes:
        """A table of one row; the columns come once. A bookmark has no row, only its version."""
        items = [] if event.type is EventType.BOOKMARK else [event.object]
        metadata = {"resourceVersion": str(event.revision or revision_of(event.object))}
        shown = table(items, self._printer, self._shape, self._clock.now(), metadata, heads=self._heads)
        self._heads = False
        return shown
