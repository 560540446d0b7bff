"""Answers to reads of ranges; those of very many keys are found and encoded in slices."""

from __future__ import annotations

from kybern.pb.etcd import kv_pb2
from store.mvcc.errors import StoreError
from store.mvcc.outcomes import RangeOutcome
from store.mvcc.ranges import may_be_large
from store.mvcc.walks import Walk, read_range
from store.server.convert import encode_range, encode_records, range_head
from store.server.core import Core
from store.server.turns import sliced

# Keys that are looked at and encoded in one go: about two milliseconds.
_AT_ONCE = 1024
# Records that are encoded between two looks at the clock; with values of a megabyte that is long enough.
_PORTION = 32


async def find(core: Core, request: kv_pb2.RangeRequest) -> RangeOutcome | StoreError:
    """Read keys as they are on this member, all of one moment."""
    keys = core.machine.keys
    if may_be_large(keys, request, _AT_ONCE):
        return await core.turns.run(lambda: read_range(keys, request))
    return core.machine.range(request)


async def encode(core: Core, outcome: RangeOutcome, header: kv_pb2.ResponseHeader | None = None) -> bytes:
    """A `RangeResponse`, encoded."""
    if len(outcome.records) <= _PORTION:
        return encode_range(outcome, header)
    if len(outcome.records) <= _AT_ONCE:
        return await sliced(_encode(outcome, header))
    return await core.turns.run(lambda: _encode(outcome, header))


def _encode(outcome: RangeOutcome, header: kv_pb2.ResponseHeader | None) -> Walk[bytes]:
    parts = [range_head(outcome, header)]
    records = outcome.records
    for at in range(0, len(records), _PORTION):
        parts.append(encode_records(records[at : at + _PORTION], keys_only=outcome.keys_only))
        yield
    return b"".join(parts)
