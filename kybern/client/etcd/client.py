"""`StoreClient` over gRPC: etcd v3, and the pipe where the store has one.

Writes go through the pipe, which can send them again without a second effect. On a real etcd they are unary calls, and
one whose outcome is unknown is `StoreUnavailable`. Reads, leases and watches are etcd's own calls on both.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from kybern.backoff import Backoff
from kybern.client.etcd.endpoints import Endpoint, EndpointFailed, Endpoints
from kybern.client.etcd.errors import (
    COMPACTED_TEXT,
    LEASE_EXISTS_TEXT,
    REQUIRE_LEADER,
    details,
    elsewhere,
    surely_not_done,
    to_caller,
)
from kybern.client.etcd.messages import range_result, swap_of, swap_result, txn_request, txn_result
from kybern.client.etcd.pipe import PipeClient, PipeUnsupported
from kybern.client.etcd.watching import Watching
from kybern.client.store import (
    Compacted,
    Compare,
    Operation,
    RangeResult,
    StoreRefused,
    StoreUnavailable,
    TxnResult,
    WatchBatch,
)
from kybern.config.models import Tls
from kybern.pb.etcd import cluster_pb2, kv_pb2, lease_pb2

A = TypeVar("A")
R = TypeVar("R", bound=Message)

_REVISION = kv_pb2.RangeRequest(key=b"\0", count_only=True)


class EtcdClient:
    """Implements `StoreClient` on the members at `endpoints` (`host:port`).

    `timeout` is how many seconds a call may look for a member that answers; it should outlast a change of leader.
    `watch_patience` is the same for a watch that has lost its member.

    Raises:
        StartupError: when a file of `tls` cannot be read.
    """

    def __init__(
        self, endpoints: Sequence[str], tls: Tls, *, timeout: float = 10.0, watch_patience: float = 30.0
    ) -> None:
        self._endpoints = Endpoints(endpoints, tls)
        self._timeout = timeout
        self._watch_patience = watch_patience
        self._pipe = PipeClient(self._endpoints)
        self._watches: set[Watching] = set()
        self._asking: asyncio.Task[int] | None = None
        self._next_asking: asyncio.Task[int] | None = None

    # --- keys

    async def revision(self) -> int:
        """As `StoreClient.revision`."""
        # A question that is already on its way may have been answered before this call: only the next one will do.
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_revision())
            self._asking.add_done_callback(_retrieve)
            return await asyncio.shield(self._asking)
        if self._next_asking is None or self._next_asking.done():
            self._next_asking = asyncio.create_task(self._ask_after(self._asking))
            self._next_asking.add_done_callback(_retrieve)
        return await asyncio.shield(self._next_asking)

    async def range(self, start: bytes, end: bytes | None = None, *, limit: int = 0, revision: int = 0) -> RangeResult:
        """As `StoreClient.range`."""
        request = kv_pb2.RangeRequest(key=start, range_end=end or b"", limit=limit, revision=revision)
        try:
            # Long answers would hold up the pipe's others.
            response = await (self._read(request) if end is None else self._unary_range(request))
        except StoreRefused as refused:
            if COMPACTED_TEXT in str(refused):
                # etcd does not say up to where; it is beyond what was asked for.
                raise Compacted(revision + 1) from refused
            raise
        return range_result(response)

    async def txn(
        self, compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> TxnResult:
        """As `StoreClient.txn`."""
        swap = swap_of(compares, then, otherwise)
        try:
            if swap is not None:
                return swap_result(await self._pipe.swap(swap, self._timeout), swap)
            return txn_result(await self._pipe.txn(txn_request(compares, then, otherwise), self._timeout))
        except PipeUnsupported:
            request = txn_request(compares, then, otherwise)
            response = await self._unary("/etcdserverpb.KV/Txn", request, kv_pb2.TxnResponse, repeatable=False)
            return txn_result(response)

    # --- watches

    async def watch(self, start: bytes, end: bytes, *, since: int) -> AsyncGenerator[WatchBatch, None]:
        """As `StoreClient.watch`; goes on with another member when one fails."""
        loop = asyncio.get_running_loop()
        watching = Watching(self._endpoints, start, end, since, self._watch_patience, loop.time)
        self._watches.add(watching)
        try:
            async with aclosing(watching.batches()) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self._watches.discard(watching)

    async def request_progress(self) -> None:
        """As `StoreClient.request_progress`."""
        for watching in self._watches:
            watching.request_progress()

    # --- leases

    async def lease_grant(self, ttl: int) -> int:
        """As `StoreClient.lease_grant`."""
        # A number of our own, so that a second attempt finds the first one's lease.
        request = lease_pb2.LeaseGrantRequest(TTL=ttl, ID=secrets.randbits(62) | 1)
        try:
            await self._unary("/etcdserverpb.Lease/LeaseGrant", request, lease_pb2.LeaseGrantResponse)
        except StoreRefused as refused:
            if LEASE_EXISTS_TEXT not in str(refused):
                raise
        return request.ID

    async def lease_keep_alive(self, lease: int) -> bool:
        """As `StoreClient.lease_keep_alive`."""

        async def renew(endpoint: Endpoint) -> bool:
            call = endpoint.channel.stream_stream(
                "/etcdserverpb.Lease/LeaseKeepAlive",
                request_serializer=lease_pb2.LeaseKeepAliveRequest.SerializeToString,
                response_deserializer=lease_pb2.LeaseKeepAliveResponse.FromString,
            )(metadata=REQUIRE_LEADER)
            try:
                await call.write(lease_pb2.LeaseKeepAliveRequest(ID=lease))
                async for response in call:
                    return bool(response.TTL > 0)
                raise EndpointFailed(endpoint.address, "it has ended the stream")
            except asyncio.InvalidStateError:
                # gRPC's word for a stream that had ended before anything was written to it.
                raise EndpointFailed(endpoint.address, "it has ended the stream") from None
            finally:
                call.cancel()

        return await self._attempts(renew, repeatable=True)

    async def lease_revoke(self, lease: int) -> None:
        """As `StoreClient.lease_revoke`."""
        request = lease_pb2.LeaseRevokeRequest(ID=lease)
        try:
            await self._unary("/etcdserverpb.Lease/LeaseRevoke", request, lease_pb2.LeaseRevokeResponse)
        except StoreRefused as refused:
            if "lease not found" not in str(refused):
                raise

    async def learn_members(self) -> None:
        """Ask a member who the others are, and go on with those too when the ones that were given fail.

        Raises:
            StoreUnavailable: when none answers.
            StoreRefused: when it does not tell.
        """
        request = cluster_pb2.MemberListRequest()
        answer = await self._unary("/etcdserverpb.Cluster/MemberList", request, cluster_pb2.MemberListResponse)
        voting = [member for member in answer.members if not member.isLearner]
        urls = [url for member in voting for url in member.clientURLs if url.startswith("https://")]
        self._endpoints.learn([url.removeprefix("https://") for url in urls])

    async def close(self) -> None:
        """Close the connections; open watches fail."""
        for task in (self._asking, self._next_asking):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._pipe.close()
        await self._endpoints.close()

    # --- within

    async def _ask_revision(self) -> int:
        return (await self._read(_REVISION)).header.revision

    async def _ask_after(self, earlier: asyncio.Task[int]) -> int:
        await asyncio.wait((earlier,))
        # Whoever comes from here on must ask again.
        self._asking, self._next_asking = self._next_asking, None
        return await self._ask_revision()

    async def _read(self, request: kv_pb2.RangeRequest) -> kv_pb2.RangeResponse:
        try:
            return await self._pipe.range(request, self._timeout)
        except PipeUnsupported:
            return await self._unary_range(request)

    async def _unary_range(self, request: kv_pb2.RangeRequest) -> kv_pb2.RangeResponse:
        return await self._unary("/etcdserverpb.KV/Range", request, kv_pb2.RangeResponse)

    async def _unary(self, method: str, request: Message, response: type[R], *, repeatable: bool = True) -> R:
        async def call(endpoint: Endpoint) -> R:
            multicallable: grpc.aio.UnaryUnaryMultiCallable[Any, R] = endpoint.channel.unary_unary(
                method,
                request_serializer=_encode,
                response_deserializer=response.FromString,
            )
            return await multicallable(request, metadata=REQUIRE_LEADER, timeout=self._timeout)

        return await self._attempts(call, repeatable=repeatable)

    async def _attempts(self, call: Callable[[Endpoint], Coroutine[Any, Any, A]], *, repeatable: bool) -> A:
        """Make a call, elsewhere again when a member fails; one that is not `repeatable` only if nothing was sent."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        backoff = Backoff(base=0.05, cap=0.5)
        while True:
            endpoint = self._endpoints.current
            try:
                await endpoint.connect()
                return await endpoint.run(call(endpoint))
            except EndpointFailed as error:
                trouble, sent = str(error), error.sent
            except grpc.aio.AioRpcError as error:
                if not elsewhere(error.code()):
                    raise to_caller(error.code(), details(error)) from error
                trouble, sent = f"{endpoint.address}: {details(error)}", not surely_not_done(details(error))
            self._endpoints.next(endpoint)
            if sent and not repeatable:
                raise StoreUnavailable(f"the outcome is not known: {trouble}")
            if loop.time() >= deadline:
                raise StoreUnavailable(f"no answer within {self._timeout:g} s: {trouble}")
            await asyncio.sleep(backoff.next())


def _encode(message: Message) -> bytes:
    return message.SerializeToString()


def _retrieve(task: asyncio.Task[int]) -> None:
    """Take a task's exception even when all who asked have gone."""
    if not task.cancelled():
        task.exception()
