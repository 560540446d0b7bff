"""`kybern.v1.NodeAgent`: logs, shells, forwarded ports and statistics of this node's pods, for masters alone.

Containers are found by what the runtime shows, so the service needs nothing of the agent and answers while the agent
starts. Who may do what in which namespace is the API server's decision; here the certificate must be a master's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC
from typing import Any, NoReturn

import grpc.aio
from google.rpc import code_pb2

from kybern.api import errors
from kybern.api.errors import Reason, StatusError
from kybern.clock import Clock, SystemClock
from kybern.config.models import Tls
from kybern.pb.v1 import node_agent_pb2 as pb
from kybern.pb.v1 import node_agent_pb2_grpc
from kybern.pki import Identity
from kybern.rpc.credentials import peer_identity
from kybern.rpc.errors import abort
from kybern.rpc.server import RpcServer
from node.runtime import cgroups, lookup
from node.runtime.forwarding import connect
from node.runtime.interface import (
    Container,
    ContainerState,
    LogOptions,
    ProcessStream,
    Runtime,
    RuntimeFailure,
)

log = logging.getLogger(__name__)

SERVICE = "kybern.v1.NodeAgent"
MASTERS = "kybern:masters"
_PIECE = 64 * 1024
# gRPC's bound for a message is 4 MiB; a log's piece may come larger than that from a runtime.
_LARGEST = 1024 * 1024

Context = grpc.aio.ServicerContext[Any, Any]
Identify = Callable[[Context], Identity]


class NodeAgentService(node_agent_pb2_grpc.NodeAgentServicer):
    """The service over a runtime. `identify` tells who calls; it is the certificate's bearer but for tests."""

    def __init__(self, runtime: Runtime, *, clock: Clock | None = None, identify: Identify = peer_identity) -> None:
        self._runtime = runtime
        self._clock = clock or SystemClock()
        self._identify = identify

    async def Logs(self, request: pb.LogsRequest, context: Context) -> AsyncIterator[pb.LogsResponse]:  # noqa: N802
        """As the contract says."""
        async with _failing(context):
            self._admit(context)
            found = await self._attempts(request.container)
            if request.previous and len(found) < 2:
                text = f'previous terminated container "{request.container.container}" in pod '
                raise errors.bad_request(f'{text}"{request.container.pod}" not found')
            pieces = self._runtime.logs(found[1 if request.previous else 0].id, _log_options(request))
            async with _closing(pieces):
                async for data in pieces:
                    for at in range(0, len(data), _LARGEST):
                        yield pb.LogsResponse(data=data[at : at + _LARGEST])

    async def Exec(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.ExecRequest], context: Context
    ) -> AsyncIterator[pb.ExecResponse]:
        """As the contract says."""
        async with _failing(context):
            # Read before anything is refused: a client that is still sending would see a broken stream instead.
            start = (await _first(request_iterator)).start
            self._admit(context)
            if not start.command:
                raise errors.bad_request("the first message must be `start`, with a command")
            found = await self._running(start.container)
            process = await self._runtime.exec(found.id, list(start.command), tty=start.tty, stdin=start.stdin)
            responses = _talk(process, request_iterator, start)
            async with _closing(responses):
                async for response in responses:
                    yield response

    async def Attach(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.AttachRequest], context: Context
    ) -> AsyncIterator[pb.ExecResponse]:
        """As the contract says."""
        async with _failing(context):
            # Read before anything is refused: a client that is still sending would see a broken stream instead.
            start = (await _first(request_iterator)).start
            self._admit(context)
            found = await self._running(start.container)
            process = await self._runtime.attach(found.id, tty=start.tty, stdin=start.stdin)
            responses = _talk(process, request_iterator, start)
            async with _closing(responses):
                async for response in responses:
                    yield response

    async def PortForward(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.PortForwardRequest], context: Context
    ) -> AsyncIterator[pb.PortForwardResponse]:
        """As the contract says."""
        async with _failing(context):
            # Read before anything is refused: a client that is still sending would see a broken stream instead.
            start = (await _first(request_iterator)).start
            self._admit(context)
            if not 0 < start.port < 65536:
                raise errors.bad_request(f"{start.port} is not a port")
            sandboxes = await self._runtime.sandboxes()
            sandbox = lookup.sandbox(sandboxes, start.namespace, start.pod, start.pod_uid)
            try:
                reader, writer = await connect(sandbox.network_namespace, start.port)
            except (OSError, TimeoutError) as error:
                reason = os.strerror(error.errno) if error.errno else "no answer"
                text = f"cannot connect to port {start.port} in pod {start.pod}: {reason}"
                raise errors.unavailable(text) from error
            try:
                async with _beside(_send(request_iterator, writer)):
                    while data := await _read(reader, start):
                        yield pb.PortForwardResponse(data=data)
            finally:
                writer.close()

    async def Stats(self, request: pb.StatsRequest, context: Context) -> pb.StatsResponse:  # noqa: N802
        """As the contract says."""
        async with _failing(context):
            self._admit(context)
            used = await self._runtime.usage()
            cpu, memory = cgroups.host_usage(ticks_per_second=os.sysconf("SC_CLK_TCK"))
            response = pb.StatsResponse(node=pb.Usage(cpu_nanoseconds=cpu, memory_working_set_bytes=memory))
            response.time.FromDatetime(self._clock.now())
            pods: dict[str, pb.PodStats] = {}
            for each in used:
                if each.pod.uid not in pods:
                    pods[each.pod.uid] = response.pods.add(
                        namespace=each.pod.namespace, pod=each.pod.name, pod_uid=each.pod.uid
                    )
                usage = pb.Usage(
                    cpu_nanoseconds=each.cpu_nanoseconds, memory_working_set_bytes=each.memory_working_set_bytes
                )
                pods[each.pod.uid].containers.add(name=each.name, usage=usage)
            return response

    def _admit(self, context: Context) -> None:
        identity = self._identify(context)
        if MASTERS not in identity.groups:
            text = f'"{identity.name or "anonymous"}" may not use the node agent: masters alone may'
            raise StatusError(403, Reason.FORBIDDEN, text)

    async def _attempts(self, ref: pb.ContainerRef) -> list[Container]:
        containers = await self._runtime.containers()
        return list(lookup.attempts(containers, ref.namespace, ref.pod, ref.pod_uid, ref.container))

    async def _running(self, ref: pb.ContainerRef) -> Container:
        found = (await self._attempts(ref))[0]
        if found.state is not ContainerState.RUNNING:
            raise RuntimeFailure(f'container "{ref.container}" of pod "{ref.pod}" is not running', reason="NotRunning")
        return found


