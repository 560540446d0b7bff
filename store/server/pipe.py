"""kybern.v1.StorePipe: transactions and reads in bulk.

The transactions of one message become one command in the log (several, when it is long), its reads share one read
barrier. Messages are worked on side by side, so that a slow one holds up no other; a client that does not read its
answers is held up itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Coroutine, Sequence
from typing import Any

import grpc

from kybern.pb.etcd import kv_pb2
from kybern.pb.v1 import store_pipe_pb2 as pb
from store.mvcc.errors import EMPTY_KEY, TOO_LARGE, StoreError
from store.mvcc.outcomes import BatchOutcome, RangeOutcome, TxnOutcome
from store.mvcc.ranges import check_range
from store.mvcc.txn import check_txn
from store.raft.interface import RaftUnavailable
from store.server.convert import range_response, txn_response
from store.server.core import MAX_REQUEST, Context, Core, Guard, Refused, handlers

log = logging.getLogger(__name__)

SERVICE = "kybern.v1.StorePipe"

# One command in the log: transactions and bytes.
_BATCH = 256
_BATCH_BYTES = 512 * 1024
# Messages of one stream that are worked on at once.
_AT_ONCE = 64


def pipe_handlers(core: Core, guard: Guard) -> Any:
    """The service, for adding to a server."""
    return handlers(SERVICE, {"Pipe": guard.stream(PipeService(core).pipe, pb.PipeRequest)})


class PipeService:
    """Serves any number of pipes."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def pipe(self, requests: AsyncIterable[pb.PipeRequest], context: Context) -> None:
        """Serve one stream until the client closes it; what was asked for until then is answered."""
        pipe = _Pipe(self, context)
        try:
            async for request in requests:
                if request.client == 0:
                    raise Refused(StoreError("INVALID_ARGUMENT", "kybern-store: a pipe's client number is not 0"))
                await pipe.serve(request)
            await pipe.finish()
        finally:
            await pipe.cancel()

    def work(self, request: pb.PipeRequest) -> list[Coroutine[Any, Any, list[pb.PipeReply]]]:
        """What a message asks for, in the order in which it is to be begun."""
        work: list[Coroutine[Any, Any, list[pb.PipeReply]]] = []
        refused: list[pb.PipeReply] = []
        reads: list[pb.PipeCall] = []
        batch = pb.StoreBatch(client=request.client, answered_below=request.answered_below)
        size = 0
        for call in request.calls:
            kind = call.WhichOneof("call")
            length = call.ByteSize()
            error = _check(call, kind, length)
            if error is not None:
                refused.append(_error(call.id, error))
            elif kind == "range":
                reads.append(call)
            else:
                if batch.ids and (len(batch.ids) >= _BATCH or size + length > _BATCH_BYTES):
                    work.append(self._write(batch))
                    batch = pb.StoreBatch(client=request.client, answered_below=request.answered_below)
                    size = 0
                batch.ids.append(call.id)
                batch.txns.append(call.txn)
                size += length
        if batch.ids:
            work.append(self._write(batch))
        if reads:
            work.append(self._read(reads))
        if refused:
            work.append(_ready(refused))
        return work

    def header(self) -> kv_pb2.ResponseHeader:
        """The head of an answer that is made now."""
        return self._core.header()

    async def _write(self, batch: pb.StoreBatch) -> list[pb.PipeReply]:
        try:
            outcome = await self._core.propose(pb.StoreCommand(batch=batch), BatchOutcome)
        except Refused as refused:
            return [_error(number, refused.error) for number in batch.ids]
        except RaftUnavailable:
            return [_error(number, self._core.unavailable()) for number in batch.ids]
        return [_reply(number, one) for number, one in zip(batch.ids, outcome.outcomes, strict=True)]

    async def _read(self, calls: Sequence[pb.PipeCall]) -> list[pb.PipeReply]:
        if not all(call.range.serializable for call in calls):
            try:
                await self._core.raft.read_barrier()
            except RaftUnavailable:
                return [_error(call.id, self._core.unavailable()) for call in calls]
        return [_reply(call.id, self._core.machine.range(call.range)) for call in calls]


class _Pipe:
    """One stream: what is being worked on, and writing answers one at a time."""

    def __init__(self, service: PipeService, context: Context) -> None:
        self._service = service
        self._context = context
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, request: pb.PipeRequest) -> None:
        """Begin all that a message asks for; waits while too much is being worked on."""
        for work in self._service.work(request):
            await self._slots.acquire()
            # Tasks begin in the order in which they are made, so that transactions are proposed in their order.
            task = asyncio.create_task(self._answer(work))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait until everything is answered."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cancel(self) -> None:
        """Drop what is left: the client is gone."""
        for task in self._tasks:
            task.cancel()
        await self.finish()

    async def _answer(self, work: Coroutine[Any, Any, list[pb.PipeReply]]) -> None:
        try:
            replies = await work
            response = pb.PipeResponse(header=self._service.header(), replies=replies).SerializeToString()
            async with self._writing:
                await self._context.write(response)
        except Exception:
            # A client that has gone is no news; anything else is a mistake of ours. Either way the client asks again.
            if not self._context.cancelled():
                log.exception("a message of a pipe was not answered")
        finally:
            self._slots.release()


async def _ready(replies: list[pb.PipeReply]) -> list[pb.PipeReply]:
    return replies


def _check(call: pb.PipeCall, kind: str | None, length: int) -> StoreError | None:
    if length > MAX_REQUEST:
        return TOO_LARGE
    if kind == "txn":
        return check_txn(call.txn)
    return check_range(call.range) if kind == "range" else EMPTY_KEY


def _reply(number: int, outcome: TxnOutcome | RangeOutcome | StoreError) -> pb.PipeReply:
    match outcome:
        case TxnOutcome():
            return pb.PipeReply(id=number, txn=txn_response(outcome))
        case RangeOutcome():
            return pb.PipeReply(id=number, range=range_response(outcome))
        case StoreError():
            return _error(number, outcome)


def _error(number: int, error: StoreError) -> pb.PipeReply:
    code = grpc.StatusCode[error.code].value[0]
    return pb.PipeReply(id=number, error=pb.PipeError(code=code, message=error.message))
