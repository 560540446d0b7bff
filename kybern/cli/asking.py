"""Short questions to daemons: are you well, who leads, which nodes are there."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import grpc
import grpc.aio
import msgspec
from grpc_health.v1 import health_pb2

from kybern.config.models import Tls
from kybern.pb.etcd import maintenance_pb2, maintenance_pb2_grpc
from kybern.pb.v1 import objects_pb2, objects_pb2_grpc
from kybern.rpc.credentials import open_channel

T = TypeVar("T")
# The package's stub has no types.
Check = grpc.aio.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]

# How long a daemon may take to answer, in seconds.
PATIENCE = 3.0
CONTROLLERS_LEASE = ("kube-system", "kybern-controllers")
# What gRPC says of connections, and what that means.
_ANOTHER_PORT = "what listens there does not speak gRPC: is it another port?"
_MEANINGS = {
    "Connection refused": "connection refused: the daemon does not run",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is expired or of another cluster",
    "Hostname Verification": "its certificate is not for this address",
    "missing selected ALPN": _ANOTHER_PORT,
    "WRONG_VERSION_NUMBER": _ANOTHER_PORT,
    "Socket closed": "it ended the connection: it stopped, or does not take the certificate that it is shown",
    "Handshake read failed": "it does not answer: it hangs, or something else listens there",
    "errors resolving": "there is no host of this name",
    "No route to host": "no route to host",
    "Network is unreachable": "the network is unreachable",
}
_ALARM = re.compile(r"memberID:(\d+) alarm:(\w+)")
_LEASES = objects_pb2.Resource(group="coordination.k8s.io", version="v1", resource="leases")
_NODES = objects_pb2.Resource(version="v1", resource="nodes")


@dataclass(frozen=True, slots=True)
class Health:
    """What a daemon says about itself. `problem` is empty when it serves."""

    state: str
    problem: str = ""

    @property
    def serves(self) -> bool:
        """Whether all is well."""
        return self.state == "Serving"


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """A member's view of its group. Ids are the store's; `alarms` are names of those that are on."""

    member: int
    leader: int
    term: int
    revision: int
    alarms: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node as the API knows it."""

    name: str
    address: str
    ready: bool


class _Address(msgspec.Struct):
    type: str
    address: str


class _Condition(msgspec.Struct):
    type: str
    status: str


class _Endpoint(msgspec.Struct):
    port: int = msgspec.field(name="Port", default=10250)


class _Endpoints(msgspec.Struct, rename="camel"):
    kubelet_endpoint: _Endpoint = msgspec.field(default_factory=_Endpoint)


class _NodeStatus(msgspec.Struct, rename="camel"):
    addresses: list[_Address] = msgspec.field(default_factory=list)
    conditions: list[_Condition] = msgspec.field(default_factory=list)
    daemon_endpoints: _Endpoints = msgspec.field(default_factory=_Endpoints)


class _Meta(msgspec.Struct):
    name: str


class _Node(msgspec.Struct):
    metadata: _Meta
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)


class _LeaseSpec(msgspec.Struct, rename="camel"):
    holder_identity: str = ""


class _Lease(msgspec.Struct):
    spec: _LeaseSpec = msgspec.field(default_factory=_LeaseSpec)


def channel(address: str, tls: Tls) -> grpc.aio.Channel:
    """A channel for a question or two: whoever needs long to connect has all of `PATIENCE` for it.

    gRPC takes the least time between two attempts for the most that one may take, and a daemon's own channels try again
    soon: a busy daemon, or one that is far away, would be called down.

    Raises:
        StartupError: when a file of `tls` cannot be read.
    """
    return open_channel(address, tls, [("grpc.min_reconnect_backoff_ms", int(PATIENCE * 1000))])


async def health(address: str, tls: Tls) -> Health:
    """What a daemon's health service says."""
    async with channel(address, tls) as connection:
        check: Check = connection.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            return Health("Down", reason(error))
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return Health("Serving")
    return Health("NotServing", "it runs, but says that it does not serve")


