"""kybern.v1.StorePipe from the client's side: calls are sent together, and again elsewhere when a member fails.

Every call has a number under which the store remembers a transaction's outcome, so sending it again is harmless. Calls
that wait stay in one table; a connection sends what is in it, and the next connection sends it again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from kybern.backoff import Backoff
from kybern.client.etcd.endpoints import Endpoint, EndpointFailed, Endpoints
from kybern.client.etcd.errors import REQUIRE_LEADER, code_of, details, elsewhere, to_caller
from kybern.client.store import StoreUnavailable
from kybern.pb.etcd import kv_pb2
from kybern.pb.v1 import store_pipe_pb2 as pb

# What one message carries at most, in calls and in bytes. A call may be larger than that by itself.
_BATCH = 256
_BATCH_BYTES = 512 * 1024
# Calls that may wait at once, fewer than the outcomes that the store remembers per client.
_IN_FLIGHT = 2048


class PipeUnsupported(Exception):  # noqa: N818
    """The store is a real etcd, which has no pipe."""


@dataclass(slots=True, eq=False)
class _Call:
    id: int
    # A PipeRequest with this call alone: joined to others it makes a larger request.
    encoded: bytes
    future: asyncio.Future[pb.PipeReply]
    # Why the call has no answer yet, for the caller whose patience ends.
    trouble: str = "no member of the store answers"


class PipeClient:
    """Sends calls over one pipe at a time to the current member."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._client = secrets.randbits(63) | 1
        self._next_id = 1
        self._waiting: dict[int, _Call] = {}
        self._unsent: deque[_Call] = deque()
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(_IN_FLIGHT)
        self._runner: asyncio.Task[None] | None = None
        self.unsupported = False

    async def txn(self, request: kv_pb2.TxnRequest, timeout: float) -> kv_pb2.TxnResponse:
        """Do a transaction, once.

        Raises:
            PipeUnsupported: nothing was done; use unary calls.
            StoreUnavailable: no answer within `timeout` seconds.
            StoreRefused: the store will not do it.
        """
        return (await self._call(pb.PipeCall(txn=request), timeout)).txn

    async def swap(self, request: pb.Swap, timeout: float) -> pb.SwapReply:
        """Set a key if it is as it was, once; raises as `txn` does."""
        return (await self._call(pb.PipeCall(swap=request), timeout)).swap

    async def range(self, request: kv_pb2.RangeRequest, timeout: float) -> kv_pb2.RangeResponse:
        """Read keys; raises as `txn` does."""
        return (await self._call(pb.PipeCall(range=request), timeout)).range

    async def close(self) -> None:
        """End the pipe; calls that wait fail."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)
        self._fail_all(StoreUnavailable("the client is closed"))

    # --- calls

    async def _call(self, message: pb.PipeCall, timeout: float) -> pb.PipeReply:
        if self.unsupported:
            raise PipeUnsupported
        async with self._slots:
            message.id = self._next_id
            self._next_id += 1
            encoded = pb.PipeRequest(calls=(message,)).SerializeToString()
            call = _Call(message.id, encoded, asyncio.get_running_loop().create_future())
            self._waiting[call.id] = call
            self._unsent.append(call)
            self._wake.set()
            if self._runner is None or self._runner.done():
                self._runner = asyncio.create_task(self._run())
            try:
                async with asyncio.timeout(timeout):
                    reply = await call.future
            except TimeoutError:
                raise StoreUnavailable(f"no answer within {timeout:g} s: {call.trouble}") from None
            finally:
                self._waiting.pop(call.id, None)
        if reply.HasField("error"):
            raise to_caller(code_of(reply.error.code), reply.error.message)
        return reply

    def _answered(self, reply: pb.PipeReply) -> None:
        call = self._waiting.get(reply.id)
        if call is not None and not call.future.done():
            call.future.set_result(reply)

    def _fail_all(self, error: Exception) -> None:
        for call in self._waiting.values():
            if not call.future.done():
                call.future.set_exception(error)

    # --- connections

    async def _run(self) -> None:
        """Keep a pipe to the current member for as long as there are calls; move on when it fails."""
        backoff = Backoff(base=0.05, cap=0.5)
        while True:
            await self._wake.wait()
            endpoint = self._endpoints.current
            try:
                await self._connection(endpoint, backoff)
            except EndpointFailed as error:
                self._trouble(str(error))
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    self.unsupported = True
                    self._fail_all(PipeUnsupported())
                    return
                if not elsewhere(error.code()):
                    self._fail_all(to_caller(error.code(), details(error)))
                self._trouble(f"{endpoint.address}: {details(error)}")
            self._endpoints.next(endpoint)
            # All that waits is sent again, in the order in which it was called.
            self._unsent = deque(sorted(self._waiting.values(), key=lambda call: call.id))
            if self._unsent:
                self._wake.set()
            else:
                self._wake.clear()
            await asyncio.sleep(backoff.next())

    def _trouble(self, text: str) -> None:
        for call in self._waiting.values():
            call.trouble = text

    async def _connection(self, endpoint: Endpoint, backoff: Backoff) -> None:
        await endpoint.connect()
        open_pipe: grpc.aio.StreamStreamMultiCallable[bytes, pb.PipeResponse] = endpoint.channel.stream_stream(
            "/kybern.v1.StorePipe/Pipe", response_deserializer=pb.PipeResponse.FromString
        )
        stream = open_pipe(metadata=REQUIRE_LEADER)
        tasks = [asyncio.ensure_future(self._send(stream)), asyncio.ensure_future(self._receive(stream, backoff))]
        try:
            await endpoint.run(_first(tasks))
        finally:
            for task in tasks:
                task.cancel()
            stream.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, stream: Any) -> None:
        while True:
            await self._wake.wait()
            parts: list[bytes] = []
            size = 0
            while self._unsent and len(parts) < _BATCH and size < _BATCH_BYTES:
                call = self._unsent[0]
                if call.future.done():
                    self._unsent.popleft()
                    continue
                if parts and size + len(call.encoded) > _BATCH_BYTES:
                    break
                self._unsent.popleft()
                parts.append(call.encoded)
                size += len(call.encoded)
            if not parts:
                self._wake.clear()
                continue
            # Numbers below those that wait are never sent again.
            head = pb.PipeRequest(client=self._client, answered_below=min(self._waiting, default=self._next_id))
            try:
                await stream.write(head.SerializeToString() + b"".join(parts))
            except asyncio.InvalidStateError:
                # gRPC's word for a stream that has ended; `_receive` learns with what, and everything is sent again.
                await asyncio.Event().wait()

    async def _receive(self, stream: Any, backoff: Backoff) -> None:
        async for response in stream:
            for run in response.swaps:
                for revision, number in enumerate(run.ids, run.revision):
                    self._answered(pb.PipeReply(id=number, swap=pb.SwapReply(revision=revision, succeeded=True)))
            for reply in response.replies:
                if reply.HasField("error") and elsewhere(code_of(reply.error.code)) and reply.id in self._waiting:
                    raise EndpointFailed("the store", reply.error.message)
                self._answered(reply)
            backoff.reset()
        code = await stream.code()
        raise (
            EndpointFailed("the store", f"the pipe was closed ({code.name})")
            if code is grpc.StatusCode.OK
            else (grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), await stream.details()))
        )


async def _first(tasks: Sequence[asyncio.Future[None]]) -> None:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
