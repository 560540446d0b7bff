"""Whatever a command holds, the machine does not raise, and an error leaves no trace."""

from __future__ import annotations

import random
from typing import Any

import pytest
from google.protobuf.message import Message

from kybern.pb.etcd import kv_pb2, lease_pb2
from kybern.pb.v1.store_pipe_pb2 import PipeCall, PipeRequest, StoreCommand, StoreLeaseRevoke
from store.mvcc.errors import StoreError
from tests.integration.store.differential.steps import Maker
from tests.unit.store.driver import Driver

_NUMBERS = [0, 1, -1, 5, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)]
_BYTES = [b"", b"\0", b"a", b"\xff"]


def scramble(message: Any, rnd: random.Random) -> None:
    """Put values from the edges into some of a message's fields."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None:
            held = getattr(message, field.name)
            for part in held if field.is_repeated else ([held] if message.HasField(field.name) else []):
                scramble(part, rnd)
        elif not field.is_repeated and rnd.random() < 0.1:
            value: object
            if field.cpp_type == field.CPPTYPE_STRING:
                value = rnd.choice(_BYTES)
            elif field.cpp_type == field.CPPTYPE_BOOL:
                value = rnd.random() < 0.5
            else:
                value = rnd.choice([n for n in _NUMBERS if field.cpp_type != field.CPPTYPE_ENUM or abs(n) < 2**31])
            setattr(message, field.name, value)


def command(request: Message, rnd: random.Random) -> StoreCommand | None:
    match request:
        case kv_pb2.PutRequest():
            return StoreCommand(put=request)
        case kv_pb2.DeleteRangeRequest():
            return StoreCommand(delete_range=request)
        case kv_pb2.TxnRequest() if rnd.random() < 0.5:
            return StoreCommand(txn=request)
        case kv_pb2.TxnRequest():
            calls = [PipeCall(id=rnd.choice([0, 1, 2**64 - 1, rnd.randint(2, 10**9)]), txn=request)]
            return StoreCommand(calls=PipeRequest(client=rnd.choice([1, 2]), calls=calls))
        case kv_pb2.CompactionRequest():
            return StoreCommand(compact=request)
        case lease_pb2.LeaseGrantRequest():
            return StoreCommand(lease_grant=request)
        case lease_pb2.LeaseRevokeRequest():
            return StoreCommand(lease_revoke=StoreLeaseRevoke(id=request.ID, renewals=rnd.choice([-1, 0, 1])))
        case lease_pb2.LeaseKeepAliveRequest():
            return StoreCommand(lease_renew=request)
    return None


@pytest.mark.parametrize("seed", range(20))
def test_no_command_makes_the_machine_raise(seed: int) -> None:
    rnd, maker, store = random.Random(seed), Maker(seed), Driver()
    for step in [step for _ in range(20) for step in maker.sequence()]:
        scramble(step.request, rnd)
        asked = command(step.request, rnd)
        if asked is None:
            continue
        before = store.revision
        outcome = store.apply(asked)
        store.machine.caught_up()
        assert 0 <= store.revision - before <= (not isinstance(outcome, StoreError))
        changes = store.machine.keys.log.all()
        assert not changes or changes[-1].mod <= store.revision
