"""kybern.v1.StorePipe: transactions and reads in bulk.

The transactions of one message become one command in the log (several, when it is long), as the client wrote them; its
reads share one read barrier. Messages are worked on side by side, so that a slow one holds up no other; a client that
does not read its answers is held up itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Coroutine, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from kybern.pb.etcd import kv_pb2
from kybern.pb.v1 import store_pipe_pb2 as pb
from kybern.rpc.gone import client_is_gone
from store.mvcc.errors import EMPTY_KEY, TOO_LARGE, StoreError
from store.mvcc.outcomes import BatchOutcome, CallOutcome, PutOutcome, SwapOutcome, TxnOutcome
from store.mvcc.ranges import check_range
from store.raft.interface import RaftUnavailable
from store.server.convert import txn_response
from store.server.core import MAX_REQUEST, Answers, Context, Core, Guard, Refused, handlers, unavailable
from store.server.reading import encode, find
from store.watch.events import key_value

log = logging.getLogger(__name__)

SERVICE = "kybern.v1.StorePipe"

# One command in the log: transactions and bytes.
_BATCH = 256
_BATCH_BYTES = 512 * 1024
# What precedes the message in a StoreCommand of its `calls`: field and wire type.
_COMMAND_TAG = bytes([pb.StoreCommand.CALLS_FIELD_NUMBER << 3 | 2])
# What precedes an encoded answer to a read, and an encoded reply.
_RANGE_TAG = bytes([pb.PipeReply.RANGE_FIELD_NUMBER << 3 | 2])
_REPLY_TAG = bytes([pb.PipeResponse.REPLIES_FIELD_NUMBER << 3 | 2])
# Messages of one stream that are worked on at once.
_AT_ONCE = 64


def pipe_handlers(core: Core, guard: Guard) -> Any:
    """The service, for adding to a server."""
    return handlers(SERVICE, {"Pipe": guard.stream(PipeService(core).pipe, bytes)})


class PipeService:
    """Serves any number of pipes."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._replies = _ReplyEncoder()

    async def pipe(self, requests: AsyncIterable[bytes], context: Context) -> None:
        """Serve one stream until the client closes it; what was asked for until then is answered."""
        pipe = _Pipe(self, context)
        try:
            async for raw in requests:
                request = _decode(raw)
                if request.client == 0:
                    raise Refused(StoreError("INVALID_ARGUMENT", "kybern-store: a pipe's client number is not 0"))
                await pipe.serve(self.work(raw, request))
            await pipe.finish()
        finally:
            await pipe.cancel()

    def work(self, raw: bytes, request: pb.PipeRequest) -> list[Coroutine[Any, Any, bytes]]:
        """What a message asks for, in the order in which it is to be begun; each comes to encoded answers."""
        calls = request.calls
        if calls and len(calls) <= _BATCH and len(raw) <= _BATCH_BYTES and all(map(_writes, calls)):
            # The usual case: the message itself is the command.
            return [self._write(raw, calls)]
        work: list[Coroutine[Any, Any, bytes]] = []
        refused: list[pb.PipeReply] = []
        reads: list[pb.PipeCall] = []
        batch: list[pb.PipeCall] = []
        size = 0
        for call in calls:
            kind = call.WhichOneof("call")
            length = call.ByteSize()
            error = _check(call, kind, length)
            if error is not None:
                refused.append(_error(call.id, error))
            elif kind == "range":
                reads.append(call)
            else:
                if batch and (len(batch) >= _BATCH or size + length > _BATCH_BYTES):
                    work.append(self._write_calls(request, batch))
                    batch, size = [], 0
                batch.append(call)
                size += length
        if batch:
            work.append(self._write_calls(request, batch))
        if reads:
            work.append(self._read(reads))
        if refused:
            work.append(_ready(refused))
        return work

    def header(self) -> kv_pb2.ResponseHeader:
        """The head of an answer that is made now."""
        return self._core.header()

    def _write_calls(self, request: pb.PipeRequest, calls: Sequence[pb.PipeCall]) -> Coroutine[Any, Any, bytes]:
        part = pb.PipeRequest(client=request.client, answered_below=request.answered_below, calls=calls)
        return self._write(part.SerializeToString(), calls)

    async def _write(self, raw: bytes, calls: Sequence[pb.PipeCall]) -> bytes:
        """Propose an encoded request that holds transactions alone."""
        numbers = [call.id for call in calls]
        try:
            outcome = await self._core.propose_encoded(_COMMAND_TAG + varint(len(raw)) + raw, BatchOutcome)
        except Refused as refused:
            return _encode([_error(number, refused.error) for number in numbers])
        except RaftUnavailable as error:
            return _encode([_error(number, unavailable(error)) for number in numbers])
        return self._replies.encode(numbers, outcome.outcomes)

    async def _read(self, calls: Sequence[pb.PipeCall]) -> bytes:
        if not all(call.range.serializable for call in calls):
            try:
                await self._core.raft.read_barrier()
            except RaftUnavailable as error:
                return _encode([_error(call.id, unavailable(error)) for call in calls])
        return b"".join([await self._range(call.id, call.range) for call in calls])

    async def _range(self, number: int, request: kv_pb2.RangeRequest) -> bytes:
        """A `PipeResponse` of the answer to one read alone, around what is encoded already."""
        outcome = await find(self._core, request)
        if isinstance(outcome, StoreError):
            return _encode([_error(number, outcome)])
        encoded = await encode(self._core, outcome)
        reply = pb.PipeReply(id=number).SerializeToString() + _RANGE_TAG + varint(len(encoded)) + encoded
        return _REPLY_TAG + varint(len(reply)) + reply


