"""etcdserverpb.KV."""

from __future__ import annotations

from typing import Any

from kybern.pb.etcd import kv_pb2
from kybern.pb.v1.store_pipe_pb2 import StoreCommand
from store.mvcc.errors import StoreError
from store.mvcc.outcomes import CompactOutcome, DeleteOutcome, PutOutcome, RangeOutcome, TxnOutcome
from store.mvcc.ranges import check_range
from store.mvcc.txn import check_delete, check_put, check_txn
from store.server.convert import put_response, txn_response
from store.server.core import Context, Core, Guard, Refused, handlers, require
from store.server.reading import encode, encode_deletion, find

SERVICE = "etcdserverpb.KV"


def kv_handlers(core: Core, guard: Guard) -> Any:
    """The service, for adding to a server."""
    service = KvService(core)
    return handlers(
        SERVICE,
        {
            "Range": guard.unary(service.range, kv_pb2.RangeRequest),
            "Put": guard.unary(service.put, kv_pb2.PutRequest),
            "DeleteRange": guard.unary(service.delete_range, kv_pb2.DeleteRangeRequest),
            "Txn": guard.unary(service.txn, kv_pb2.TxnRequest),
            "Compact": guard.unary(service.compact, kv_pb2.CompactionRequest),
        },
    )


class KvService:
    """Reads are linearizable unless asked otherwise; writes go through the log."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def range(self, request: kv_pb2.RangeRequest, context: Context) -> bytes:
        """Read keys; the answer is encoded."""
        require(check_range(request))
        if not request.serializable:
            await self._core.raft.read_barrier()
        outcome = _checked(await find(self._core, request))
        return await encode(self._core, outcome, self._core.header(outcome.revision))

    async def put(self, request: kv_pb2.PutRequest, context: Context) -> kv_pb2.PutResponse:
        """Set a key."""
        require(check_put(request))
        outcome = await self._core.propose(StoreCommand(put=request), PutOutcome)
        return put_response(outcome, self._core.header(outcome.revision))

    async def delete_range(self, request: kv_pb2.DeleteRangeRequest, context: Context) -> bytes:
        """Delete keys; the answer is encoded."""
        require(check_delete(request))
        outcome = await self._core.propose(StoreCommand(delete_range=request), DeleteOutcome)
        return await encode_deletion(self._core, outcome, self._core.header(outcome.revision))

    async def txn(self, request: kv_pb2.TxnRequest, context: Context) -> kv_pb2.TxnResponse:
        """Do a transaction."""
        require(check_txn(request))
        if _reads_alone(request):
            return await self._read_txn(request)
        outcome = await self._core.propose(StoreCommand(txn=request), TxnOutcome)
        return txn_response(outcome, self._core.header(outcome.revision))

    async def compact(self, request: kv_pb2.CompactionRequest, context: Context) -> kv_pb2.CompactionResponse:
        """Forget history."""
        outcome = await self._core.propose(StoreCommand(compact=request), CompactOutcome)
        return kv_pb2.CompactionResponse(header=self._core.header(outcome.revision))

    async def _read_txn(self, request: kv_pb2.TxnRequest) -> kv_pb2.TxnResponse:
        """A transaction that cannot write needs no place in the log."""
        await self._core.raft.read_barrier()
        outcome = _checked_txn(self._core.machine.read_txn(request))
        return txn_response(outcome, self._core.header(outcome.revision))


def _reads_alone(request: kv_pb2.TxnRequest) -> bool:
    return all(op.HasField("request_range") for branch in (request.success, request.failure) for op in branch)


def _checked(outcome: RangeOutcome | StoreError) -> RangeOutcome:
    if isinstance(outcome, StoreError):
        raise Refused(outcome)
    return outcome


def _checked_txn(outcome: TxnOutcome | StoreError) -> TxnOutcome:
    if isinstance(outcome, StoreError):
        raise Refused(outcome)
    return outcome
