"""Probes over real sockets on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import msgspec
import pytest
from aiohttp import web
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from kybern.api.types import Container as ContainerSpec
from kybern.api.types import Pod
from kybern.api.types.pods import LifecycleHandler, Probe
from kybern.clock import SystemClock
from node.agent.prober import NetworkProber
from node.agent.probes import Answer
from node.runtime.fake import FakeRuntime


@pytest.fixture
async def prober() -> AsyncIterator[NetworkProber]:
    made = NetworkProber(FakeRuntime(SystemClock()))
    yield made
    await made.close()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    released = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        path = request.path
        if path == "/slow":
            await released.wait()
        if path == "/moved":
            return web.Response(status=302, headers={"Location": "http://192.0.2.1/"})
        if path == "/header":
            return web.Response(status=200 if request.headers.get("X-Who") == "me" else 403)
        return web.Response(status=500 if path == "/bad" else 200, text="x" * 100_000)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    released.set()
    await runner.cleanup()


async def ask(prober: NetworkProber, port: int, **action: Any) -> Answer:
    probe = msgspec.convert(action, Probe)
    spec = msgspec.convert({"name": "main", "ports": [{"name": "web", "containerPort": port}]}, ContainerSpec)
    return await prober.probe(probe, Pod(), spec, "none", "127.0.0.1")


@pytest.mark.parametrize(
    ("path", "ok"), [("/", True), ("good", True), ("/moved", True), ("/bad", False), ("/header", False)]
)
async def test_http(prober: NetworkProber, port: int, path: str, ok: bool) -> None:
    assert (await ask(prober, port, httpGet={"path": path, "port": "web"})).ok is ok


async def test_http_failures_say_why(prober: NetworkProber, port: int) -> None:
    bad = await ask(prober, port, httpGet={"path": "/bad", "port": port})
    assert bad.message == "HTTP probe failed with statuscode: 500"
    slow = await ask(prober, port, httpGet={"path": "/slow", "port": port})
    assert slow == Answer(False, "no answer within 1 s")
    named = await ask(prober, port, httpGet={"port": "nonsense"})
    assert named == Answer(False, "there is no port 'nonsense'")
    headers = [{"name": "X-Who", "value": "me"}]
    assert (await ask(prober, port, httpGet={"path": "/header", "port": port, "httpHeaders": headers})).ok


async def test_tcp(prober: NetworkProber, port: int, unused_tcp_port: int) -> None:
    assert (await ask(prober, port, tcpSocket={"port": port})).ok
    refused = await ask(prober, port, tcpSocket={"port": unused_tcp_port})
    assert not refused.ok
    assert str(unused_tcp_port) in refused.message


async def test_grpc(prober: NetworkProber, unused_tcp_port: int) -> None:
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        assert (await ask(prober, 0, grpc={"port": port})).ok
        await servicer.set("db", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert not (await ask(prober, 0, grpc={"port": port, "service": "db"})).ok
        assert "NOT_FOUND" in (await ask(prober, 0, grpc={"port": port, "service": "none"})).message
    finally:
        await server.stop(0)
    assert not (await ask(prober, 0, grpc={"port": unused_tcp_port})).ok


async def test_hooks(prober: NetworkProber, port: int) -> None:
    spec = msgspec.convert({"name": "main"}, ContainerSpec)

    async def run(seconds: float = 5, **action: Any) -> Answer:
        return await prober.hook(msgspec.convert(action, LifecycleHandler), spec, "none", "127.0.0.1", seconds)

    assert (await run(httpGet={"path": "/", "port": port})).ok
    assert not (await run(httpGet={"path": "/bad", "port": port})).ok
    assert (await run(sleep={"seconds": 0})).ok
    assert not (await run(0.05, sleep={"seconds": 30})).ok
    assert not (await run(exec={"command": ["x"]})).ok
