"""The client's terms as etcd's messages, and back."""

from __future__ import annotations

from collections.abc import Sequence

from kybern.client.store import (
    Change,
    Compare,
    Delete,
    Get,
    KeyValue,
    Operation,
    Put,
    RangeResult,
    Target,
    TxnResult,
)
from kybern.pb.etcd import kv_pb2, mvcc_pb2
from kybern.pb.v1 import store_pipe_pb2

_TARGETS = {
    Target.VERSION: kv_pb2.Compare.VERSION,
    Target.CREATE_REVISION: kv_pb2.Compare.CREATE,
    Target.MOD_REVISION: kv_pb2.Compare.MOD,
    Target.VALUE: kv_pb2.Compare.VALUE,
}


def txn_request(
    compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation]
) -> kv_pb2.TxnRequest:
    """A transaction."""
    return kv_pb2.TxnRequest(
        compare=[_compare(compare) for compare in compares],
        success=[_operation(operation) for operation in then],
        failure=[_operation(operation) for operation in otherwise],
    )


def swap_of(
    compares: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation]
) -> store_pipe_pb2.Swap | None:
    """The pipe's short form of a transaction; None when it has none."""
    match compares, then, otherwise:
        case (
            [Compare(key, Target.MOD_REVISION, int(revision))],
            [Put(put, value, lease)],
            [] | [Get(_)],
        ) if key == put and revision >= 0 and all(read.key == key for read in otherwise):
            return store_pipe_pb2.Swap(key=key, mod_revision=revision, value=value, lease=lease, read=bool(otherwise))
    return None


def swap_result(reply: store_pipe_pb2.SwapReply, request: store_pipe_pb2.Swap) -> TxnResult:
    """What it did, as the transaction would tell it."""
    reads: list[KeyValue | None] = []
    if request.read and not reply.succeeded:
        reads.append(key_value(reply.current) if reply.HasField("current") else None)
    return TxnResult(reply.succeeded, reply.revision, reads)


def txn_result(response: kv_pb2.TxnResponse) -> TxnResult:
    """What a transaction did."""
    reads: list[KeyValue | None] = []
    for op in response.responses:
        if op.HasField("response_range"):
            kvs = op.response_range.kvs
            reads.append(key_value(kvs[0]) if kvs else None)
    return TxnResult(response.succeeded, response.header.revision, reads)


def range_result(response: kv_pb2.RangeResponse) -> RangeResult:
    """What was read."""
    return RangeResult(
        [key_value(kv) for kv in response.kvs], response.header.revision, more=response.more, count=response.count
    )


def change(event: mvcc_pb2.Event) -> Change:
    """One change."""
    deleted = event.type == mvcc_pb2.Event.DELETE
    value = KeyValue(event.kv.key, b"", 0, event.kv.mod_revision, 0) if deleted else key_value(event.kv)
    return Change(value, key_value(event.prev_kv) if event.HasField("prev_kv") else None)


def key_value(kv: mvcc_pb2.KeyValue) -> KeyValue:
    """One key."""
    return KeyValue(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)


def _compare(compare: Compare) -> kv_pb2.Compare:
    message = kv_pb2.Compare(result=kv_pb2.Compare.EQUAL, target=_TARGETS[compare.target], key=compare.key)
    match compare.target, compare.expected:
        case Target.VALUE, bytes(value):
            message.value = value
        case Target.VERSION, int(number):
            message.version = number
        case Target.CREATE_REVISION, int(number):
            message.create_revision = number
        case Target.MOD_REVISION, int(number):
            message.mod_revision = number
        case target, expected:
            raise TypeError(f"{target.value} cannot be compared with {type(expected).__name__}")
    return message


def _operation(operation: Operation) -> kv_pb2.RequestOp:
    match operation:
        case Put(key, value, lease):
            return kv_pb2.RequestOp(request_put=kv_pb2.PutRequest(key=key, value=value, lease=lease))
        case Delete(key):
            return kv_pb2.RequestOp(request_delete_range=kv_pb2.DeleteRangeRequest(key=key))
        case Get(key):
            return kv_pb2.RequestOp(request_range=kv_pb2.RangeRequest(key=key))
