"""The node agent's service over mTLS."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from kybern.clock import SystemClock
from kybern.pb.v1 import node_agent_pb2 as pb
from kybern.pki import Identity
from kybern.rpc.credentials import open_channel
from node.runtime.fake import FakeRuntime
from node.runtime.interface import ExecResult, PodIdentity, RuntimeFailure, SandboxConfig
from tests.integration.node_agent.serving import POD, Agent, joined, ref, refusal, run, serve, shell, stream


async def test_logs_of_this_attempt_and_the_one_before(agent: Agent, runtime: FakeRuntime) -> None:
    sandbox = await runtime.run_sandbox(SandboxConfig(POD))
    first = await run(runtime, "sh", "-c", "echo old; exit 1", sandbox=sandbox)
    await asyncio.sleep(0.01)
    code, error = await refusal(agent.master.Logs(pb.LogsRequest(container=ref(), previous=True)))
    assert (code, error.code) == (grpc.StatusCode.INVALID_ARGUMENT, 400)
    assert error.message == 'previous terminated container "main" in pod "web" not found'
    await run(runtime, "sh", "-c", "echo new one; echo new two; server", sandbox=sandbox, attempt=1)

    async def log(**fields: object) -> bytes:
        request = pb.LogsRequest(container=ref(uid=POD.uid), **fields)  # type: ignore[arg-type]
        return joined([response async for response in agent.master.Logs(request)])

    assert await log() == b"new one\nnew two\n"
    assert await log(previous=True) == b"old\n"
    assert await log(tail_lines=1) == b"new two\n"
    assert await log(tail_lines=0) == b""
    assert await log(limit_bytes=4) == b"new "
    assert (await log(timestamps=True)).splitlines()[0].endswith(b"Z new one")
    assert first != ""


async def test_a_log_is_followed_and_let_go(agent: Agent, runtime: FakeRuntime) -> None:
    container = await run(runtime, "sh", "-c", "echo one; server")
    call = agent.master.Logs(pb.LogsRequest(container=ref(), follow=True))
    responses = aiter(call)
    assert (await anext(responses)).data == b"one\n"
    runtime.write(container, "two")
    assert (await anext(responses)).data == b"two\n"
    runtime.finish(container)
    assert [response async for response in responses] == []


async def test_a_command_and_its_exit_code(agent: Agent, runtime: FakeRuntime) -> None:
    await run(runtime, "server")
    start = pb.ExecStart(container=ref(), command=["sh", "-c", "echo hi; exit 3"], stdout=True, stderr=True)
    assert await shell(agent.master.Exec(stream(pb.ExecRequest(start=start)))) == (b"hi\n", b"", 3)
    start.stdout = False
    assert await shell(agent.master.Exec(stream(pb.ExecRequest(start=start)))) == (b"", b"", 3)


async def test_input_goes_to_the_command_and_its_end_as_well(agent: Agent, runtime: FakeRuntime) -> None:
    await run(runtime, "server")
    start = pb.ExecStart(container=ref(), command=["cat"], stdin=True, stdout=True, tty=True)
    resize = pb.TerminalSize(width=80, height=24)
    requests = [pb.ExecRequest(start=start), pb.ExecRequest(resize=resize), pb.ExecRequest(stdin=b"typed")]
    # The end of the requests is the end of the input.
    assert await shell(agent.master.Exec(stream(*requests))) == (b"typed", b"", 0)
    closed = pb.ExecRequest(close_stdin=True)
    call = agent.master.Exec()
    for request in (*requests, closed):
        await call.write(request)
    assert await shell(call) == (b"typed", b"", 0)


async def test_attaching(agent: Agent, runtime: FakeRuntime) -> None:
    await run(runtime, "cat", stdin=True)
    start = pb.AttachStart(container=ref(), stdin=True, stdout=True)
    requests = stream(pb.AttachRequest(start=start), pb.AttachRequest(stdin=b"over"))
    assert await shell(agent.master.Attach(requests)) == (b"over", b"", 0)


async def test_statistics_by_pod_and_container(agent: Agent, runtime: FakeRuntime) -> None:
    sandbox = await runtime.run_sandbox(SandboxConfig(POD))
    for name, figures in (("a", (1_000, 2_000)), ("b", (3_000, 4_000))):
        runtime.set_usage(await run(runtime, "server", sandbox=sandbox, name=name), *figures)
    stats = await agent.master.Stats(pb.StatsRequest())
    (pod,) = stats.pods
    assert (pod.namespace, pod.pod, pod.pod_uid) == ("shop", "web", "uid-1")
    shown = {c.name: (c.usage.cpu_nanoseconds, c.usage.memory_working_set_bytes) for c in pod.containers}
    assert shown == {"a": (1_000, 2_000), "b": (3_000, 4_000)}
    assert stats.node.cpu_nanoseconds > 0
    assert stats.node.memory_working_set_bytes > 0
    assert stats.time.seconds > 0


async def test_a_port_of_a_pod_with_the_hosts_network(agent: Agent, runtime: FakeRuntime) -> None:
    await runtime.run_sandbox(SandboxConfig(POD, host_network=True))

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Answers only when the client has sent its end of file: a half-closed connection must stay open.
        writer.write((await reader.read()).upper())
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    start = pb.PortForwardStart(namespace=POD.namespace, pod=POD.name, port=port)
    data = b"x" * 300_000
    requests = [pb.PortForwardRequest(start=start), pb.PortForwardRequest(data=data), pb.PortForwardRequest(data=b"yz")]
    answer = joined([response async for response in agent.master.PortForward(stream(*requests))])
    assert answer == data.upper() + b"YZ"
    server.close()
    await server.wait_closed()


async def test_a_port_that_nobody_listens_on(agent: Agent, runtime: FakeRuntime) -> None:
    await runtime.run_sandbox(SandboxConfig(POD, host_network=True))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        start = pb.PortForwardStart(namespace=POD.namespace, pod=POD.name, port=port)
        code, error = await refusal(agent.master.PortForward(stream(pb.PortForwardRequest(start=start))))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "refused" in error.message.lower()
    assert str(port) in error.message


async def test_what_is_not_on_the_node_is_not_found(agent: Agent, runtime: FakeRuntime) -> None:
    await run(runtime, "server")
    wrong = [
        ref(pod=PodIdentity("shop", "other", "")),
        ref(pod=PodIdentity("elsewhere", "web", "")),
        ref("sidecar"),
        ref(uid="uid-2"),
    ]
    for container in wrong:
        code, error = await refusal(agent.master.Logs(pb.LogsRequest(container=container)))
        assert (code, error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, 404, "NotFound")
    start = pb.PortForwardStart(namespace="shop", pod="other", port=80)
    code, _ = await refusal(agent.master.PortForward(stream(pb.PortForwardRequest(start=start))))
    assert code is grpc.StatusCode.NOT_FOUND


async def test_a_container_that_has_ended_runs_no_command(agent: Agent, runtime: FakeRuntime) -> None:
    container = await run(runtime, "server")
    runtime.finish(container, 1)
    start = pb.ExecStart(container=ref(), command=["true"])
    code, error = await refusal(agent.master.Exec(stream(pb.ExecRequest(start=start))))
    assert (code, error.code) == (grpc.StatusCode.FAILED_PRECONDITION, 400)
    assert error.message == 'container "main" of pod "web" is not running'


async def test_requests_that_make_no_sense(agent: Agent, runtime: FakeRuntime) -> None:
    await run(runtime, "server")
    calls = [
        agent.master.Exec(stream()),
        agent.master.Exec(stream(pb.ExecRequest(stdin=b"?"))),
        agent.master.Exec(stream(pb.ExecRequest(start=pb.ExecStart(container=ref())))),
        agent.master.PortForward(stream(pb.PortForwardRequest(start=pb.PortForwardStart(port=0)))),
        agent.master.PortForward(stream(pb.PortForwardRequest(start=pb.PortForwardStart(port=70000)))),
    ]
    for call in calls:
        code, error = await refusal(call)
        assert (code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BadRequest")


async def test_a_runtime_that_fails(agent: Agent, runtime: FakeRuntime) -> None:
    await run(runtime, "server")
    runtime.fail("usage", RuntimeFailure("broken"))
    code, error = await refusal(agent.master.Stats(pb.StatsRequest()))
    assert (code, error.code) == (grpc.StatusCode.INTERNAL, 500)
    runtime.lose()
    code, error = await refusal(agent.master.Stats(pb.StatsRequest()))
    assert (code, error.code) == (grpc.StatusCode.UNAVAILABLE, 503)


@pytest.mark.parametrize("groups", [(), ("system:masters",), ("system:nodes",), ("kybern:store",)])
async def test_only_masters_are_served(agent: Agent, runtime: FakeRuntime, groups: tuple[str, ...]) -> None:
    await run(runtime, "server")
    stub = agent.stub(Identity("somebody", groups))
    start = pb.ExecStart(container=ref(), command=["true"])
    calls = [
        stub.Logs(pb.LogsRequest(container=ref())),
        stub.Exec(stream(pb.ExecRequest(start=start))),
        stub.Attach(stream(pb.AttachRequest(start=pb.AttachStart(container=ref())))),
        stub.PortForward(stream(pb.PortForwardRequest(start=pb.PortForwardStart(port=1)))),
        stub.Stats(pb.StatsRequest()),
    ]
    for call in calls:
        code, error = await refusal(call)
        assert (code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "Forbidden"), (call, error)
        assert "somebody" in error.message


async def test_a_client_that_leaves_ends_its_command(tmp_path: Path) -> None:
    ended = asyncio.Event()

    class Watched(FakeRuntime):
        async def exec(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            process = await super().exec(*args, **kwargs)
            close = process.close

            async def closing() -> None:
                await close()
                ended.set()

            process.close = closing  # type: ignore[method-assign]
            return process

    runtime = Watched(SystemClock(), 0.0, images=["busybox"])
    await run(runtime, "server")
    async with serve(runtime, tmp_path) as other:
        call = other.master.Exec()
        await call.write(pb.ExecRequest(start=pb.ExecStart(container=ref(), command=["cat"], stdin=True, stdout=True)))
        await call.write(pb.ExecRequest(stdin=b"x"))
        assert (await anext(aiter(call))).stdout == b"x"
        call.cancel()
        async with asyncio.timeout(10):
            await ended.wait()


async def test_health_is_served_to_every_certificate(agent: Agent) -> None:
    tls = agent.files(Identity("somebody"), "somebody")
    async with open_channel(agent.address, tls) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = await check(health_pb2.HealthCheckRequest(service="kybern.v1.NodeAgent"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_scripted_commands(agent: Agent, runtime: FakeRuntime) -> None:
    await run(runtime, "server")
    runtime.on_exec = lambda container, command: ExecResult(9, b"scripted\n")
    start = pb.ExecStart(container=ref(), command=["anything"], stdout=True)
    assert await shell(agent.master.Exec(stream(pb.ExecRequest(start=start)))) == (b"scripted\n", b"", 9)
