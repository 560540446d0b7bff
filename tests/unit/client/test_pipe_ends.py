"""A pipe that ends while something is being written to it: what waits is sent again to the next member."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar, cast

import grpc
import grpc.aio

from kybern.client.etcd.endpoints import Endpoints
from kybern.client.etcd.pipe import PipeClient
from kybern.pb.etcd import kv_pb2
from kybern.pb.v1 import store_pipe_pb2 as pb

T = TypeVar("T")


class Ended:
    """A stream that the server has ended: gRPC refuses to write to it before the reader learns of the end."""

    async def write(self, _data: bytes) -> None:
        raise asyncio.InvalidStateError("RPC already finished.")

    def __aiter__(self) -> Ended:
        return self

    async def __anext__(self) -> pb.PipeResponse:
        await asyncio.sleep(0)
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")

    def cancel(self) -> None:
        """Nothing is left to cancel."""


class Answering:
    """A stream that answers each call."""

    def __init__(self) -> None:
        self._calls: asyncio.Queue[int] = asyncio.Queue()

    async def write(self, data: bytes) -> None:
        for call in pb.PipeRequest.FromString(data).calls:
            self._calls.put_nowait(call.id)

    async def __aiter__(self) -> AsyncIterator[pb.PipeResponse]:
        while True:
            reply = pb.PipeReply(id=await self._calls.get(), txn=kv_pb2.TxnResponse(succeeded=True))
            yield pb.PipeResponse(replies=[reply])

    def cancel(self) -> None:
        """Nothing goes on."""


class Member:
    """An endpoint whose pipe is the given stream."""

    address = "member"

    def __init__(self, stream: Ended | Answering) -> None:
        self._stream = stream
        self.channel = self

    async def connect(self) -> None:
        """There is a connection."""

    def stream_stream(self, _method: str, **_options: Any) -> Any:
        return lambda **_metadata: self._stream

    async def run(self, work: Awaitable[T]) -> T:
        return await work


class Members:
    """Two endpoints; the first is in use until it fails."""

    def __init__(self) -> None:
        self._members = [Member(Ended()), Member(Answering())]

    @property
    def current(self) -> Member:
        return self._members[0]

    def next(self, failed: Member) -> None:
        if self._members[0] is failed:
            self._members.reverse()


async def test_what_waits_is_sent_again_when_a_pipe_ends_during_a_write() -> None:
    pipe = PipeClient(cast(Endpoints, Members()))
    response = await pipe.txn(kv_pb2.TxnRequest(), timeout=30)
    assert response.succeeded
    await pipe.close()
