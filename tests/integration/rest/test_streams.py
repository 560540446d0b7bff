"""Logs, shells and forwarded ports: the real kubectl, and raw WebSockets, with a node agent behind the server."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from kybern.api.resources import PODS
from tests.integration.rest.agent import FakeAgent
from tests.integration.rest.double import DoubleHandlers
from tests.integration.rest.serving import Kubectl, Served
from tests.ports import free_port

POD = "/api/v1/namespaces/default/pods/p"
# kubectl speaks WebSocket by itself, and SPDY when it is told to.
WAYS = [
    pytest.param({}, id="websocket"),
    pytest.param({"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}, id="spdy"),
]


@pytest.fixture(autouse=True)
def pod(handlers: DoubleHandlers, agent: FakeAgent) -> None:
    """A pod with two containers."""
    document = {
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]},
        "status": {"phase": "Running"},
    }
    handlers.client.put(PODS, document)


async def test_logs(agent: FakeAgent, kubectl: Kubectl) -> None:
    assert await kubectl("logs", "p", "-c", "d", "--tail=2", "--since=1h", "--timestamps", "--limit-bytes=100") == (
        "line 0\nline 1\n"
    )
    request = agent.requests[-1]
    assert (request.container.pod, request.container.container, request.timestamps) == ("p", "d", True)
    assert (request.tail_lines, request.limit_bytes) == (2, 100)
    assert request.HasField("since")
    refused = await kubectl.run("logs", "p", "-c", "c", "--previous")
    assert (refused.code, refused.out) == (1, "")
    assert "previous terminated container not found" in refused.err


async def test_logs_are_followed_until_the_client_goes(agent: FakeAgent, served: Served) -> None:
    async with served.session() as session:
        response = await session.get(f"{POD}/log?follow=true")
        async with asyncio.timeout(10):
            assert await response.content.readline() == b"line 0\n"
            response.close()
            await agent.ended.wait()


async def test_logs_that_are_empty_are_an_answer(agent: FakeAgent, served: Served) -> None:
    async with served.session() as session, session.get(f"{POD}/log?tailLines=0") as response:
        assert (response.status, response.content_type, await response.read()) == (200, "text/plain", b"")


async def test_a_node_that_does_not_answer(handlers: DoubleHandlers, served: Served) -> None:
    handlers.agent_address = f"127.0.0.1:{free_port()}"
    async with served.session() as session, session.get(f"{POD}/log") as response:
        status = await response.json()
        assert response.status == 502
        assert "the agent of node n1" in status["message"]


@pytest.mark.parametrize("way", WAYS)
async def test_exec(agent: FakeAgent, handlers: DoubleHandlers, kubectl: Kubectl, way: dict[str, str]) -> None:
    assert await kubectl("exec", "p", "-c", "d", "--", "echo", "a  b", "c", **way) == "a  b c\n"
    start = agent.requests[-1]
    assert (start.container.container, list(start.command), start.stdin) == ("d", ["echo", "a  b", "c"], False)
    assert handlers.calls[-1][2] == ("d", "create")
    failed = await kubectl.run("exec", "p", "--", "fail", "oops", "3", **way)
    assert failed.code == 3
    assert "oops" in failed.err
    assert await kubectl("exec", "-i", "p", "--", "cat", stdin="typed\n" * 20_000, **way) == "typed\n" * 20_000
    assert len(await kubectl("exec", "p", "--", "big", **way)) == 4 << 20


@pytest.mark.parametrize("way", WAYS)
async def test_what_the_node_refuses(kubectl: Kubectl, way: dict[str, str]) -> None:
    result = await kubectl.run("exec", "p", "-c", "c", "--", "gone", **way)
    assert (result.code, "the container is not running" in result.err) == (1, True)


@pytest.mark.parametrize("way", WAYS)
async def test_attach(agent: FakeAgent, kubectl: Kubectl, way: dict[str, str]) -> None:
    out = await kubectl("attach", "-i", "p", "-c", "c", stdin="hello\n", **way)
    assert out == "attached\nhello\n"
    assert agent.requests[-1].stdin


@pytest.mark.parametrize("way", WAYS)
async def test_a_terminal_tells_its_size(agent: FakeAgent, kubectl: Kubectl, way: dict[str, str]) -> None:
    main, terminal = os.openpty()
    os.set_blocking(main, False)
    process = await asyncio.create_subprocess_exec(
        *kubectl.command("exec", "-it", "p", "-c", "c", "--", "sh"),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=kubectl.environment(**way),
    )
    try:
        async with asyncio.timeout(20):
            while not agent.sizes:  # noqa: ASYNC110 - the size comes when kubectl has got so far
                await asyncio.sleep(0.02)
            start = agent.requests[-1]
            assert (start.tty, start.stdin, start.stderr) == (True, True, False)
            os.write(main, b"\x04")
    finally:
        process.kill()
        await process.wait()
        os.close(main)
        os.close(terminal)


@asynccontextmanager
async def forwarded(kubectl: Kubectl, port: int, way: dict[str, str]) -> AsyncIterator[int]:
    """A local port that kubectl forwards."""
    local = free_port()
    process = await asyncio.create_subprocess_exec(
        *kubectl.command("port-forward", "p", f"{local}:{port}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=kubectl.environment(**way),
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert b"Forwarding from" in await process.stdout.readline()
        yield local
    finally:
        process.kill()
        await process.communicate()


@pytest.mark.parametrize("way", WAYS)
async def test_port_forward(agent: FakeAgent, kubectl: Kubectl, way: dict[str, str]) -> None:
    async def ask(port: int, text: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(text)
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        return answer

    async with forwarded(kubectl, 80, way) as port:
        big = b"abc" * 100_000 + b"quit\n"
        answers = await asyncio.gather(*(ask(port, text) for text in (b"quit\n", big, b"x quit\n")))
    assert list(answers) == [b"QUIT\n", big.upper(), b"X QUIT\n"]
    assert agent.requests[-1].port == 80
    async with forwarded(kubectl, 81, way) as port:
        assert await ask(port, b"hello") == b""


async def reached(agent: FakeAgent) -> None:
    """Wait until the node has been asked."""
    async with asyncio.timeout(10):
        while not agent.requests:  # noqa: ASYNC110 - the fake has no event for it
            await asyncio.sleep(0.01)


async def test_a_websocket_whose_client_goes_ends_the_process(agent: FakeAgent, served: Served) -> None:
    async with served.session() as session:
        url = f"{POD}/exec?command=sleep&stdout=1"
        async with session.ws_connect(url, protocols=("v5.channel.k8s.io",)) as socket:
            assert (await socket.receive_bytes(timeout=10)) == b"\x01"
            await reached(agent)
        async with asyncio.timeout(10):
            await agent.ended.wait()


async def test_stopping_ends_shells(agent: FakeAgent, served: Served) -> None:
    async with served.session() as session:
        url = f"{POD}/exec?command=sleep&stdout=1"
        async with session.ws_connect(url, protocols=("v4.channel.k8s.io",)) as socket:
            await reached(agent)
            stopping = asyncio.create_task(served.server.stop())
            async with asyncio.timeout(10):
                assert (await socket.receive()).data == b"\x01"
                assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
                await stopping
                await agent.ended.wait()


@pytest.mark.parametrize(
    ("query", "protocol", "code"),
    [
        ("command=ls&stdout=1", "v1.channel.k8s.io", 403),
        ("stdout=1", "v5.channel.k8s.io", 400),
        ("command=ls", "v5.channel.k8s.io", 400),
        ("command=ls&stdout=1&container=none", "v5.channel.k8s.io", 400),
    ],
)
async def test_shells_that_cannot_be_had(served: Served, query: str, protocol: str, code: int) -> None:
    async with served.session() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"{POD}/exec?{query}", protocols=(protocol,))
        assert caught.value.status == code


async def test_numbered_channels_forward_ports(served: Served) -> None:
    async with served.session() as session:
        async with session.ws_connect(f"{POD}/portforward?ports=80,81", protocols=("v4.channel.k8s.io",)) as socket:
            heads = [await socket.receive_bytes(timeout=10) for _ in range(4)]
            assert heads == [b"\0P\0", b"\1P\0", b"\2Q\0", b"\3Q\0"]
            problem = await socket.receive_bytes(timeout=10)
            assert problem[:1] == b"\3"
            assert b"connection refused" in problem
            await socket.send_bytes(b"\0quit\n")
            assert await socket.receive_bytes(timeout=10) == b"\0QUIT\n"
            assert (await socket.receive(timeout=10)).type is aiohttp.WSMsgType.CLOSE
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(f"{POD}/portforward?ports=x", protocols=("v4.channel.k8s.io",))


async def test_the_outcome_is_a_status_on_channel_3(served: Served) -> None:
    async with served.session() as session:
        url = f"{POD}/exec?command=fail&command=no&command=7&stdout=1&stderr=1"
        async with session.ws_connect(url, protocols=("v5.channel.k8s.io", "v4.channel.k8s.io")) as socket:
            assert socket.protocol == "v5.channel.k8s.io"
            messages = [message.data async for message in socket]
    assert messages[:2] == [b"\1", b"\2no"]
    assert messages[2][:1] == b"\3"
    assert json.loads(messages[2][1:])["details"]["causes"][0]["message"] == "7"


async def test_garbage_after_an_upgrade_to_spdy_harms_nothing(served: Served) -> None:
    host, _, port = served.config.rest_address.rpartition(":")
    for junk in (os.urandom(5000), b"\x80\x03\x00\x01\x00\x00\x00\x0e" + b"\0" * 14, b"\x80\x03\0\6\0\0\0\4\0\0\0\1"):
        reader, writer = await asyncio.open_connection(host, int(port), ssl=served.context())
        head = f"POST {POD}/portforward HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        writer.write(f"{head}X-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n".encode())
        async with asyncio.timeout(10):
            assert b" 101 " in await reader.readline()
            writer.write(junk)
            writer.write_eof() if writer.can_write_eof() else None
            await asyncio.sleep(0.05)
            writer.close()
    async with served.session() as session, session.get(POD) as response:
        assert response.status == 200