class _ReplyEncoder:
    """Encodes what transactions came to; the usual answer from a message that is filled in again and again."""

    def __init__(self) -> None:
        self._response = pb.PipeResponse()
        self._reply = self._response.replies.add()
        self._txn_header = self._reply.txn.header
        self._put_header = self._reply.txn.responses.add().response_put.header
        self._reply.txn.succeeded = True

    def encode(self, numbers: Sequence[int], outcomes: Sequence[CallOutcome]) -> bytes:
        """Answers as a `PipeResponse`: runs of swaps together, what else there is one by one."""
        runs: list[tuple[int, list[int]]] = []
        others: list[bytes] = []
        ids: list[int] = []
        following = 0
        for number, outcome in zip(numbers, outcomes, strict=True):
            if isinstance(outcome, SwapOutcome) and outcome.succeeded:
                revision = outcome.revision
                if revision != following:
                    ids = []
                    runs.append((revision, ids))
                ids.append(number)
                following = revision + 1
            else:
                others.append(self._one(number, outcome))
        swaps = pb.PipeResponse(swaps=[pb.SwapRun(ids=ids, revision=revision) for revision, ids in runs])
        return swaps.SerializeToString() + b"".join(others)

    def _one(self, number: int, outcome: CallOutcome) -> bytes:
        """A `PipeResponse` of this answer alone, for joining to others."""
        if isinstance(outcome, TxnOutcome) and outcome.succeeded and len(outcome.responses) == 1:
            put = outcome.responses[0]
            if isinstance(put, PutOutcome) and put.previous is None:
                self._reply.id = number
                self._txn_header.revision = outcome.revision
                self._put_header.revision = put.revision
                return self._response.SerializeToString()
        return _encode([_reply(number, outcome)])


class _Pipe:
    """One stream: what is being worked on."""

    def __init__(self, service: PipeService, context: Context) -> None:
        self._service = service
        self._answers = Answers(context)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, works: Sequence[Coroutine[Any, Any, bytes]]) -> None:
        """Begin all that a message asks for; waits while too much is being worked on."""
        for work in works:
            await self._slots.acquire()
            # Tasks begin in the order in which they are made, so that transactions are proposed in their order.
            task = asyncio.create_task(self._answer(work))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait until everything is answered."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cancel(self) -> None:
        """Drop what is left: the client is gone, or is refused."""
        await self._answers.end(self._tasks)

    async def _answer(self, work: Coroutine[Any, Any, bytes]) -> None:
        try:
            replies = await work
            head = pb.PipeResponse(header=self._service.header()).SerializeToString()
            await self._answers.write(head + replies)
        except Exception as error:
            # A client that is gone is no news, and asks again elsewhere; anything else is a mistake of ours.
            if client_is_gone(error):
                log.debug("the client of a pipe is gone")
            else:
                log.exception("a message of a pipe was not answered")
        finally:
            self._slots.release()


async def _ready(replies: list[pb.PipeReply]) -> bytes:
    return _encode(replies)


def _encode(replies: Sequence[pb.PipeReply]) -> bytes:
    """Answers as a `PipeResponse`, for joining to others."""
    return pb.PipeResponse(replies=replies).SerializeToString()


def _decode(raw: bytes) -> pb.PipeRequest:
    try:
        return pb.PipeRequest.FromString(raw)
    except DecodeError as error:
        raise Refused(StoreError("INVALID_ARGUMENT", f"kybern-store: not a request of a pipe: {error}")) from error


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _check(call: pb.PipeCall, kind: str | None, length: int) -> StoreError | None:
    if length > MAX_REQUEST:
        return TOO_LARGE
    if kind in ("txn", "swap"):
        # The machine checks it, as it must anyway.
        return None
    return check_range(call.range) if kind == "range" else EMPTY_KEY


def _writes(call: pb.PipeCall) -> bool:
    return call.HasField("swap") or call.HasField("txn")


def _reply(number: int, outcome: CallOutcome) -> pb.PipeReply:
    match outcome:
        case StoreError():
            return _error(number, outcome)
        case SwapOutcome(revision, succeeded, current):
            shown = None if current is None else key_value(current)
            return pb.PipeReply(id=number, swap=pb.SwapReply(revision=revision, succeeded=succeeded, current=shown))
        case TxnOutcome():
            return pb.PipeReply(id=number, txn=txn_response(outcome))


def _error(number: int, error: StoreError) -> pb.PipeReply:
    code = grpc.StatusCode[error.code].value[0]
    return pb.PipeReply(id=number, error=pb.PipeError(code=code, message=error.message))
