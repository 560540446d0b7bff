"""Transactions: what is wrong with one by itself, whether its comparisons hold, and doing one of its branches.

A transaction is checked as a whole against the state before anything of it is done, so that an error leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kybern.pb.etcd import kv_pb2
from store.mvcc.errors import (
    COMPACTED,
    DUPLICATE_KEY,
    EMPTY_KEY,
    KEY_NOT_FOUND,
    LEASE_NOT_FOUND,
    LEASE_PROVIDED,
    TOO_MANY_OPS,
    VALUE_PROVIDED,
    StoreError,
)
from store.mvcc.keyspace import KeySpace
from store.mvcc.leases import LeaseTable
from store.mvcc.outcomes import DeleteOutcome, OpOutcome, PutOutcome, RangeOutcome, TxnOutcome
from store.mvcc.ranges import check_range, check_revision, read_range
from store.mvcc.records import NO_BOUND, Record

MAX_OPS = 128
# Transactions within transactions; the decoder's own limit on depth is far beyond.
_MAX_DEPTH = 16

_RELATIONS: dict[int, Callable[[Any, Any], bool]] = {
    kv_pb2.Compare.EQUAL: lambda a, b: a == b,
    kv_pb2.Compare.GREATER: lambda a, b: a > b,
    kv_pb2.Compare.LESS: lambda a, b: a < b,
    kv_pb2.Compare.NOT_EQUAL: lambda a, b: a != b,
}
# What the record has, what the comparison names, and what an absent key has.
_TARGETS: dict[int, tuple[Callable[[Record], Any], Callable[[kv_pb2.Compare], Any]]] = {
    kv_pb2.Compare.VERSION: (lambda r: r.version, lambda c: c.version),
    kv_pb2.Compare.CREATE: (lambda r: r.create, lambda c: c.create_revision),
    kv_pb2.Compare.MOD: (lambda r: r.mod, lambda c: c.mod_revision),
    kv_pb2.Compare.VALUE: (lambda r: r.value, lambda c: c.value),
    kv_pb2.Compare.LEASE: (lambda r: r.lease, lambda c: c.lease),
}
_ABSENT = Record(b"", b"", 0, 0, 0, 0, None)


# --- a request by itself


def check_put(request: kv_pb2.PutRequest) -> StoreError | None:
    """What is wrong with a put by itself."""
    if not request.key:
        return EMPTY_KEY
    if request.ignore_value and request.value:
        return VALUE_PROVIDED
    if request.ignore_lease and request.lease:
        return LEASE_PROVIDED
    return None


def check_delete(request: kv_pb2.DeleteRangeRequest) -> StoreError | None:
    """What is wrong with a deletion by itself."""
    return None if request.key else EMPTY_KEY


def check_txn(request: kv_pb2.TxnRequest) -> StoreError | None:
    """What is wrong with a transaction by itself: bounds, empty keys, a key that is written twice."""
    error = _check_shape(request, MAX_OPS, _MAX_DEPTH)
    if error is not None:
        return error
    for branch in (request.success, request.failure):
        # One operation alone cannot contradict itself, unless it is a transaction.
        alone = len(branch) <= 1 and not (branch and branch[0].HasField("request_txn"))
        if not alone and _writes(branch) is None:
            return DUPLICATE_KEY
    return None


def _check_shape(request: kv_pb2.TxnRequest, most: int, depth: int) -> StoreError | None:
    longest = max(len(request.compare), len(request.success), len(request.failure))
    if longest > most or depth == 0:
        return TOO_MANY_OPS
    if any(not compare.key for compare in request.compare):
        return EMPTY_KEY
    for branch in (request.success, request.failure):
        for op in branch:
            # As with etcd, a transaction within may have as many as this one has left.
            error = _check_op(op, most - longest, depth)
            if error is not None:
                return error
    return None


def _check_op(op: kv_pb2.RequestOp, most: int, depth: int) -> StoreError | None:
    match op.WhichOneof("request"):
        case "request_range":
            return check_range(op.request_range)
        case "request_put":
            return check_put(op.request_put)
        case "request_delete_range":
            return check_delete(op.request_delete_range)
        case "request_txn":
            return _check_shape(op.request_txn, most, depth - 1)
        case _:
            # An operation that says nothing, in etcd's words.
            return KEY_NOT_FOUND


_Writes = tuple[set[bytes], list[tuple[bytes, bytes]]]


def _writes(branch: Sequence[kv_pb2.RequestOp]) -> _Writes | None:
    """Keys that a branch sets and ranges that it deletes; None when it sets a key twice, or sets and deletes one.

    The two branches of a transaction within may write the same keys: only one of them is done.
    """
    puts: set[bytes] = set()
    deletes: list[tuple[bytes, bytes]] = []
    for op in branch:
        added = _op_writes(op)
        if added is None:
            return None
        new_puts, new_deletes = added
        if not puts.isdisjoint(new_puts):
            return None
        if _overlap(new_puts, deletes) or _overlap(puts, new_deletes):
            return None
        puts |= new_puts
        deletes += new_deletes
    return puts, deletes


def _op_writes(op: kv_pb2.RequestOp) -> _Writes | None:
    match op.WhichOneof("request"):
        case "request_put":
            return {op.request_put.key}, []
        case "request_delete_range":
            return set(), [(op.request_delete_range.key, op.request_delete_range.range_end)]
        case "request_txn":
            success, failure = _writes(op.request_txn.success), _writes(op.request_txn.failure)
            if success is None or failure is None:
                return None
            return success[0] | failure[0], success[1] + failure[1]
        case _:
            return set(), []


def _overlap(puts: set[bytes], deletes: list[tuple[bytes, bytes]]) -> bool:
    return any(
        start == key if not end else start <= key and (end == NO_BOUND or key < end)
        for start, end in deletes
        for key in puts
    )


# --- against the state


class Transaction:
    """Does one transaction on the key space at the next revision, which it makes the present one if it wrote."""

    def __init__(self, keys: KeySpace, leases: LeaseTable) -> None:
        self._keys = keys
        self._leases = leases
        self._next = keys.revision + 1
        self._wrote = False

    @property
    def revision(self) -> int:
        """The revision that the transaction has come to so far."""
        return self._next if self._wrote else self._keys.revision

    def finish(self) -> int:
        """Make the revision the present one; returns it."""
        if self._wrote:
            self._keys.revision = self._next
        return self._keys.revision

    def txn(self, request: kv_pb2.TxnRequest) -> TxnOutcome | StoreError:
        """Do the branch that the comparisons choose, unless something of it cannot be done."""
        path: list[bool] = []
        self._choose(request, path)
        of_reads: list[StoreError] = []
        error = self._check_branches(request, iter(path), of_reads)
        if error is not None:
            return error
        # As with etcd, what is wrong with any put comes first.
        if of_reads:
            return of_reads[0]
        return self._do(request, iter(path))

    def put(self, request: kv_pb2.PutRequest) -> PutOutcome:
        """Set a key; `check_put_state` must have found nothing wrong."""
        old = self._keys.live.get(request.key)
        value, lease = request.value, request.lease
        if old is not None:
            value = old.value if request.ignore_value else value
            lease = old.lease if request.ignore_lease else lease
        record = self._keys.put(request.key, value, lease, self._next)
        self._wrote = True
        self._leases.move(record.key, old.lease if old is not None else 0, lease)
        return PutOutcome(self._next, old if request.prev_kv else None)

    def check_put_state(self, request: kv_pb2.PutRequest) -> StoreError | None:
        """What the state has against a put that stands alone."""
        # Within transactions etcd looks the other way round.
        return self._missing_lease(request) or self._missing_key(request)

    def delete(self, request: kv_pb2.DeleteRangeRequest) -> DeleteOutcome:
        """Delete what is in the range."""
        found = self._keys.find(request.key, request.range_end)
        self._keys.delete_range(found, self._next)
        for record in found:
            if record.lease:
                self._leases.move(record.key, record.lease, 0)
        self._wrote = self._wrote or bool(found)
        return DeleteOutcome(self.revision, len(found), found if request.prev_kv else ())

    def delete_records(self, records: Sequence[Record]) -> None:
        """Delete live keys."""
        for record in records:
            self._keys.delete(record, self._next)
            self._leases.move(record.key, record.lease, 0)
            self._wrote = True

    # --- within

    def _missing_key(self, request: kv_pb2.PutRequest) -> StoreError | None:
        kept = request.ignore_value or request.ignore_lease
        return KEY_NOT_FOUND if kept and request.key not in self._keys.live else None

    def _missing_lease(self, request: kv_pb2.PutRequest) -> StoreError | None:
        return LEASE_NOT_FOUND if request.lease and request.lease not in self._leases else None

    def _choose(self, request: kv_pb2.TxnRequest, path: list[bool]) -> None:
        """Whether each transaction of the branches to be done succeeds, in the order in which they are done."""
        succeeded = all(self._holds(compare) for compare in request.compare)
        path.append(succeeded)
        for op in request.success if succeeded else request.failure:
            if op.HasField("request_txn"):
                self._choose(op.request_txn, path)

    def _holds(self, compare: kv_pb2.Compare) -> bool:
        target = _TARGETS.get(compare.target)
        relation = _RELATIONS.get(compare.result)
        if target is None or relation is None:
            return False
        of_record, of_compare = target
        expected = of_compare(compare)
        records = self._keys.find(compare.key, compare.range_end)
        if not records:
            # An absent key has no value, not an empty one.
            return compare.target != kv_pb2.Compare.VALUE and relation(of_record(_ABSENT), expected)
        return all(relation(of_record(record), expected) for record in records)

    def _check_branches(
        self, request: kv_pb2.TxnRequest, path: Iterator[bool], of_reads: list[StoreError]
    ) -> StoreError | None:
        """What the state has against a put; what it has against reads is added to `of_reads`."""
        for op in request.success if next(path) else request.failure:
            error: StoreError | None = None
            match op.WhichOneof("request"):
                case "request_range":
                    of_read = self._check_read(op.request_range.revision)
                    if of_read is not None:
                        of_reads.append(of_read)
                case "request_put":
                    error = self._missing_key(op.request_put) or self._missing_lease(op.request_put)
                case "request_txn":
                    error = self._check_branches(op.request_txn, path, of_reads)
            if error is not None:
                return error
        return None

    def _check_read(self, revision: int) -> StoreError | None:
        # As with etcd: below 0 is the present for a range that stands alone, but within a transaction it is long gone.
        return COMPACTED if revision < 0 else check_revision(self._keys, revision)

    def _do(self, request: kv_pb2.TxnRequest, path: Iterator[bool]) -> TxnOutcome:
        succeeded = next(path)
        responses: list[OpOutcome] = []
        for op in request.success if succeeded else request.failure:
            match op.WhichOneof("request"):
                case "request_range":
                    outcome = read_range(self._keys, op.request_range, revision=self.revision)
                    # Its revision was checked before anything was done, and nothing compacts in between.
                    assert isinstance(outcome, RangeOutcome)  # noqa: S101
                    responses.append(outcome)
                case "request_put":
                    responses.append(self.put(op.request_put))
                case "request_delete_range":
                    responses.append(self.delete(op.request_delete_range))
                case "request_txn":
                    responses.append(self._do(op.request_txn, path))
        return TxnOutcome(self.revision, succeeded, responses)
