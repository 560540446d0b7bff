"""What all services of a member share: the log, the state, the answer's head, and how errors reach clients."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from kybern.pb.etcd import kv_pb2
from kybern.pb.v1 import store_pipe_pb2
from kybern.pki import GROUP_MASTERS, Identity
from kybern.rpc.credentials import peer_identity
from store.mvcc.errors import NO_LEADER, TIMED_OUT, TOO_LARGE, StoreError
from store.mvcc.machine import StoreMachine
from store.mvcc.outcomes import Outcome
from store.raft.interface import NoLeader, Raft, RaftUnavailable
from store.server.quota import Quota
from store.server.turns import Turns

# What clients take the server for: the API of etcd 3.5, without its authentication (certificates do that here).
API_VERSION = "3.5.0"
# etcd's limit on one request, in bytes.
MAX_REQUEST = 1536 * 1024
GROUP_STORE = "kybern:store"
_UNREADABLE = (grpc.StatusCode.INVALID_ARGUMENT, "kybern-store: the request is not a message of its type")
# As with etcd.
DEFAULT_QUOTA = 2 * 1024**3

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T", bound=Outcome)
Q = TypeVar("Q", bound=Message)
S = TypeVar("S", bound=Message | bytes)


class Refused(Exception):  # noqa: N818 - the answer to a call, not a mistake of ours
    """Ends a call with an error."""

    def __init__(self, error: StoreError) -> None:
        super().__init__(error.message)
        self.error = error


class Core:
    """One member's log and state."""

    def __init__(
        self, raft: Raft, machine: StoreMachine, cluster_name: str, *, quota_bytes: int = DEFAULT_QUOTA
    ) -> None:
        self.raft = raft
        self.machine = machine
        self.cluster_id = number_of(cluster_name)
        self.quota = Quota(raft, machine, quota_bytes)
        self.turns = Turns()

    def header(self, revision: int | None = None) -> kv_pb2.ResponseHeader:
        """The head of an answer that was made at `revision` (None: now)."""
        return kv_pb2.ResponseHeader(
            cluster_id=self.cluster_id,
            member_id=self.raft.member_id,
            revision=self.machine.keys.revision if revision is None else revision,
            raft_term=self.raft.term,
        )

    async def propose(self, command: store_pipe_pb2.StoreCommand, expect: type[T]) -> T:
        """Commit a command and return its outcome.

        Raises:
            Refused: when the command is too large, or its outcome is an error.
            RaftUnavailable: when it could not be committed, as far as this member knows.
        """
        return await self.propose_encoded(command.SerializeToString(), expect)

    async def propose_encoded(self, encoded: bytes, expect: type[T]) -> T:
        """`propose` of a command's bytes."""
        if len(encoded) > MAX_REQUEST + 64:
            raise Refused(TOO_LARGE)
        await self.quota.check(encoded)
        outcome = await self.raft.propose(encoded)
        if isinstance(outcome, StoreError):
            raise Refused(outcome)
        return cast(T, outcome)


def number_of(name: str) -> int:
    """A number from a name: the same everywhere, and never 0."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") | 1


def unavailable(error: RaftUnavailable) -> StoreError:
    """What a client is told when Raft did not answer.

    "No leader" is a promise, in etcd too: the call had no effect, and clients ask another member the same. That this
    member knows no leader when a call fails says nothing of whether one had taken it before.
    """
    return NO_LEADER if isinstance(error, NoLeader) else TIMED_OUT


def require(error: StoreError | None) -> None:
    """Refuse a call when something is wrong with it.

    Raises:
        Refused: when there is an error.
    """
    if error is not None:
        raise Refused(error)


def admitted(identity: Identity) -> bool:
    """Whether the store serves the bearer of a certificate: members and masters alone."""
    return GROUP_MASTERS in identity.groups or GROUP_STORE in identity.groups


async def admit(context: Context) -> None:
    """End a call whose certificate is neither a member's nor a master's."""
    identity = peer_identity(context)
    if not admitted(identity):
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED,
            f"kybern-store: the certificate of {identity.name!r} is neither a store member's nor a master's (O=)",
        )


class Answers:
    """Writes to one client, one message at a time.

    Who writes must not be cancelled in the middle of a message: gRPC then takes it for never begun, and fails to end
    the call with a status, so that the client waits for ever. `end` sees to that.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = asyncio.Lock()

    async def write(self, message: bytes) -> None:
        """Write a message after those that were begun before."""
        async with self._lock:
            await self._context.write(message)

    async def end(self, tasks: Iterable[asyncio.Future[None]]) -> None:
        """Cancel who writes here when no message is half written, and wait until they have ended.

        Cancelled itself, as gRPC does when the client is gone, it cancels them at once.
        """
        writers = tuple(tasks)
        try:
            async with self._lock:
                _cancel(writers)
        finally:
            _cancel(writers)
            await asyncio.gather(*writers, return_exceptions=True)


def _cancel(tasks: Iterable[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()


class Guard:
    """Makes method handlers that admit members and masters alone, and turn our exceptions into statuses."""

    def unary(self, behaviour: Callable[[Q, Context], Awaitable[Message | bytes]], request: type[Q]) -> Any:
        """A handler of one request and one answer, which may be encoded already."""

        async def call(message: Q | None, context: Context) -> Message | bytes:
            await admit(context)
            if message is None:
                await context.abort(*_UNREADABLE)
            try:
                return await behaviour(message, context)
            except (Refused, RaftUnavailable) as error:
                await _abort(context, error)

        return grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=_decoder(request), response_serializer=_encode
        )

    def answers(self, behaviour: Callable[[Q, Context], AsyncIterator[Message]], request: type[Q]) -> Any:
        """A handler of one request and a stream of answers."""

        async def call(message: Q | None, context: Context) -> AsyncIterator[Message]:
            await admit(context)
            if message is None:
                await context.abort(*_UNREADABLE)
            try:
                async for answer in behaviour(message, context):
                    yield answer
            except (Refused, RaftUnavailable) as error:
                await _abort(context, error)

        return grpc.unary_stream_rpc_method_handler(
            call, request_deserializer=_decoder(request), response_serializer=_encode
        )

    def stream(self, behaviour: Callable[[AsyncIterable[S], Context], Awaitable[None]], request: type[S]) -> Any:
        """A handler of two streams that writes its answers, as bytes, to the context; takes messages or bytes."""

        async def call(messages: AsyncIterable[S], context: Context) -> None:
            await admit(context)
            try:
                await behaviour(messages, context)
            except (Refused, RaftUnavailable) as error:
                await _abort(context, error)
            except DecodeError:
                await context.abort(*_UNREADABLE)

        return grpc.stream_stream_rpc_method_handler(
            call, request_deserializer=request.FromString if issubclass(request, Message) else None
        )


async def _abort(context: Context, error: Refused | RaftUnavailable) -> NoReturn:
    answer = error.error if isinstance(error, Refused) else unavailable(error)
    await context.abort(grpc.StatusCode[answer.code], answer.message)


def handlers(service: str, methods: Mapping[str, Any]) -> grpc.GenericRpcHandler:
    """The methods of one service, for adding to a server."""
    return grpc.method_handlers_generic_handler(service, dict(methods))


def _decoder(kind: type[Q]) -> Callable[[bytes], Q | None]:
    """Reads a request; None when that fails: gRPC takes an exception here for a mistake of ours and logs it whole."""

    def decode(data: bytes) -> Q | None:
        try:
            return kind.FromString(data)
        except DecodeError:
            return None

    return decode


def _encode(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()
