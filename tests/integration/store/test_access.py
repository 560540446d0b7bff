"""Who may speak to the store, and what a reflection client sees."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from kybern.config.models import Tls
from kybern.pb.etcd import kv_pb2, watch_pb2
from kybern.pb.v1 import store_pipe_pb2
from kybern.rpc.credentials import open_channel
from kybern.rpc.server import HANDSHAKE_SECONDS
from store.server.member import SERVICES
from tests.integration.store.serving import Certificates, Endpoint

# Its messages are made at run time, which type checkers do not see.
reflection: Any = reflection_pb2


def range_call(channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryCall[kv_pb2.RangeRequest, kv_pb2.RangeResponse]:
    call: grpc.aio.UnaryUnaryMultiCallable[kv_pb2.RangeRequest, kv_pb2.RangeResponse] = channel.unary_unary(
        "/etcdserverpb.KV/Range",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=kv_pb2.RangeResponse.FromString,
    )
    return call(kv_pb2.RangeRequest(key=b"a"), timeout=5)


async def test_masters_and_members_are_served(ours: Endpoint, certificates: Certificates) -> None:
    for tls in (certificates.master("m2"), certificates.member("s9")):
        async with open_channel(ours.address, tls) as channel:
            assert (await range_call(channel)).header.revision == 1


async def test_a_certificate_of_another_group_gets_nothing(ours: Endpoint, certificates: Certificates) -> None:
    tls = certificates.issue("system:node:n1", "system:nodes")
    async with open_channel(ours.address, tls) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await range_call(channel)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "system:node:n1" in (caught.value.details() or "")
        for method, request in (
            (
                "/etcdserverpb.Watch/Watch",
                watch_pb2.WatchRequest(create_request=watch_pb2.WatchCreateRequest(key=b"a")),
            ),
            ("/kybern.v1.StorePipe/Pipe", store_pipe_pb2.PipeRequest(client=1)),
        ):
            stream: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(method)(timeout=5)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.write(request.SerializeToString())
                await stream.read()
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_health_and_reflection_are_for_members_and_masters_too(
    ours: Endpoint, certificates: Certificates
) -> None:
    tls = certificates.issue("system:node:n1", "system:nodes")
    async with open_channel(ours.address, tls) as channel:
        health: Any = health_pb2_grpc.HealthStub(cast(Any, channel))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Watch(health_pb2.HealthCheckRequest(), timeout=5).read()
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast(Any, channel))
        request = reflection.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ServerReflectionInfo(iter([request]), timeout=5).read()
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_certificate_of_another_authority_does_not_connect(ours: Endpoint, tmp_path: Path) -> None:
    stranger = Certificates(tmp_path / "other").master()
    known = Tls(cert=stranger.cert, key=stranger.key, ca=ours.tls.ca)
    async with open_channel(ours.address, known) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await range_call(channel)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_no_certificate_does_not_connect(ours: Endpoint) -> None:
    credentials = grpc.ssl_channel_credentials(root_certificates=ours.tls.ca.read_bytes())
    async with grpc.aio.secure_channel(ours.address, credentials) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await range_call(channel)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_reflection_lists_the_services(ours: Endpoint) -> None:
    async with open_channel(ours.address, ours.tls) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast(Any, channel))
        request = reflection.ServerReflectionRequest(list_services="")
        async for response in stub.ServerReflectionInfo(iter([request])):
            names = {service.name for service in response.list_services_response.service}
        assert names >= {*SERVICES, "grpc.health.v1.Health"}
        symbol = reflection.ServerReflectionRequest(file_containing_symbol="etcdserverpb.KV")
        async for response in stub.ServerReflectionInfo(iter([symbol])):
            assert any(b"TxnRequest" in file for file in response.file_descriptor_response.file_descriptor_proto)


async def test_health_is_that_of_the_group(ours: Endpoint) -> None:
    async with open_channel(ours.address, ours.tls) as channel:
        health: Any = health_pb2_grpc.HealthStub(cast(Any, channel))
        answer = await health.Check(health_pb2.HealthCheckRequest(service="etcdserverpb.KV"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest(service="etcdserverpb.KV"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


async def test_who_connects_and_shows_nothing_is_not_kept(ours: Endpoint) -> None:
    host, _, port = ours.address.rpartition(":")
    silent, babbling = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
    babbling[1].write(b"\x16\x03\x01")
    async with asyncio.timeout(2 * HANDSHAKE_SECONDS):
        for reader, writer in (silent, babbling):
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
