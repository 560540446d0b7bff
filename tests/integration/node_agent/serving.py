"""Serves a runtime as a node does, and calls it as a master does."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc.aio

from kybern import pki
from kybern.api.errors import StatusError
from kybern.config.models import Tls
from kybern.pb.v1 import node_agent_pb2 as pb
from kybern.pb.v1 import node_agent_pb2_grpc
from kybern.rpc.credentials import open_channel
from kybern.rpc.errors import from_rpc
from node.runtime.interface import ContainerConfig, PodIdentity, Runtime, Sandbox, SandboxConfig
from node.runtime.service import MASTERS, NodeAgentServer
from tests.ports import HOST, free_port

POD = PodIdentity("shop", "web", "uid-1")


class Agent:
    """The server's address, and channels to it."""

    def __init__(self, address: str, folder: Path, authority: pki.KeyPair) -> None:
        self.address = address
        self._folder = folder
        self._authority = authority
        self._channels: list[grpc.aio.Channel] = []
        self.master = self.stub(pki.Identity("system:kybern:master:m1", (MASTERS,)))

    def stub(self, identity: pki.Identity) -> node_agent_pb2_grpc.NodeAgentAsyncStub:
        channel = open_channel(self.address, self.files(identity, f"client-{len(self._channels)}"))
        self._channels.append(channel)
        return node_agent_pb2_grpc.NodeAgentStub(channel)

    def files(self, identity: pki.Identity, name: str) -> Tls:
        pair = pki.issue(self._authority, identity, pki.utc_now(), hosts=["127.0.0.1"], server=True)
        cert, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        pair.write(cert, key)
        return Tls(cert=cert, key=key, ca=self._folder / "ca.crt")

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


@contextlib.asynccontextmanager
async def serve(runtime: Runtime, folder: Path) -> AsyncIterator[Agent]:
    """A server on a free port of loopback."""
    authority = pki.new_authority("test", pki.utc_now())
    authority.write(folder / "ca.crt", folder / "ca.key")
    address = f"{HOST}:{free_port()}"
    agent = Agent(address, folder, authority)
    server = NodeAgentServer(address, agent.files(pki.Identity("system:node:n1", ("system:nodes",)), "server"), runtime)
    await server.start()
    try:
        yield agent
    finally:
        await agent.close()
        await server.stop(0)


async def run(runtime: Runtime, *args: str, sandbox: Sandbox | None = None, name: str = "main", **fields: Any) -> str:
    """A running container."""
    sandbox = sandbox or await runtime.run_sandbox(SandboxConfig(POD))
    made = await runtime.create_container(sandbox, ContainerConfig(name, "busybox", args=args, **fields))
    await runtime.start_container(made)
    return made


def ref(container: str = "main", *, pod: PodIdentity = POD, uid: str = "") -> pb.ContainerRef:
    return pb.ContainerRef(namespace=pod.namespace, pod=pod.name, pod_uid=uid, container=container)


async def shell(call: Any) -> tuple[bytes, bytes, int | None]:
    """Standard output, standard error and exit code of an exec or attach."""
    out, err, code = b"", b"", None
    async for response in call:
        out += response.stdout
        err += response.stderr
        if response.HasField("exit"):
            code = response.exit.code
    return out, err, code


async def refusal(call: Any) -> tuple[grpc.StatusCode, StatusError]:
    """How a call fails."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code(), from_rpc(error)
    raise AssertionError("the call succeeded")


async def stream(*requests: Any) -> AsyncIterator[Any]:
    """Requests that end."""
    for request in requests:
        yield request


def joined(responses: Sequence[Any]) -> bytes:
    return b"".join(response.data for response in responses)
