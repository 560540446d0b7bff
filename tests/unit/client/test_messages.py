"""The store client's transactions in etcd's messages, and in the pipe's short form."""

from __future__ import annotations

import pytest

from kybern.client.etcd.messages import swap_of, swap_result
from kybern.client.store import Compare, Delete, Get, Operation, Put, Target, TxnResult
from kybern.pb.etcd import mvcc_pb2
from kybern.pb.v1.store_pipe_pb2 import Swap, SwapReply

AS_IT_WAS = Compare(b"a", Target.MOD_REVISION, 7)
SET = Put(b"a", b"1", 5)


def test_one_put_of_a_key_that_must_be_as_it_was_is_a_swap() -> None:
    assert swap_of([AS_IT_WAS], [SET], []) == Swap(key=b"a", mod_revision=7, value=b"1", lease=5)
    assert swap_of([AS_IT_WAS], [SET], [Get(b"a")]) == Swap(key=b"a", mod_revision=7, value=b"1", lease=5, read=True)


@pytest.mark.parametrize(
    ("compares", "then", "otherwise"),
    [
        ([], [SET], []),
        ([AS_IT_WAS, AS_IT_WAS], [SET], []),
        ([Compare(b"a", Target.VERSION, 7)], [SET], []),
        ([Compare(b"a", Target.MOD_REVISION, -1)], [SET], []),
        ([Compare(b"b", Target.MOD_REVISION, 7)], [SET], []),
        ([AS_IT_WAS], [SET, Put(b"b", b"")], []),
        ([AS_IT_WAS], [Delete(b"a")], []),
        ([AS_IT_WAS], [SET], [Get(b"b")]),
        ([AS_IT_WAS], [SET], [Put(b"a", b"2")]),
    ],
)
def test_what_is_more_than_that_is_a_transaction(
    compares: list[Compare], then: list[Operation], otherwise: list[Operation]
) -> None:
    assert swap_of(compares, then, otherwise) is None


def test_a_swap_is_answered_as_its_transaction() -> None:
    asked = Swap(key=b"a", read=True)
    shown = SwapReply(revision=9, current=mvcc_pb2.KeyValue(key=b"a", value=b"2", mod_revision=8, version=3))
    assert swap_result(SwapReply(revision=9, succeeded=True), asked) == TxnResult(True, 9, [])
    assert swap_result(SwapReply(revision=9), asked) == TxnResult(False, 9, [None])
    assert swap_result(SwapReply(revision=9), Swap(key=b"a")) == TxnResult(False, 9, [])
    (current,) = swap_result(shown, asked).reads
    assert current is not None
    assert (current.value, current.mod_revision, current.version) == (b"2", 8, 3)
