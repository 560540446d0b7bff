"""Outcomes as etcd's messages."""

from __future__ import annotations

from collections.abc import Sequence

from kybern.pb.etcd import kv_pb2, mvcc_pb2
from store.mvcc.outcomes import DeleteOutcome, OpOutcome, PutOutcome, RangeOutcome, TxnOutcome
from store.mvcc.records import Record
from store.watch.events import fill, key_value

_Header = kv_pb2.ResponseHeader


def range_response(outcome: RangeOutcome, header: _Header | None = None) -> kv_pb2.RangeResponse:
    """What was read; the head has the revision alone when none is given."""
    encode = _without_value if outcome.keys_only else key_value
    return kv_pb2.RangeResponse(
        header=header if header is not None else _Header(revision=outcome.revision),
        kvs=[encode(record) for record in outcome.records],
        more=outcome.more,
        count=outcome.count,
    )


def encode_range(outcome: RangeOutcome, header: _Header | None = None) -> bytes:
    """`range_response`, encoded: in half the time, since one message is filled in again and again for the keys."""
    return range_head(outcome, header) + encode_found(outcome.records, keys_only=outcome.keys_only)


def range_head(outcome: RangeOutcome, header: _Header | None = None) -> bytes:
    """An encoded answer without its keys: the concatenation of encoded messages of one type is their merger."""
    return kv_pb2.RangeResponse(
        header=header if header is not None else _Header(revision=outcome.revision),
        more=outcome.more,
        count=outcome.count,
    ).SerializeToString()


def encode_found(records: Sequence[Record], *, keys_only: bool) -> bytes:
    """An encoded answer to a range that has these keys alone."""
    one = kv_pb2.RangeResponse()
    return _encode_each(records, one, one.kvs.add(), keys_only=keys_only)


def deletion_head(outcome: DeleteOutcome, header: _Header | None = None) -> bytes:
    """An encoded answer to a deletion without what was deleted."""
    return kv_pb2.DeleteRangeResponse(
        header=header if header is not None else _Header(revision=outcome.revision), deleted=outcome.deleted
    ).SerializeToString()


def encode_deleted(records: Sequence[Record]) -> bytes:
    """An encoded answer to a deletion that has these keys alone."""
    one = kv_pb2.DeleteRangeResponse()
    return _encode_each(records, one, one.prev_kvs.add(), keys_only=False)


def _encode_each(
    records: Sequence[Record],
    one: kv_pb2.RangeResponse | kv_pb2.DeleteRangeResponse,
    item: mvcc_pb2.KeyValue,
    *,
    keys_only: bool,
) -> bytes:
    """`one`, which holds `item` alone, with each of the records in its place, joined."""
    parts = []
    for record in records:
        fill(item, record)
        if keys_only:
            item.value = b""
        parts.append(one.SerializeToString())
    return b"".join(parts)


def put_response(outcome: PutOutcome, header: _Header | None = None) -> kv_pb2.PutResponse:
    """That a key was set."""
    return kv_pb2.PutResponse(
        header=header if header is not None else _Header(revision=outcome.revision),
        prev_kv=None if outcome.previous is None else key_value(outcome.previous),
    )


def delete_response(outcome: DeleteOutcome, header: _Header | None = None) -> kv_pb2.DeleteRangeResponse:
    """What was deleted."""
    return kv_pb2.DeleteRangeResponse(
        header=header if header is not None else _Header(revision=outcome.revision),
        deleted=outcome.deleted,
        prev_kvs=[key_value(record) for record in outcome.previous],
    )


def txn_response(outcome: TxnOutcome, header: _Header | None = None) -> kv_pb2.TxnResponse:
    """What a transaction did."""
    return kv_pb2.TxnResponse(
        header=header if header is not None else _Header(revision=outcome.revision),
        succeeded=outcome.succeeded,
        responses=[_op_response(response) for response in outcome.responses],
    )


def _op_response(outcome: OpOutcome) -> kv_pb2.ResponseOp:
    match outcome:
        case RangeOutcome():
            return kv_pb2.ResponseOp(response_range=range_response(outcome))
        case PutOutcome():
            return kv_pb2.ResponseOp(response_put=put_response(outcome))
        case DeleteOutcome():
            return kv_pb2.ResponseOp(response_delete_range=delete_response(outcome))
        case TxnOutcome():
            # etcd gives a transaction within another no revision of its own.
            return kv_pb2.ResponseOp(response_txn=txn_response(outcome, _Header()))


def _without_value(record: Record) -> mvcc_pb2.KeyValue:
    message = key_value(record)
    message.value = b""
    return message
