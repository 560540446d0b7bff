"""Asks containers: commands, HTTP requests, connections, gRPC health checks. Also runs lifecycle hooks.

Requests go from the node to the pod's address, as a client of the pod would send them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping

import aiohttp
import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from kybern.api.types import Container as ContainerSpec
from kybern.api.types import Pod
from kybern.api.types.pods import GrpcAction, HttpGetAction, LifecycleHandler, Probe, TcpSocketAction
from node.agent.probes import Answer
from node.runtime.interface import Runtime, RuntimeFailure

# How much of an answer is shown.
_SHOWN = 1024
# A postStart hook has no time-out of its own.
_LONGEST_HOOK = 3600.0


class NetworkProber:
    """Implements `Prober`. `close` gives its connections back."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def probe(self, probe: Probe, pod: Pod, spec: ContainerSpec, container_id: str, address: str) -> Answer:
        """As `Prober.probe`."""
        timeout = float(max(1, probe.timeout_seconds))
        try:
            async with asyncio.timeout(timeout + 1.0):
                if probe.exec is not None:
                    return await self._exec(container_id, probe.exec.command, timeout)
                async with asyncio.timeout(timeout):
                    if probe.http_get is not None:
                        return await self._http(probe.http_get, spec, address)
                    if probe.tcp_socket is not None:
                        return await _tcp(probe.tcp_socket, spec, address)
                    if probe.grpc is not None:
                        return await _grpc(probe.grpc, address)
        except TimeoutError:
            return Answer(False, f"no answer within {timeout:g} s")
        return Answer(False, "the probe has no action that this node knows")

    async def hook(
        self,
        hook: LifecycleHandler,
        spec: ContainerSpec,
        container_id: str,
        address: str,
        seconds: float = _LONGEST_HOOK,
    ) -> Answer:
        """Run a lifecycle hook, for at most so many seconds. Never raises."""
        try:
            async with asyncio.timeout(seconds):
                if hook.exec is not None:
                    return await self._exec(container_id, hook.exec.command, seconds)
                if hook.http_get is not None:
                    return await self._http(hook.http_get, spec, address)
                if hook.tcp_socket is not None:
                    return await _tcp(hook.tcp_socket, spec, address)
                if hook.sleep is not None:
                    await asyncio.sleep(hook.sleep.seconds)
        except TimeoutError:
            return Answer(False, f"it took longer than {seconds:g} s")
        return Answer(True)

    async def _exec(self, container_id: str, command: tuple[str, ...], timeout: float) -> Answer:
        try:
            result = await self._runtime.exec_sync(container_id, command, timeout)
        except RuntimeFailure as failure:
            return Answer(False, str(failure))
        output = result.output[:_SHOWN].decode(errors="replace")
        return Answer(result.exit_code == 0, output)

    async def _http(self, action: HttpGetAction, spec: ContainerSpec, address: str) -> Answer:
        port = port_of(action.port, spec)
        if port is None:
            return Answer(False, f"there is no port {action.port!r}")
        host = action.host or address
        shown = f"[{host}]" if ":" in host else host
        path = action.path if action.path.startswith("/") else f"/{action.path}"
        url = f"{action.scheme.lower()}://{shown}:{port}{path}"
        try:
            session = self._open()
            async with session.get(url, headers=_headers(action), allow_redirects=False) as response:
                body = (await response.content.read(_SHOWN)).decode(errors="replace")
                ok = 200 <= response.status < 400
                return Answer(ok, body if ok else f"HTTP probe failed with statuscode: {response.status}")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(False, f'Get "{url}": {error}')

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            unverified = ssl.create_default_context()
            unverified.check_hostname = False
            # As the kubelet does: a probe asks whether it answers, not who it is.
            unverified.verify_mode = ssl.CERT_NONE
            connector = aiohttp.TCPConnector(ssl=unverified, force_close=True, limit=0)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False, trust_env=False)
        return self._session


def port_of(port: int | str, spec: ContainerSpec) -> int | None:
    """The number of a port that is given by number or by name."""
    if isinstance(port, int):
        return port
    if port.isdecimal():
        return int(port)
    return next((p.container_port for p in spec.ports if p.name == port), None)


def _headers(action: HttpGetAction) -> Mapping[str, str]:
    headers = {"User-Agent": "kube-probe/kybern", "Accept": "*/*"}
    return headers | {h.name: h.value for h in action.http_headers}


async def _tcp(action: TcpSocketAction, spec: ContainerSpec, address: str) -> Answer:
    port = port_of(action.port, spec)
    if port is None:
        return Answer(False, f"there is no port {action.port!r}")
    try:
        _, writer = await asyncio.open_connection(action.host or address, port)
    except OSError as error:
        return Answer(False, f"dial tcp {action.host or address}:{port}: {error.strerror or error}")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return Answer(True)


async def _grpc(action: GrpcAction, address: str) -> Answer:
    target = f"[{address}]:{action.port}" if ":" in address else f"{address}:{action.port}"
    async with grpc.aio.insecure_channel(target) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(service=action.service))
        except grpc.aio.AioRpcError as error:
            return Answer(False, f"{error.code().name}: {error.details()}")
    ok = answer.status == health_pb2.HealthCheckResponse.SERVING
    return Answer(ok, "" if ok else f"service unhealthy (responded with {answer.status})")
