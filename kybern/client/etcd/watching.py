"""Watches that go on: a stream that fails is replaced by one that begins where it ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import grpc
import grpc.aio

from kybern.backoff import Backoff
from kybern.client.etcd.endpoints import Endpoint, EndpointFailed, Endpoints
from kybern.client.etcd.errors import REQUIRE_LEADER, details, elsewhere, to_caller
from kybern.client.etcd.messages import change
from kybern.client.store import Compacted, StoreUnavailable, WatchBatch
from kybern.pb.etcd import watch_pb2

# Seconds between the client's own requests for progress.
_PROGRESS_INTERVAL = 5.0
_Stream = grpc.aio.StreamStreamCall[watch_pb2.WatchRequest, watch_pb2.WatchResponse]


class Watching:
    """One watch. Iterate over `batches`; `request_progress` may be called meanwhile."""

    def __init__(
        self, endpoints: Endpoints, start: bytes, end: bytes, since: int, patience: float, now: Callable[[], float]
    ) -> None:
        self._endpoints = endpoints
        self._start = start
        self._end = end
        self._since = since
        self._patience = patience
        self._now = now
        self._asked = asyncio.Event()

    def request_progress(self) -> None:
        """Make the watch report its progress soon."""
        self._asked.set()

    async def batches(self) -> AsyncGenerator[WatchBatch, None]:
        """What changes, for ever.

        Raises:
            Compacted: when the revision to go on from is no longer kept.
            StoreUnavailable: when no member has served the watch for `patience` seconds.
            StoreRefused: when the store will not serve it.
        """
        backoff = Backoff(base=0.05, cap=1.0)
        served = self._now()
        while True:
            endpoint = self._endpoints.current
            try:
                async with contextlib.aclosing(self._stream(endpoint)) as batches:
                    async for batch in batches:
                        served = self._now()
                        backoff.reset()
                        if batch is not None:
                            self._since = max(self._since, batch.revision)
                            yield batch
            except EndpointFailed as error:
                trouble = str(error)
            except grpc.aio.AioRpcError as error:
                if not elsewhere(error.code()):
                    raise to_caller(error.code(), details(error)) from error
                trouble = f"{endpoint.address}: {details(error)}"
            if self._now() - served > self._patience:
                raise StoreUnavailable(f"the watch is not served: {trouble}")
            self._endpoints.next(endpoint)
            await asyncio.sleep(backoff.next())

    async def _stream(self, endpoint: Endpoint) -> AsyncGenerator[WatchBatch | None, None]:
        """One stream's batches; None when the member has accepted the watch."""
        await endpoint.connect()
        call: _Stream = endpoint.channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=_encode,
            response_deserializer=watch_pb2.WatchResponse.FromString,
        )(metadata=REQUIRE_LEADER)
        create = watch_pb2.WatchCreateRequest(
            key=self._start,
            range_end=self._end,
            start_revision=self._since + 1,
            prev_kv=True,
            progress_notify=True,
        )
        asking: asyncio.Task[None] | None = None
        try:
            async with endpoint.watched() as failed:
                stopper = asyncio.create_task(_cancel_when(failed, call))
                try:
                    # Not by itself: gRPC never wakes a writer whose stream was cancelled before it had begun.
                    await endpoint.run(call.write(watch_pb2.WatchRequest(create_request=create)))
                    asking = asyncio.create_task(self._ask_progress(call))
                    async for response in call:
                        yield self._batch(response, endpoint)
                except asyncio.CancelledError:
                    # Our own cancellation of the call, or somebody's of this task.
                    if not failed.is_set():
                        raise
                    raise EndpointFailed(endpoint.address, "it has stopped answering") from None
                except asyncio.InvalidStateError:
                    # gRPC's word for a stream that had ended before anything was written to it.
                    raise EndpointFailed(endpoint.address, "it has ended the stream") from None
                finally:
                    stopper.cancel()
            raise EndpointFailed(endpoint.address, "it has ended the watch")
        finally:
            if asking is not None:
                asking.cancel()
            call.cancel()

    def _batch(self, response: watch_pb2.WatchResponse, endpoint: Endpoint) -> WatchBatch | None:
        if response.compact_revision:
            raise Compacted(response.compact_revision)
        if response.canceled:
            raise EndpointFailed(endpoint.address, response.cancel_reason or "it has cancelled the watch")
        if response.created:
            # What has happened up to its revision is still to come.
            return None
        if response.events:
            # The head's revision may be beyond what has been sent; a revision is never sent in part.
            return WatchBatch([change(event) for event in response.events], response.events[-1].kv.mod_revision)
        return WatchBatch((), response.header.revision)

    async def _ask_progress(self, call: _Stream) -> None:
        request = watch_pb2.WatchRequest(progress_request=watch_pb2.WatchProgressRequest())
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PROGRESS_INTERVAL):
                    await self._asked.wait()
            self._asked.clear()
            try:
                await call.write(request)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                # The reader of the stream sees the same, and why.
                return


def _encode(message: watch_pb2.WatchRequest) -> bytes:
    return message.SerializeToString()


async def _cancel_when(failed: asyncio.Event, call: Any) -> None:
    await failed.wait()
    call.cancel()
