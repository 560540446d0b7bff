"""kybern.v1.StorePipe: transactions and reads in bulk.

The transactions of one message become one command in the log (several, when it is long), its reads share one read
barrier. Messages are worked on side by side, so that a slow one holds up no other; a client that does not read its
answers is held up itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Sequence
from typing import Any

import grpc

from kybern.pb.v1 import store_pipe_pb2 as pb
from store.mvcc.errors import EMPTY_KEY, TOO_LARGE, StoreError
from store.mvcc.outcomes import BatchOutcome, RangeOutcome, TxnOutcome
from store.mvcc.ranges import check_range
from store.mvcc.txn import check_txn
from store.raft.interface import RaftUnavailable
from store.server.convert import range_response, txn_response
from store.server.core import MAX_REQUEST, Context, Core, Guard, Refused, handlers

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
        """Serve one stream until the client closes it."""
        slots = asyncio.Semaphore(_AT_ONCE)
        writing = asyncio.Lock()

        async def answer(work: asyncio.Task[list[pb.PipeReply]] | Sequence[pb.PipeReply]) -> None:
            try:
                replies = await work if isinstance(work, asyncio.Task) else work
                response = pb.PipeResponse(header=self._core.header(), replies=replies)
                async with writing:
                    await context.write(response.SerializeToString())
            finally:
                slots.release()

        async with asyncio.TaskGroup() as group:
            async for request in requests:
                if request.client == 0:
                    raise Refused(StoreError("INVALID_ARGUMENT", "kybern-store: a pipe's client number is not 0"))
                for work in self._work(request, group):
                    await slots.acquire()
                    group.create_task(answer(work))

    def _work(
        self, request: pb.PipeRequest, group: asyncio.TaskGroup
    ) -> list[asyncio.Task[list[pb.PipeReply]] | Sequence[pb.PipeReply]]:
        """Begin all that a message asks for, in its order; returns what will be answered."""
        work: list[asyncio.Task[list[pb.PipeReply]] | Sequence[pb.PipeReply]] = []
        refused: list[pb.PipeReply] = []
        reads: list[pb.PipeCall] = []
        batch = pb.StoreBatch(client=request.client, answered_below=request.answered_below)
        size = 0
        for call in request.calls:
            kind = call.WhichOneof("call")
            error = self._check(call, kind)
            if error is not None:
                refused.append(_error(call.id, error))
            elif kind == "range":
                reads.append(call)
            else:
                length = call.ByteSize()
                if batch.ids and (len(batch.ids) >= _BATCH or size + length > _BATCH_BYTES):
                    work.append(group.create_task(self._write(batch)))
                    batch = pb.StoreBatch(client=request.client, answered_below=request.answered_below)
                    size = 0
                batch.ids.append(call.id)
                batch.txns.append(call.txn)
                size += length
        if batch.ids:
            work.append(group.create_task(self._write(batch)))
        if reads:
            work.append(group.create_task(self._read(reads)))
        if refused:
            work.append(refused)
        return work

    def _check(self, call: pb.PipeCall, kind: str | None) -> StoreError | None:
        if call.ByteSize() > MAX_REQUEST:
            return TOO_LARGE
        if kind == "txn":
            return check_txn(call.txn)
        return check_range(call.range) if kind == "range" else EMPTY_KEY

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
