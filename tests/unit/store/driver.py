"""Short words for commands, and a machine that they are applied to."""

from __future__ import annotations

from typing import Any

from kybern.pb.etcd import kv_pb2, lease_pb2
from kybern.pb.v1.store_pipe_pb2 import PipeCall, PipeRequest, StoreCommand, StoreLeaseRevoke
from store.mvcc.machine import StoreMachine
from store.mvcc.outcomes import RangeOutcome
from store.mvcc.walks import checksum, finish
from store.raft.interface import Applied


def put(key: bytes, value: bytes = b"", **options: Any) -> kv_pb2.PutRequest:
    return kv_pb2.PutRequest(key=key, value=value, **options)


def delete(key: bytes, end: bytes = b"", **options: Any) -> kv_pb2.DeleteRangeRequest:
    return kv_pb2.DeleteRangeRequest(key=key, range_end=end, **options)


def read(key: bytes, end: bytes = b"", **options: Any) -> kv_pb2.RangeRequest:
    return kv_pb2.RangeRequest(key=key, range_end=end, **options)


Request = kv_pb2.PutRequest | kv_pb2.DeleteRangeRequest | kv_pb2.RangeRequest | kv_pb2.TxnRequest


def op(request: Request) -> kv_pb2.RequestOp:
    match request:
        case kv_pb2.PutRequest():
            return kv_pb2.RequestOp(request_put=request)
        case kv_pb2.DeleteRangeRequest():
            return kv_pb2.RequestOp(request_delete_range=request)
        case kv_pb2.RangeRequest():
            return kv_pb2.RequestOp(request_range=request)
        case _:
            return kv_pb2.RequestOp(request_txn=request)


def txn(
    *success: Request, when: tuple[kv_pb2.Compare, ...] = (), otherwise: tuple[Request, ...] = ()
) -> kv_pb2.TxnRequest:
    return kv_pb2.TxnRequest(
        compare=when, success=[op(request) for request in success], failure=[op(request) for request in otherwise]
    )


def version_is(key: bytes, version: int, end: bytes = b"") -> kv_pb2.Compare:
    return kv_pb2.Compare(
        result=kv_pb2.Compare.EQUAL, target=kv_pb2.Compare.VERSION, key=key, version=version, range_end=end
    )


class Driver:
    """Applies commands one after the other, as Raft would."""

    def __init__(self) -> None:
        self.machine = StoreMachine()
        self.index = 0

    def apply(self, command: StoreCommand) -> Any:
        self.index += 1
        return self.machine.apply(command.SerializeToString(), Applied(self.index, 1, self.index * 1000))

    def do(self, request: Request) -> Any:
        match request:
            case kv_pb2.PutRequest():
                return self.apply(StoreCommand(put=request))
            case kv_pb2.DeleteRangeRequest():
                return self.apply(StoreCommand(delete_range=request))
            case kv_pb2.TxnRequest():
                return self.apply(StoreCommand(txn=request))
            case _:
                return self.machine.range(request)

    def batch(self, client: int, calls: dict[int, kv_pb2.TxnRequest], answered_below: int = 0) -> Any:
        messages = [PipeCall(id=number, txn=request) for number, request in calls.items()]
        request = PipeRequest(client=client, answered_below=answered_below, calls=messages)
        return self.apply(StoreCommand(calls=request))

    def compact(self, revision: int) -> Any:
        return self.apply(StoreCommand(compact=kv_pb2.CompactionRequest(revision=revision)))

    def grant(self, lease: int, ttl: int = 60) -> Any:
        return self.apply(StoreCommand(lease_grant=lease_pb2.LeaseGrantRequest(ID=lease, TTL=ttl)))

    def renew(self, lease: int) -> Any:
        return self.apply(StoreCommand(lease_renew=lease_pb2.LeaseKeepAliveRequest(ID=lease)))

    def revoke(self, lease: int, renewals: int = -1, granted: int = 0) -> Any:
        return self.apply(StoreCommand(lease_revoke=StoreLeaseRevoke(id=lease, renewals=renewals, granted=granted)))

    def items(self, start: bytes = b"\0", end: bytes = b"\0", **options: Any) -> dict[bytes, bytes]:
        outcome = self.machine.range(read(start, end, **options))
        assert isinstance(outcome, RangeOutcome), outcome
        return {record.key: record.value for record in outcome.records}

    @property
    def revision(self) -> int:
        return self.machine.keys.revision

    @property
    def checksum(self) -> Any:
        """Of all that is kept."""
        return finish(checksum(self.machine.keys))
