"""Reading a range with all of etcd's options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kybern.pb.etcd import kv_pb2
from store.mvcc.errors import COMPACTED, EMPTY_KEY, FUTURE_REVISION, INVALID_SORT, StoreError
from store.mvcc.keyspace import KeySpace
from store.mvcc.outcomes import RangeOutcome
from store.mvcc.records import Record

_Request = kv_pb2.RangeRequest

_SORT_KEYS: dict[int, Callable[[Record], Any]] = {
    _Request.KEY: lambda r: r.key,
    _Request.VERSION: lambda r: r.version,
    _Request.CREATE: lambda r: r.create,
    _Request.MOD: lambda r: r.mod,
    _Request.VALUE: lambda r: r.value,
}


def check_range(request: _Request) -> StoreError | None:
    """What is wrong with a request by itself."""
    if not request.key:
        return EMPTY_KEY
    if request.sort_target not in _SORT_KEYS or request.sort_order not in (0, 1, 2):
        return INVALID_SORT
    return None


def check_revision(keys: KeySpace, revision: int) -> StoreError | None:
    """Whether a revision can be read; 0 or less is the present."""
    if revision > keys.revision:
        return FUTURE_REVISION
    if 0 < revision < keys.compacted:
        return COMPACTED
    return None


def read_range(keys: KeySpace, request: _Request, *, revision: int) -> RangeOutcome | StoreError:
    """Answer a request. `revision` is the present one: that of the transaction in which the request stands."""
    error = check_revision(keys, request.revision)
    if error is not None:
        return error
    if request.count_only and request.revision <= 0:
        return RangeOutcome(revision, (), False, keys.count(request.key, request.range_end), False)
    ordered, bounded = is_ordered(request), is_bounded(request)
    limit = max(0, request.limit)
    if request.revision > 0 and request.revision != revision:
        records = keys.find_at(request.key, request.range_end, request.revision)
        count = len(records)
    elif limit and not ordered and not bounded:
        # One more than asked for tells whether there are more.
        records = keys.find(request.key, request.range_end, limit=limit + 1)
        count = keys.count(request.key, request.range_end)
    else:
        records = keys.find(request.key, request.range_end)
        count = len(records)
    if request.count_only:
        return RangeOutcome(revision, (), False, count, False)
    if bounded:
        records = [r for r in records if is_within(r, request)]
    if ordered:
        records.sort(key=sort_key(request), reverse=request.sort_order == _Request.DESCEND)
    more = bool(limit) and len(records) > limit
    return RangeOutcome(revision, records[:limit] if more else records, more, count, request.keys_only)


def may_be_large(keys: KeySpace, request: _Request, most: int) -> bool:
    """Whether more than `most` keys have to be looked at, so that `store.mvcc.walks` should do it."""
    start, end = request.key, request.range_end
    past = 0 < request.revision != keys.revision
    if not end or (request.count_only and not past):
        return False
    if 0 < request.limit <= most and not (past or is_ordered(request) or is_bounded(request)):
        return False
    return keys.count(start, end, dead=past) > most


def is_ordered(request: _Request) -> bool:
    """Whether another order than that of the keys is asked for."""
    return request.sort_order != _Request.NONE or request.sort_target != _Request.KEY


def sort_key(request: _Request) -> Callable[[Record], Any]:
    """What records are ordered by; descending or not is `request.sort_order`."""
    return _SORT_KEYS[request.sort_target]


def is_bounded(request: _Request) -> bool:
    """Whether keys are left out by their revisions."""
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def is_within(record: Record, request: _Request) -> bool:
    """Whether a record has the revisions that are asked for."""
    return (
        record.mod >= request.min_mod_revision
        and (not request.max_mod_revision or record.mod <= request.max_mod_revision)
        and record.create >= request.min_create_revision
        and (not request.max_create_revision or record.create <= request.max_create_revision)
    )
