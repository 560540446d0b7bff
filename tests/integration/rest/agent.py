"""A node agent that has no containers: it answers logs, commands and forwarded ports by rules of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from kybern.api.errors import StatusError
from kybern.config.models import Tls
from kybern.pb.v1 import node_agent_pb2 as pb
from kybern.pb.v1 import node_agent_pb2_grpc
from kybern.rpc.errors import abort
from kybern.rpc.server import RpcServer


class FakeAgent(node_agent_pb2_grpc.NodeAgentServicer):
    """Serves `kybern.v1.NodeAgent`. `requests` are the first requests that came in; `sizes` the terminal's."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.sizes: list[tuple[int, int]] = []
        self.ended = asyncio.Event()

    async def Logs(self, request: pb.LogsRequest, context: Any) -> AsyncIterator[pb.LogsResponse]:  # noqa: N802
        self.requests.append(request)
        if request.previous:
            await abort(context, StatusError(400, "BadRequest", "previous terminated container not found"))
        try:
            count = request.tail_lines if request.HasField("tail_lines") else 3
            for number in range(count):
                yield pb.LogsResponse(data=f"line {number}\n".encode())
            if request.follow:
                await asyncio.Event().wait()
        finally:
            self.ended.set()

    async def Exec(self, requests: AsyncIterator[pb.ExecRequest], context: Any) -> AsyncIterator[pb.ExecResponse]:  # noqa: N802
        start = (await anext(requests)).start
        self.requests.append(start)
        match list(start.command):
            case ["echo", *words]:
                yield pb.ExecResponse(stdout=(" ".join(words) + "\n").encode())
                yield pb.ExecResponse(exit=pb.ExecExit(code=0))
            case ["fail", text, code]:
                yield pb.ExecResponse(stderr=text.encode())
                yield pb.ExecResponse(exit=pb.ExecExit(code=int(code)))
            case ["big"]:
                for _ in range(64):
                    yield pb.ExecResponse(stdout=b"x" * 65536)
                yield pb.ExecResponse(exit=pb.ExecExit(code=0))
            case ["gone"]:
                await abort(context, StatusError(409, "Conflict", "the container is not running"))
            case ["sleep"]:
                try:
                    await asyncio.Event().wait()
                finally:
                    self.ended.set()
            case _:
                async for response in self._cat(requests):
                    yield response

    async def Attach(  # noqa: N802
        self, requests: AsyncIterator[pb.AttachRequest], context: Any
    ) -> AsyncIterator[pb.ExecResponse]:
        self.requests.append((await anext(requests)).start)
        yield pb.ExecResponse(stdout=b"attached\n")
        async for response in self._cat(requests):
            yield response

    async def _cat(self, requests: AsyncIterator[Any]) -> AsyncIterator[pb.ExecResponse]:
        async for request in requests:
            match request.WhichOneof("request"):
                case "stdin":
                    yield pb.ExecResponse(stdout=request.stdin)
                case "resize":
                    self.sizes.append((request.resize.width, request.resize.height))
                case "close_stdin":
                    break
        yield pb.ExecResponse(exit=pb.ExecExit(code=0))

    async def PortForward(  # noqa: N802
        self, requests: AsyncIterator[pb.PortForwardRequest], context: Any
    ) -> AsyncIterator[pb.PortForwardResponse]:
        start = (await anext(requests)).start
        self.requests.append(start)
        if start.port == 81:
            await abort(context, StatusError(500, "InternalError", "connection refused"))
        async for request in requests:
            yield pb.PortForwardResponse(data=request.data.upper())
            if request.data.endswith(b"quit\n"):
                return

    async def Stats(self, request: pb.StatsRequest, context: Any) -> pb.StatsResponse:  # noqa: N802
        return pb.StatsResponse()


async def start_agent(agent: FakeAgent, address: str, tls: Tls) -> RpcServer:
    """A started server of the agent."""
    server = RpcServer(address, tls, ["kybern.v1.NodeAgent"])
    node_agent_pb2_grpc.add_NodeAgentServicer_to_server(agent, server.grpc)
    await server.start()
    return server
