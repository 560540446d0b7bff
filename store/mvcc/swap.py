"""The transaction that nearly all writes of a control plane are: set one key if it is as it was last seen.

Done here in a tenth of the time that the general way takes, with the same outcome; anything else is left to that.
"""

from __future__ import annotations

from kybern.pb.etcd import kv_pb2
from store.mvcc.keyspace import KeySpace
from store.mvcc.leases import LeaseTable
from store.mvcc.outcomes import PutOutcome, TxnOutcome
from store.mvcc.ranges import check_range

_EQUAL = kv_pb2.Compare.EQUAL
_MOD = kv_pb2.Compare.MOD


def swap(keys: KeySpace, leases: LeaseTable, request: kv_pb2.TxnRequest) -> TxnOutcome | None:
    """Do the transaction, or do nothing and return None when it is not of this kind or does not succeed.

    Of this kind: at most one comparison, of the revision of the key itself; then a plain put of it; otherwise at most
    one read.
    """
    success = request.success
    if len(success) != 1:
        return None
    put = success[0].request_put
    # An operation that is not a put has no key here.
    key = put.key
    if not key or put.prev_kv or put.ignore_value or put.ignore_lease:
        return None
    failure = request.failure
    if failure and (len(failure) != 1 or check_range(failure[0].request_range) is not None):
        return None
    old = keys.live.get(key)
    compares = request.compare
    if compares:
        compare = compares[0]
        if (
            len(compares) != 1
            or compare.mod_revision != (0 if old is None else old.mod)
            or compare.key != key
            or compare.target != _MOD
            or compare.result != _EQUAL
            or compare.range_end
        ):
            return None
    lease, old_lease = put.lease, 0 if old is None else old.lease
    if lease and lease not in leases:
        return None
    revision = keys.revision + 1
    record = keys.put(key, put.value, lease, revision)
    keys.revision = revision
    if lease or old_lease:
        leases.move(record.key, old_lease, lease)
    return TxnOutcome(revision, True, [PutOutcome(revision, None)])
