"""etcdserverpb.Watch: streams with any number of watches each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable
from typing import Any

from kybern.pb.etcd import watch_pb2
from store.mvcc.errors import COMPACTED, NO_LEADER
from store.mvcc.records import NO_BOUND
from store.server.core import Answers, Context, Core, Guard, Refused, handlers
from store.watch.events import Cutter, EventEncoder
from store.watch.hub import Watcher, WatchHub

SERVICE = "etcdserverpb.Watch"

# Seconds between progress messages of watches that asked for them, and between looks at the leader.
PROGRESS_INTERVAL = 5.0
_LEADER_INTERVAL = 0.5
# Seconds without a leader after which streams that require one are ended.
_LEADERLESS = 3.0
# About how large a response may grow, in bytes: well below what clients accept at most.
_RESPONSE = 1024 * 1024
# Answers to requests that may wait for a client that does not read: beyond that its requests wait too.
_ANSWERS = 1024
# etcd's answer to a progress request belongs to no watch.
_ALL_WATCHES = -1
# So does one to a request that makes none.
_NO_WATCH = -1


def watch_handlers(core: Core, hub: WatchHub, guard: Guard) -> Any:
    """The service, for adding to a server."""
    service = WatchService(core, hub)
    return handlers(SERVICE, {"Watch": guard.stream(service.watch, watch_pb2.WatchRequest)})


class WatchService:
    """Runs a reader and a writer for every stream."""

    def __init__(self, core: Core, hub: WatchHub) -> None:
        self._core = core
        self._hub = hub
        self._encoder = EventEncoder()

    async def watch(self, requests: AsyncIterable[watch_pb2.WatchRequest], context: Context) -> None:
        """Serve one stream until the client has closed it."""
        answers = Answers(context)
        stream = WatchStream(self._core, self._hub, self._encoder, answers)
        needs_leader = any(key == "hasleader" for key, _ in context.invocation_metadata() or ())
        tasks = [asyncio.ensure_future(stream.read(requests)), asyncio.ensure_future(stream.write())]
        tasks.append(asyncio.ensure_future(stream.report_progress()))
        if needs_leader:
            tasks.append(asyncio.ensure_future(stream.require_leader()))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            try:
                await answers.end(tasks)
            finally:
                # Not before: as long as requests are read, watches are made.
                stream.close()


class WatchStream:
    """One stream: the watches on it, and what waits to be written."""

    def __init__(self, core: Core, hub: WatchHub, encoder: EventEncoder, answers: Answers) -> None:
        self._core = core
        self._hub = hub
        self._encoder = encoder
        self._answers = answers
        self._watchers: dict[int, Watcher] = {}
        self._cutters: dict[int, Cutter] = {}
        self._next_id = 0
        self._controls: deque[watch_pb2.WatchResponse] = deque()
        self._controls_written = asyncio.Event()
        # Watchers that may have something to take, in the order in which they were woken.
        self._woken: dict[Watcher, None] = {}
        self._ready = asyncio.Event()
        self._progress_asked = False
        # Watchers to which something was written since the last round of progress messages.
        self._busy: set[int] = set()

    def close(self) -> None:
        """End all watches."""
        for watcher in self._watchers.values():
            self._hub.remove(watcher)
        self._watchers.clear()

    async def read(self, requests: AsyncIterable[watch_pb2.WatchRequest]) -> None:
        """Take the client's requests until it closes its side."""
        async for request in requests:
            while len(self._controls) >= _ANSWERS:
                self._controls_written.clear()
                await self._controls_written.wait()
            match request.WhichOneof("request_union"):
                case "create_request":
                    self._create(request.create_request)
                case "cancel_request":
                    self._cancel(request.cancel_request.watch_id)
                case "progress_request":
                    self._progress_asked = True
            self._ready.set()

    async def write(self) -> None:
        """Write what there is, watch by watch, so that a busy one does not hold up the others."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._controls or self._woken:
                while self._controls:
                    await self._answers.write(self._controls.popleft().SerializeToString())
                self._controls_written.set()
                for watcher in tuple(self._woken):
                    # It may have ended while another one was served.
                    if watcher in self._woken:
                        await self._serve(watcher)
            if self._progress_asked and all(w.idle for w in self._watchers.values()):
                self._progress_asked = False
                # No await between the look and this: nothing can have been handed out in between.
                await self._answers.write(self._response(_ALL_WATCHES, self._hub.revision).SerializeToString())

    async def report_progress(self) -> None:
        """Send progress to the watches that asked for it, when nothing else was sent meanwhile."""
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL)
            if self._controls:
                # The client does not read: it gets no more to read.
                continue
            for watcher in self._watchers.values():
                if watcher.progress and watcher.idle and watcher.id not in self._busy:
                    self._controls.append(self._response(watcher.id, self._hub.revision))
                    self._ready.set()
            self._busy.clear()

    async def require_leader(self) -> None:
        """End the stream when this member has had no leader for a while: another member may have one.

        Raises:
            Refused: after some seconds without a leader.
        """
        missed = 0.0
        while True:
            await asyncio.sleep(_LEADER_INTERVAL)
            missed = 0.0 if self._core.raft.status().leader is not None else missed + _LEADER_INTERVAL
            if missed >= _LEADERLESS:
                raise Refused(NO_LEADER)

    # --- within

    def _wake(self, watcher: Watcher) -> None:
        self._woken[watcher] = None
        self._ready.set()

    def _response(self, watch_id: int, revision: int) -> watch_pb2.WatchResponse:
        return watch_pb2.WatchResponse(header=self._core.header(revision), watch_id=watch_id)

    def _create(self, request: watch_pb2.WatchCreateRequest) -> None:
        response = self._response(_NO_WATCH, self._hub.revision)
        response.created = True
        self._controls.append(response)
        # etcd: no key is the first of all, and a range that has no key in it is answered with an error.
        start = request.key or b"\0"
        if request.range_end and request.range_end != NO_BOUND and request.range_end <= start:
            response.canceled = True
            response.cancel_reason = "mvcc: watcher range is empty"
            return
        number = request.watch_id or self._free_id()
        if number in self._watchers:
            response.canceled = True
            response.cancel_reason = "mvcc: duplicate watch ID provided on the WatchStream"
            return
        response.watch_id = number
        watcher = Watcher(
            id=number,
            start=start,
            end=request.range_end,
            wake=self._wake,
            next_revision=request.start_revision,
            no_put=watch_pb2.WatchCreateRequest.NOPUT in request.filters,
            no_delete=watch_pb2.WatchCreateRequest.NODELETE in request.filters,
            progress=request.progress_notify,
        )
        self._watchers[number] = watcher
        self._cutters[number] = Cutter(
            self._encoder, with_previous=request.prev_kv, fragment=request.fragment, limit=_RESPONSE
        )
        self._hub.add(watcher)

    def _free_id(self) -> int:
        while self._next_id in self._watchers:
            self._next_id += 1
        number = self._next_id
        self._next_id += 1
        return number

    def _cancel(self, number: int) -> None:
        watcher = self._watchers.pop(number, None)
        if watcher is None:
            return
        del self._cutters[number]
        self._hub.remove(watcher)
        self._woken.pop(watcher, None)
        response = self._response(number, self._hub.revision)
        response.canceled = True
        self._controls.append(response)

    async def _serve(self, watcher: Watcher) -> None:
        """Write one portion for a watcher; it stays woken while there may be more."""
        taken = self._hub.take(watcher)
        if taken.compacted:
            self._watchers.pop(watcher.id, None)
            self._cutters.pop(watcher.id, None)
            self._hub.remove(watcher)
            self._woken.pop(watcher, None)
            response = self._response(watcher.id, self._hub.revision)
            response.canceled = True
            response.compact_revision = taken.compacted
            response.cancel_reason = COMPACTED.message
            await self._answers.write(response.SerializeToString())
            return
        if watcher.idle:
            self._woken.pop(watcher, None)
        parts = self._cutters[watcher.id].add(taken.pairs, whole=taken.whole)
        if not parts:
            # A long history without a match, or a large revision, must not keep the loop from its other work.
            await asyncio.sleep(0)
            return
        self._busy.add(watcher.id)
        for at, part in enumerate(parts):
            if self._watchers.get(watcher.id) is not watcher:
                return
            seen = taken.whole and at == len(parts) - 1
            head = self._response(watcher.id, taken.revision if seen else part.revision)
            head.fragment = part.fragment
            await self._answers.write(head.SerializeToString() + part.events)
