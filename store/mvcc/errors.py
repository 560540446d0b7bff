"""What a command or a question can fail with: values, not exceptions, since applying never raises.

Texts and gRPC codes are etcd's, because clients tell errors apart by them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreError:
    """An error as clients see it. `code` is the name of a gRPC status code."""

    code: str
    message: str


EMPTY_KEY = StoreError("INVALID_ARGUMENT", "etcdserver: key is not provided")
KEY_NOT_FOUND = StoreError("INVALID_ARGUMENT", "etcdserver: key not found")
VALUE_PROVIDED = StoreError("INVALID_ARGUMENT", "etcdserver: value is provided")
LEASE_PROVIDED = StoreError("INVALID_ARGUMENT", "etcdserver: lease is provided")
TOO_MANY_OPS = StoreError("INVALID_ARGUMENT", "etcdserver: too many operations in txn request")
DUPLICATE_KEY = StoreError("INVALID_ARGUMENT", "etcdserver: duplicate key given in txn request")
INVALID_SORT = StoreError("INVALID_ARGUMENT", "etcdserver: invalid sort option")
TOO_LARGE = StoreError("INVALID_ARGUMENT", "etcdserver: request is too large")
COMPACTED = StoreError("OUT_OF_RANGE", "etcdserver: mvcc: required revision has been compacted")
FUTURE_REVISION = StoreError("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision")
LEASE_NOT_FOUND = StoreError("NOT_FOUND", "etcdserver: requested lease not found")
LEASE_EXISTS = StoreError("FAILED_PRECONDITION", "etcdserver: lease already exists")
TTL_TOO_LARGE = StoreError("OUT_OF_RANGE", "etcdserver: too large lease TTL")
NO_LEADER = StoreError("UNAVAILABLE", "etcdserver: no leader")
TIMED_OUT = StoreError("UNAVAILABLE", "etcdserver: request timed out")
NO_SPACE = StoreError("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded")
# What no version can do, and clients are not let propose. A command of another version ends the member instead.
UNREADABLE_COMMAND = StoreError("INTERNAL", "kybern-store: the log holds a command that cannot be read")
# The store keeps a client's outcomes until the client has seen them; this number was said to have been seen.
OUTCOME_FORGOTTEN = StoreError("FAILED_PRECONDITION", "kybern-store: the outcome of this call is no longer kept")
