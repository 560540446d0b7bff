"""Outcomes as messages."""

from __future__ import annotations

from kybern.pb.etcd.kv_pb2 import ResponseHeader
from store.mvcc.outcomes import PutOutcome, TxnOutcome
from store.server.convert import txn_response


def test_a_transaction_within_another_has_no_revision_of_its_own() -> None:
    inner = TxnOutcome(7, True, [PutOutcome(7, None)])
    response = txn_response(TxnOutcome(7, True, [inner]), ResponseHeader(revision=7, raft_term=2))
    within = response.responses[0].response_txn
    assert response.header == ResponseHeader(revision=7, raft_term=2)
    assert within.HasField("header")
    assert within.header == ResponseHeader()
    assert within.responses[0].response_put.header == ResponseHeader(revision=7)