class NodeAgentServer:
    """The gRPC server that masters call: `NodeAgent`, health and reflection at one address."""

    def __init__(self, address: str, tls: Tls, runtime: Runtime, *, clock: Clock | None = None) -> None:
        self._server = RpcServer(address, tls, [SERVICE])
        node_agent_pb2_grpc.add_NodeAgentServicer_to_server(
            NodeAgentService(runtime, clock=clock), self._server.services
        )

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            StartupError: when the address or the certificate cannot be used.
        """
        await self._server.start()
        await self._server.serving(True)

    async def stop(self, grace: float = 1.0) -> None:
        """Refuse new calls, and end the open ones after `grace` seconds."""
        await self._server.stop(grace)


def _log_options(request: pb.LogsRequest) -> LogOptions:
    return LogOptions(
        follow=request.follow,
        timestamps=request.timestamps,
        tail_lines=request.tail_lines if request.HasField("tail_lines") else None,
        since=request.since.ToDatetime(tzinfo=UTC) if request.HasField("since") else None,
        limit_bytes=request.limit_bytes if request.HasField("limit_bytes") else None,
    )


async def _first(requests: AsyncIterator[Any]) -> Any:
    """The first message, which says what is wanted."""
    async for request in requests:
        if request.WhichOneof("request") == "start":
            return request
        break
    raise errors.bad_request("the first message must be `start`")


async def _talk(
    process: ProcessStream, requests: AsyncIterator[Any], start: pb.ExecStart | pb.AttachStart
) -> AsyncIterator[pb.ExecResponse]:
    """Carry both directions until the process has ended; its exit code comes last."""
    try:
        async with _beside(_listen(process, requests)):
            async for output in process.output():
                for at in range(0, len(output.data), _LARGEST):
                    data = output.data[at : at + _LARGEST]
                    if output.stderr and start.stderr:
                        yield pb.ExecResponse(stderr=data)
                    elif start.stdout and not output.stderr:
                        yield pb.ExecResponse(stdout=data)
            yield pb.ExecResponse(exit=pb.ExecExit(code=await process.exit_code()))
    finally:
        await process.close()


async def _listen(process: ProcessStream, requests: AsyncIterator[Any]) -> None:
    async for request in requests:
        what = request.WhichOneof("request")
        if what == "stdin":
            await process.write(request.stdin)
        elif what == "close_stdin":
            await process.close_stdin()
        elif what == "resize":
            # A terminal that has not been opened yet has no size; the client sends the next one when it changes.
            with contextlib.suppress(RuntimeFailure):
                await process.resize(request.resize.width, request.resize.height)
    await process.close_stdin()


async def _send(requests: AsyncIterator[pb.PortForwardRequest], writer: asyncio.StreamWriter) -> None:
    async for request in requests:
        writer.write(request.data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _read(reader: asyncio.StreamReader, start: pb.PortForwardStart) -> bytes:
    try:
        return await reader.read(_PIECE)
    except OSError as error:
        text = f"the connection to port {start.port} in pod {start.pod} broke: {error}"
        raise errors.unavailable(text) from error


@contextlib.asynccontextmanager
async def _beside(work: Awaitable[None]) -> AsyncIterator[None]:
    """Run `work` meanwhile. A failure of it is left to the other direction, which sees the same broken connection."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a stream's input ended early: %s", error)


@contextlib.asynccontextmanager
async def _failing(context: Context) -> AsyncIterator[None]:
    """End the call with what the error means to its client."""
    try:
        yield
    except StatusError as error:
        await abort(context, error)
    except RuntimeFailure as failure:
        await _abort_runtime(context, failure)


async def _abort_runtime(context: Context, failure: RuntimeFailure) -> NoReturn:
    if failure.unavailable:
        await abort(context, errors.unavailable(str(failure)))
    if failure.gone:
        await abort(context, StatusError(404, Reason.NOT_FOUND, str(failure)))
    if failure.reason == "NotRunning":
        await abort(context, errors.bad_request(str(failure)), code_pb2.FAILED_PRECONDITION)
    await abort(context, errors.internal(str(failure)))


@contextlib.asynccontextmanager
async def _closing(iterator: AsyncIterator[Any]) -> AsyncIterator[None]:
    """Close an async generator at the end, whoever gave up: that gives its connection back at once."""
    try:
        yield
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
