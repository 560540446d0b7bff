"""The node agent's service over a real engine: what kubectl's logs, exec -it and port-forward come down to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kybern.pb.v1 import node_agent_pb2 as pb
from tests.integration.node_agent.serving import POD, Agent, joined, ref, serve, stream
from tests.lab.runtime.pods import PATIENCE, Pods

pytestmark = pytest.mark.lab


@pytest.fixture
async def agent(pods: Pods, tmp_path: Path) -> AsyncIterator[Agent]:
    async with serve(pods.runtime, tmp_path) as made:
        yield made


async def test_a_shell_with_a_terminal(agent: Agent, pods: Pods) -> None:
    await pods.start("sleep 1000", sandbox=await pods.sandbox(pod=POD))
    call = agent.master.Exec()
    start = pb.ExecStart(container=ref(), command=["sh"], tty=True, stdin=True, stdout=True)
    resize = pb.TerminalSize(width=111, height=22)
    await call.write(pb.ExecRequest(start=start))
    shown, code, typed = b"", None, False
    async with asyncio.timeout(PATIENCE):
        async for response in call:
            shown += response.stdout
            if not typed and b"#" in shown:
                # The prompt is there, so the terminal is.
                await call.write(pb.ExecRequest(resize=resize))
                await call.write(pb.ExecRequest(stdin=b"stty size; exit 5\n"))
                typed = True
            if response.HasField("exit"):
                code = response.exit.code
    assert b"22 111" in shown
    assert code == 5


async def test_a_log_is_followed_until_the_container_is_gone(agent: Agent, pods: Pods) -> None:
    container = await pods.start("echo one; sleep 1000", sandbox=await pods.sandbox(pod=POD))
    call = agent.master.Logs(pb.LogsRequest(container=ref(), follow=True))
    responses = aiter(call)
    async with asyncio.timeout(PATIENCE):
        assert (await anext(responses)).data == b"one\n"
        await pods.runtime.remove_container(container)
        assert [response async for response in responses] == []


async def test_a_port_inside_a_pods_network(agent: Agent, pods: Pods) -> None:
    sandbox = await pods.sandbox(pod=POD)
    container = await pods.start("nc -l -p 7777 -e cat", sandbox=sandbox)
    async with asyncio.timeout(PATIENCE):
        while True:
            listening = await pods.runtime.exec_sync(container, ["netstat", "-ltn"], PATIENCE)
            if b":7777 " in listening.output:
                break
            await asyncio.sleep(0.05)
    start = pb.PortForwardStart(namespace=POD.namespace, pod=POD.name, pod_uid=POD.uid, port=7777)
    requests = stream(pb.PortForwardRequest(start=start), pb.PortForwardRequest(data=b"there and back"))
    async with asyncio.timeout(PATIENCE):
        responses = [response async for response in agent.master.PortForward(requests)]
    assert joined(responses) == b"there and back"


async def test_statistics(agent: Agent, pods: Pods) -> None:
    await pods.start("sleep 1000", sandbox=await pods.sandbox(pod=POD))
    stats = await agent.master.Stats(pb.StatsRequest())
    (pod,) = stats.pods
    (container,) = pod.containers
    assert container.usage.cpu_nanoseconds > 0
    assert 0 < container.usage.memory_working_set_bytes < stats.node.memory_working_set_bytes