async def store_status(address: str, tls: Tls) -> StoreStatus | None:
    """What a store member knows of its group; None when it does not answer."""
    async with channel(address, tls) as connection:
        stub = maintenance_pb2_grpc.MaintenanceStub(connection)
        try:
            answer = await stub.Status(maintenance_pb2.StatusRequest(), timeout=PATIENCE)
        except grpc.aio.AioRpcError:
            return None
    alarms = frozenset(found[2] for found in map(alarm, answer.errors) if found)
    return StoreStatus(answer.header.member_id, answer.leader, answer.raftTerm, answer.header.revision, alarms)


def alarm(problem: str) -> re.Match[str] | None:
    """An alarm among the errors of a member's status, as etcd words it: the member's number (decimal), and its name."""
    return _ALARM.match(problem)


def store_leader(found: Mapping[str, StoreStatus | None]) -> str | None:
    """The member that leads, by the answers of all. Of several that say they do, the one of the latest term."""
    leading = [(s.term, name) for name, s in found.items() if s is not None and s.member == s.leader]
    return max(leading)[1] if leading else None


async def lease_holder(addresses: Iterable[str], tls: Tls) -> str:
    """Who holds the controllers' Lease, as the first master says that answers; empty when none does or nobody holds it.

    `addresses` are those of the gRPC APIs.
    """
    namespace, name = CONTROLLERS_LEASE
    request = objects_pb2.GetRequest(
        resource=_LEASES, namespace=namespace, name=name, encoding=objects_pb2.ENCODING_JSON
    )

    async def ask(address: str) -> str:
        async with channel(address, tls) as connection:
            answer = await objects_pb2_grpc.ObjectsStub(connection).Get(request, timeout=PATIENCE)
        return msgspec.json.decode(answer.json, type=_Lease).spec.holder_identity

    return await _first(ask, addresses) or ""


async def nodes(addresses: Iterable[str], tls: Tls) -> list[NodeInfo] | None:
    """All nodes, as the first master says that answers; None when none does."""
    request = objects_pb2.ListRequest(resource=_NODES, encoding=objects_pb2.ENCODING_JSON)

    async def ask(address: str) -> list[NodeInfo]:
        async with channel(address, tls) as connection:
            pages = objects_pb2_grpc.ObjectsStub(connection).List(request, timeout=PATIENCE)
            return [_node(item.json) async for page in pages for item in page.items]

    return await _first(ask, addresses)


def holder_name(identity: str, names: Collection[str]) -> str | None:
    """The host that a Lease's holder is on: identities begin with the host's name."""
    fitting = [n for n in names if identity == n or identity.startswith((f"{n}_", f"{n}-", f"{n}/", f"{n}."))]
    return max(fitting, key=len, default=None)


async def _first(ask: Callable[[str], Awaitable[T]], addresses: Iterable[str]) -> T | None:
    """The first answer; the questions are put to all at once, so that one that is down costs no time."""
    tasks = [asyncio.ensure_future(ask(a)) for a in addresses]
    try:
        for next_one in asyncio.as_completed(tasks):
            with contextlib.suppress(grpc.aio.AioRpcError, msgspec.MsgspecError):
                return await next_one
        return None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _node(document: bytes) -> NodeInfo:
    node = msgspec.json.decode(document, type=_Node)
    address = next((a.address for a in node.status.addresses if a.type == "InternalIP"), "")
    ready = any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)
    port = node.status.daemon_endpoints.kubelet_endpoint.port
    return NodeInfo(node.metadata.name, f"{address}:{port}" if address else "", ready)


def reason(error: grpc.aio.AioRpcError) -> str:
    """Why a call failed, in words for people; what the daemon itself says is left as it is."""
    text = " ".join((error.details() or "").split())
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer in time"
    for sign, meaning in _MEANINGS.items():
        if sign in text:
            return meaning
    return text[:300] or error.code().name
