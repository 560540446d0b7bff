"""A revision of more changes than are handed out at once: watchers get it whole, or in fragments that say so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from kybern.pb.etcd import kv_pb2, watch_pb2
from kybern.rpc.credentials import channel_credentials
from tests.integration.store.serving import Certificates, Endpoint, our_store, real_etcd, store_config

COUNT = 5000
# With what they were, all together are more than a response of a fragment may have.
VALUE = bytes(600)


@pytest.fixture(params=["ours", "etcd"])
async def channel(
    request: pytest.FixtureRequest, certificates: Certificates, tmp_path: Path
) -> AsyncIterator[grpc.aio.Channel]:
    config = store_config(certificates)
    context: Any = our_store(config) if request.param == "ours" else real_etcd(certificates, tmp_path / "etcd")
    async with context as running:
        endpoint = running if isinstance(running, Endpoint) else Endpoint(config.client_address, certificates.master())
        options = [("grpc.max_receive_message_length", 64 << 20)]
        credentials = channel_credentials(endpoint.tls)
        async with grpc.aio.secure_channel(endpoint.address, credentials, options=options) as made:
            yield made


def key(number: int) -> bytes:
    return b"/many/%05d" % number


async def fill(channel: grpc.aio.Channel) -> None:
    txn: Any = channel.unary_unary("/etcdserverpb.KV/Txn")
    for first in range(0, COUNT, 100):
        request = kv_pb2.TxnRequest()
        for number in range(first, first + 100):
            request.success.add().request_put.CopyFrom(kv_pb2.PutRequest(key=key(number), value=VALUE))
        await txn(request.SerializeToString())


async def watched(channel: grpc.aio.Channel, begun: asyncio.Event, **options: Any) -> list[watch_pb2.WatchResponse]:
    """What a watch of all keys is sent, until it has as many events as there are keys."""
    stream: Any = channel.stream_stream("/etcdserverpb.Watch/Watch")()
    create = watch_pb2.WatchCreateRequest(key=b"/many/", range_end=b"/many0", prev_kv=True, **options)
    await stream.write(watch_pb2.WatchRequest(create_request=create).SerializeToString())
    assert watch_pb2.WatchResponse.FromString(await stream.read()).created
    begun.set()
    responses: list[watch_pb2.WatchResponse] = []
    while sum(len(response.events) for response in responses) < COUNT:
        responses.append(watch_pb2.WatchResponse.FromString(await stream.read()))
    stream.cancel()
    return responses


async def test_a_deletion_of_very_many_keys_reaches_watchers_that_were_there_and_that_come_later(
    channel: grpc.aio.Channel,
) -> None:
    await fill(channel)
    begun = [asyncio.Event() for _ in range(2)]
    async with asyncio.timeout(60):
        there = [
            asyncio.create_task(watched(channel, event, fragment=fragment))
            for event, fragment in zip(begun, (False, True), strict=True)
        ]
        for event in begun:
            await event.wait()
        delete: Any = channel.unary_unary("/etcdserverpb.KV/DeleteRange")
        request = kv_pb2.DeleteRangeRequest(key=b"/many/", range_end=b"/many0")
        revision = kv_pb2.DeleteRangeResponse.FromString(await delete(request.SerializeToString())).header.revision
        whole, cut = await asyncio.gather(*there)
        later = await watched(channel, asyncio.Event(), start_revision=revision)
        later_cut = await watched(channel, asyncio.Event(), start_revision=revision, fragment=True)
    for responses in (whole, later):
        assert [(len(response.events), response.fragment) for response in responses] == [(COUNT, False)]
    for responses in (cut, later_cut):
        assert len(responses) > 1
        assert [response.fragment for response in responses] == [True] * (len(responses) - 1) + [False]
    for responses in (whole, cut, later, later_cut):
        events = [event for response in responses for event in response.events]
        assert [event.kv.key for event in events] == [key(number) for number in range(COUNT)]
        assert {event.kv.mod_revision for event in events} == {revision}
        assert {event.prev_kv.value for event in events} == {VALUE}
