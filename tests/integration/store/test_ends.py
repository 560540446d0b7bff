"""Streams that end while an answer is being written: the client always hears how it ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest

from kybern.pb.etcd import watch_pb2
from kybern.pb.v1 import store_pipe_pb2 as pb
from kybern.rpc.credentials import channel_credentials
from tests.integration.store.serving import Endpoint


@pytest.fixture
async def channel(ours: Endpoint) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.secure_channel(ours.address, channel_credentials(ours.tls)) as channel:
        yield channel


async def end_of(call: Any, requests: Sequence[bytes]) -> Any:
    """Send requests, close our side at once and read to the end; the status."""
    async with asyncio.timeout(10):
        for request in requests:
            await call.write(request)
        await call.done_writing()
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
        return await call.code()


async def test_a_watch_that_is_closed_as_soon_as_it_is_made_ends_well(channel: grpc.aio.Channel) -> None:
    create = watch_pb2.WatchRequest(create_request=watch_pb2.WatchCreateRequest(key=b"k")).SerializeToString()
    for _ in range(30):
        assert await end_of(channel.stream_stream("/etcdserverpb.Watch/Watch")(), [create]) == grpc.StatusCode.OK


async def test_a_pipe_that_is_refused_while_it_answers_says_so(channel: grpc.aio.Channel) -> None:
    for number in range(1, 31):
        requests = [pb.PipeRequest(client=client, calls=[pb.PipeCall(id=1)]) for client in (number, 0)]
        ended = await end_of(
            channel.stream_stream("/kybern.v1.StorePipe/Pipe")(), [request.SerializeToString() for request in requests]
        )
        assert ended == grpc.StatusCode.INVALID_ARGUMENT
