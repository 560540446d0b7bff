"""One of the two stores: calls with their outcomes, and streams of watches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from kybern.pb.etcd import kv_pb2, lease_pb2, maintenance_pb2, mvcc_pb2, watch_pb2
from kybern.rpc.credentials import channel_credentials
from tests.integration.store.differential.steps import LEASES
from tests.integration.store.serving import Endpoint

_METHODS: dict[type[Message], tuple[str, type[Message]]] = {
    kv_pb2.RangeRequest: ("KV/Range", kv_pb2.RangeResponse),
    kv_pb2.PutRequest: ("KV/Put", kv_pb2.PutResponse),
    kv_pb2.DeleteRangeRequest: ("KV/DeleteRange", kv_pb2.DeleteRangeResponse),
    kv_pb2.TxnRequest: ("KV/Txn", kv_pb2.TxnResponse),
    kv_pb2.CompactionRequest: ("KV/Compact", kv_pb2.CompactionResponse),
    lease_pb2.LeaseGrantRequest: ("Lease/LeaseGrant", lease_pb2.LeaseGrantResponse),
    lease_pb2.LeaseRevokeRequest: ("Lease/LeaseRevoke", lease_pb2.LeaseRevokeResponse),
    lease_pb2.LeaseKeepAliveRequest: ("Lease/LeaseKeepAlive", lease_pb2.LeaseKeepAliveResponse),
    lease_pb2.LeaseTimeToLiveRequest: ("Lease/LeaseTimeToLive", lease_pb2.LeaseTimeToLiveResponse),
    lease_pb2.LeaseLeasesRequest: ("Lease/LeaseLeases", lease_pb2.LeaseLeasesResponse),
    maintenance_pb2.HashKVRequest: ("Maintenance/HashKV", maintenance_pb2.HashKVResponse),
    watch_pb2.WatchRequest: ("Watch/Watch", watch_pb2.WatchResponse),
}
# Seconds that no answer takes; one that does not come is a difference too.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Failed:
    """A call that was refused."""

    code: str
    message: str


Outcome = Message | Failed | None


@dataclass(slots=True, eq=False)
class Watch:
    """What a watch was told."""

    events: list[mvcc_pb2.Event] = field(default_factory=list)
    # The end of a watch whose history is compacted.
    ended: watch_pb2.WatchResponse | None = None


class Stream:
    """A stream of watches. What it is told is kept: answers to requests in order, the rest by watch."""

    def __init__(self, call: Any, patience: float) -> None:
        self._call = call
        self._patience = patience
        self._answers: deque[watch_pb2.WatchResponse] = deque()
        self._watches: dict[int, Watch] = {}
        self._news = asyncio.Condition()
        self._over = False
        self._reader = asyncio.create_task(self._read())

    async def send(self, request: watch_pb2.WatchRequest) -> None:
        await self._call.write(request)

    async def answer(self) -> watch_pb2.WatchResponse | None:
        """The next answer to a request; None when none comes."""
        return self._answers.popleft() if await self._until(lambda: bool(self._answers)) else None

    @property
    def unasked(self) -> list[str]:
        """Answers that nobody has waited for."""
        return [str(answer) for answer in self._answers]

    def watch(self, number: int) -> Watch:
        """What the watch that was made last under a number is told."""
        return self._watches[number]

    async def told(self, watch: Watch, revision: int) -> bool:
        """Wait until a watch has been told of a change at a revision; whether it was."""
        return await self._until(lambda: bool(watch.events) and watch.events[-1].kv.mod_revision >= revision)

    async def ended(self, watch: Watch) -> watch_pb2.WatchResponse | None:
        """Wait until a watch was ended by the store; None when it was not."""
        await self._until(lambda: watch.ended is not None)
        return watch.ended

    async def close(self) -> None:
        self._call.cancel()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _until(self, condition: Callable[[], bool]) -> bool:
        try:
            async with asyncio.timeout(self._patience), self._news:
                await self._news.wait_for(lambda: condition() or self._over)
        except TimeoutError:
            return False
        return condition()

    async def _read(self) -> None:
        try:
            while True:
                response = await self._call.read()
                if response is grpc.aio.EOF:
                    return
                async with self._news:
                    self._take(response)
                    self._news.notify_all()
        finally:
            async with self._news:
                self._over = True
                self._news.notify_all()

    def _take(self, response: watch_pb2.WatchResponse) -> None:
        number = response.watch_id
        watch = self._watches.get(number)
        if response.created:
            if not response.canceled:
                self._watches[number] = Watch()
            self._answers.append(response)
        elif response.compact_revision and watch is not None:
            watch.ended = response
        elif response.events and watch is not None:
            watch.events.extend(response.events)
        elif response.canceled or response.events or number == -1:
            self._answers.append(response)
        # What is left is the progress that a watch has asked for, which each store sends when it likes.


class Side:
    """A store under test."""

    def __init__(self, name: str, channel: grpc.aio.Channel) -> None:
        self.name = name
        # How long it is waited for what a stream is to be told.
        self.patience = PATIENCE
        self._channel = channel
        self._streams: dict[int, Stream] = {}

    async def call(self, request: Message) -> Outcome:
        """What a request is answered."""
        name, answer = _METHODS[type(request)]
        try:
            if isinstance(request, lease_pb2.LeaseKeepAliveRequest):
                call = self._stream(name, type(request), answer)
                await call.write(request)
                response = await call.read()
                await call.done_writing()
            else:
                unary = self._channel.unary_unary(
                    f"/etcdserverpb.{name}",
                    request_serializer=type(request).SerializeToString,
                    response_deserializer=answer.FromString,
                )
                response = await unary(request, timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            return Failed(error.code().name, error.details() or "")
        return comparable(request, response)

    def stream(self, number: int) -> Stream:
        """One of the streams of watches, opened when it is asked for."""
        if number not in self._streams:
            name, answer = _METHODS[watch_pb2.WatchRequest]
            call = self._stream(name, watch_pb2.WatchRequest, answer)
            self._streams[number] = Stream(call, self.patience)
        return self._streams[number]

    async def close_streams(self) -> list[str]:
        """End all streams; what was on them that nobody has asked for."""
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            await stream.close()
        return [text for stream in streams for text in stream.unasked]

    def _stream(self, name: str, request: type[Message], answer: type[Message]) -> Any:
        return self._channel.stream_stream(
            f"/etcdserverpb.{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=answer.FromString,
        )()


@asynccontextmanager
async def side(name: str, endpoint: Endpoint) -> AsyncIterator[Side]:
    async with grpc.aio.secure_channel(endpoint.address, channel_credentials(endpoint.tls)) as channel:
        yield Side(name, channel)


def comparable(request: Message, response: Any) -> Message:
    """The answer without what may differ: numbers of members, a lease's number that the store chose, its time."""
    revision_alone(response)
    match response:
        case lease_pb2.LeaseGrantResponse() if not getattr(request, "ID", 0):
            response.ID = 0
        case lease_pb2.LeaseTimeToLiveResponse():
            if 0 <= response.TTL <= response.grantedTTL:
                response.TTL = 0
            keys = sorted(response.keys)
            del response.keys[:]
            response.keys.extend(keys)
        case maintenance_pb2.HashKVResponse():
            # etcd has told the revision only since 3.5.
            response.hash = response.hash_revision = 0
        case lease_pb2.LeaseLeasesResponse():
            numbers = sorted({lease.ID for lease in response.leases} & set(LEASES))
            del response.leases[:]
            response.leases.extend(lease_pb2.LeaseStatus(ID=number) for number in numbers)
    assert isinstance(response, Message)
    return response


def revision_alone(response: Any) -> None:
    """Leave nothing of a head but its revision."""
    if response.HasField("header"):
        revision = response.header.revision
        response.header.Clear()
        response.header.revision = revision
