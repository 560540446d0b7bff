"""A watch whose member stops answering while the stream begins: it goes on with the next member."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from kybern.client.etcd.endpoints import Endpoint, Endpoints
from kybern.client.etcd.watching import Watching
from kybern.config.models import Tls
from kybern.pb.etcd import kv_pb2, mvcc_pb2, watch_pb2


class Beginning:
    """A stream that is cancelled before it has begun: gRPC leaves who writes to it waiting for ever."""

    def __init__(self) -> None:
        self.written = asyncio.Event()
        self.cancelled = False

    async def write(self, _request: watch_pb2.WatchRequest) -> None:
        self.written.set()
        await asyncio.Event().wait()

    def cancel(self) -> None:
        self.cancelled = True


class Serving:
    """A stream with one change."""

    async def write(self, _request: watch_pb2.WatchRequest) -> None:
        """Taken."""

    async def __aiter__(self) -> AsyncIterator[watch_pb2.WatchResponse]:
        event = mvcc_pb2.Event(kv=mvcc_pb2.KeyValue(key=b"k", mod_revision=5, version=1))
        yield watch_pb2.WatchResponse(header=kv_pb2.ResponseHeader(revision=5), events=[event])
        await asyncio.Event().wait()

    def cancel(self) -> None:
        """Nothing goes on."""


class Member(Endpoint):
    """A real endpoint whose stream is the given one."""

    def __init__(self, stream: Beginning | Serving) -> None:
        super().__init__("member", Tls(cert=Path("none"), key=Path("none"), ca=Path("none")))
        self._stream = stream

    @property
    def channel(self) -> Any:
        return self

    async def connect(self) -> None:
        """There is a connection."""

    def stream_stream(self, _method: str, **_options: Any) -> Any:
        return lambda **_metadata: self._stream

    def unary_unary(self, _method: str, **_options: Any) -> Any:
        async def ask(_request: object, **_timeout: float) -> None:
            """It lives."""

        return ask


class Members:
    """Two endpoints; the first is in use until it fails."""

    def __init__(self, *members: Member) -> None:
        self._members = list(members)

    @property
    def current(self) -> Member:
        return self._members[0]

    def next(self, failed: Member) -> None:
        if self._members[0] is failed:
            self._members.reverse()


async def test_a_watch_leaves_a_member_that_fails_while_its_stream_begins() -> None:
    beginning = Beginning()
    first = Member(beginning)
    members = Members(first, Member(Serving()))
    loop = asyncio.get_running_loop()
    watching = Watching(cast(Endpoints, members), b"a", b"z", 0, 30.0, loop.time)
    batches = watching.batches()
    coming = asyncio.ensure_future(anext(batches))
    await beginning.written.wait()
    first.fail()
    batch = await asyncio.wait_for(coming, 30)
    assert (batch.revision, [change.value.key for change in batch.changes]) == (5, [b"k"])
    assert beginning.cancelled
    await batches.aclose()
