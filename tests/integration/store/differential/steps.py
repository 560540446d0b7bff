"""Random requests, few keys and many corners, and making those that show a difference smaller.

A revision between 1 and 999 in a request counts from the sequence's beginning, where `ORIGIN` is the revision that was
compacted last; so a sequence can be played at any time, and parts of one mean the same as in the whole.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from kybern.pb.etcd import kv_pb2, lease_pb2, maintenance_pb2, watch_pb2
from store.mvcc.errors import DUPLICATE_KEY
from store.mvcc.txn import check_txn

ORIGIN = 10
_RELATIVE = 1000
_REVISIONS = {
    "revision",
    "start_revision",
    "min_mod_revision",
    "max_mod_revision",
    "min_create_revision",
    "max_create_revision",
    "create_revision",
    "mod_revision",
}
_MAX = 2**63 - 1

KEYS = [b"\0", b"\0\0", b"a", b"a\0", b"aa", b"ab", b"b", b"b\xff", b"c", b"\xff", b"\xff\xff"]
# After all keys.
_BEYOND = b"\xff\xff\xff"
_ENDS = [b"", b"", b"\0", b"\0", b"a", b"a\0", b"b", b"c", b"d", b"\xff", _BEYOND, b"\0\0"]
_VALUES = [b"", b"1", b"2", b"\0", b"1\0", b"\xff"]
# Leases that are granted under these numbers have a long time; those under numbers of the store's are never used.
LEASES = [1, 2, -7, _MAX]
_UNKNOWN_LEASE = 99
_MOST_OPS = 128
_READ = kv_pb2.RequestOp(request_range=kv_pb2.RangeRequest(key=b"a"))

T = TypeVar("T")
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Step:
    """A request, and on which stream when it is one for a watch stream."""

    request: Message
    stream: int = 0

    def __str__(self) -> str:
        where = f" on stream {self.stream}" if isinstance(self.request, watch_pb2.WatchRequest) else ""
        return f"{type(self.request).__name__}{where}: {' '.join(str(self.request).split())}"


# --- revisions


def resolved(request: M, base: int) -> M:
    """The request with the revisions that it has when the sequence begins at revision `base`."""
    copy = _copy(request)
    _resolve(copy, base)
    return copy


def _resolve(message: Message, base: int) -> None:
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                _resolve(part, base)
        elif field.name in _REVISIONS and 0 < value < _RELATIVE:
            setattr(message, field.name, base + value - ORIGIN)


# --- making them


class Maker:
    """Makes sequences out of one seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def sequence(self) -> list[Step]:
        """The next sequence; three of ten have watches, which take longer."""
        rnd = self._random
        watches = self._some(0.3)
        steps: list[Step] = []
        if self._some(0.4):
            steps += [Step(lease_pb2.LeaseGrantRequest(ID=lease, TTL=600)) for lease in LEASES[:2]]
        if self._some(0.5):
            steps.append(Step(self._many_puts()))
        return steps + [self._step(watches) for _ in range(rnd.randint(1, 30))]

    def _step(self, watches: bool) -> Step:
        rnd = self._random
        if watches and rnd.random() < 0.3:
            return self._watch()
        make = rnd.choices(
            (self._put, self._delete, self._range, self._txn, self._compact, self._lease, self._hash),
            (30, 12, 25, 30, 4, 12, 2),
        )[0]
        request = make()
        if isinstance(request, kv_pb2.TxnRequest) and check_txn(request) is DUPLICATE_KEY:
            _make_plain(request)
        return Step(request)

    def _often(self, chance: float, usual: T, other: Callable[[], T]) -> T:
        return usual if self._random.random() < chance else other()

    def _some(self, chance: float) -> bool:
        return self._random.random() < chance

    def _key(self) -> bytes:
        return self._often(0.02, b"", lambda: self._random.choice(KEYS))

    def _end(self) -> bytes:
        return self._random.choice(_ENDS)

    def _revision(self) -> int:
        rnd = self._random
        past, recent = rnd.randint(1, ORIGIN), rnd.randint(ORIGIN, ORIGIN + 15)
        return rnd.choices((0, past, recent, 500, _MAX, -3), (4, 1, 8, 1, 1, 1))[0]

    def _lease_id(self) -> int:
        return self._random.choice([*LEASES, *LEASES[:2], *LEASES[:2], _UNKNOWN_LEASE])

    def _put(self) -> kv_pb2.PutRequest:
        ignore_value, ignore_lease = self._some(0.1), self._some(0.1)
        return kv_pb2.PutRequest(
            key=self._key(),
            value=b"" if ignore_value and self._some(0.8) else self._random.choice(_VALUES),
            lease=0 if ignore_lease and self._some(0.8) else self._often(0.6, 0, self._lease_id),
            prev_kv=self._some(0.3),
            ignore_value=ignore_value,
            ignore_lease=ignore_lease,
        )

    def _delete(self) -> kv_pb2.DeleteRangeRequest:
        # Mostly of one key: otherwise there would hardly be any.
        return kv_pb2.DeleteRangeRequest(
            key=self._key(), range_end=self._often(0.6, b"", self._end), prev_kv=self._some(0.5)
        )

    def _many_puts(self) -> kv_pb2.TxnRequest:
        rnd = self._random
        puts = [kv_pb2.PutRequest(key=key, value=rnd.choice(_VALUES)) for key in rnd.sample(KEYS, rnd.randint(2, 8))]
        return kv_pb2.TxnRequest(success=[kv_pb2.RequestOp(request_put=put) for put in puts])

    def _range(self) -> kv_pb2.RangeRequest:
        rnd = self._random
        request = kv_pb2.RangeRequest(
            key=self._key(),
            range_end=self._end(),
            revision=self._often(0.6, 0, self._revision),
            limit=self._often(0.7, 0, lambda: rnd.choice([1, 2, 3, 100, -1, _MAX])),
            serializable=self._some(0.3),
            keys_only=self._some(0.2),
            count_only=self._some(0.15),
        )
        if self._some(0.4):
            request.sort_order = rnd.choice([0, 1, 2])  # type: ignore[assignment]
            request.sort_target = rnd.choice([0, 1, 2, 3, 4])  # type: ignore[assignment]
            if not request.sort_order:
                # A known difference: etcd cuts first, and then orders what is left.
                request.limit = 0
        if self._some(0.25):
            for name in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"):
                setattr(request, name, self._often(0.5, 0, self._revision))
        return request

    def _compact(self) -> kv_pb2.CompactionRequest:
        return kv_pb2.CompactionRequest(revision=self._revision(), physical=self._some(0.3))

    def _hash(self) -> maintenance_pb2.HashKVRequest:
        return maintenance_pb2.HashKVRequest(revision=self._revision())

    # --- transactions

    def _txn(self, depth: int = 0) -> kv_pb2.TxnRequest:
        rnd = self._random
        request = kv_pb2.TxnRequest(
            compare=[self._compare() for _ in range(rnd.choice([0, 1, 1, 1, 2, 3]))],
            success=[self._op(depth) for _ in range(rnd.choice([0, 1, 1, 2, 3, 4]))],
            failure=[self._op(depth) for _ in range(rnd.choice([0, 0, 1, 2, 3]))],
        )
        if self._some(0.02):
            most = _MOST_OPS + rnd.randint(-depth - 2, 1)
            branch = rnd.choice([request.success, request.failure])
            branch.extend([_READ] * (most - len(branch)))
        if self._some(0.01):
            compare = kv_pb2.Compare(key=b"a", result=kv_pb2.Compare.LESS, version=99)
            request.compare.extend([compare] * (_MOST_OPS + rnd.randint(0, 1) - len(request.compare)))
        return request

    def _op(self, depth: int) -> kv_pb2.RequestOp:
        match self._random.choices(("put", "delete", "range", "txn", ""), (45, 15, 25, 15 if depth < 3 else 0, 0.5))[0]:
            case "put":
                return kv_pb2.RequestOp(request_put=self._put())
            case "delete":
                return kv_pb2.RequestOp(request_delete_range=self._delete())
            case "range":
                return kv_pb2.RequestOp(request_range=self._range())
            case "txn":
                return kv_pb2.RequestOp(request_txn=self._txn(depth + 1))
        return kv_pb2.RequestOp()

    def _compare(self) -> kv_pb2.Compare:
        rnd = self._random
        request = kv_pb2.Compare(
            key=self._key(),
            range_end=self._often(0.5, b"", self._end),
            result=rnd.choice([0, 1, 2, 3]),  # type: ignore[arg-type]
            target=rnd.choice([0, 1, 2, 3, 4]),  # type: ignore[arg-type]
        )
        # Now and then of another kind than the target, or of none.
        kind: int = request.target if self._some(0.95) else rnd.randint(0, 5)
        match kind:
            case 0:
                request.version = rnd.randint(0, 3)
            case 1:
                request.create_revision = self._often(0.3, 0, self._revision)
            case 2:
                request.mod_revision = self._often(0.3, 0, self._revision)
            case 3:
                request.value = rnd.choice(_VALUES)
            case 4:
                request.lease = self._often(0.5, 0, self._lease_id)
        return request

    # --- leases

    def _lease(self) -> Message:
        rnd = self._random
        match rnd.choices(("grant", "short", "revoke", "live", "list", "keep"), (50, 6, 20, 20, 5, 10))[0]:
            case "grant":
                return lease_pb2.LeaseGrantRequest(
                    ID=rnd.choice(LEASES), TTL=rnd.choice([600, 600, 3600, 9_000_000_000, 9_000_000_001, _MAX])
                )
            case "short":
                return lease_pb2.LeaseGrantRequest(TTL=rnd.choice([0, -1, 1, 2, -(2**63), 9_000_000_001]))
            case "revoke":
                return lease_pb2.LeaseRevokeRequest(ID=self._often(0.9, self._lease_id(), lambda: 0))
            case "live":
                return lease_pb2.LeaseTimeToLiveRequest(
                    ID=self._often(0.9, self._lease_id(), lambda: 0), keys=self._some(0.8)
                )
            case "list":
                return lease_pb2.LeaseLeasesRequest()
        return lease_pb2.LeaseKeepAliveRequest(ID=self._lease_id())

    # --- watches

    def _watch(self) -> Step:
        rnd = self._random
        stream = rnd.choice([0, 0, 1])
        match rnd.choices(("create", "cancel", "progress", ""), (70, 20, 10, 2))[0]:
            case "create":
                request = watch_pb2.WatchRequest(create_request=self._create())
            case "cancel":
                request = watch_pb2.WatchRequest(
                    cancel_request=watch_pb2.WatchCancelRequest(watch_id=rnd.choice([0, 1, 2, 5, -1, 77]))
                )
            case "progress":
                request = watch_pb2.WatchRequest(progress_request=watch_pb2.WatchProgressRequest())
            case _:
                request = watch_pb2.WatchRequest()
        return Step(request, stream)

    def _create(self) -> watch_pb2.WatchCreateRequest:
        rnd = self._random
        return watch_pb2.WatchCreateRequest(
            key=self._key(),
            range_end=self._end(),
            start_revision=self._often(0.5, 0, self._revision),
            progress_notify=self._some(0.2),
            filters=rnd.choice([[], [], [], [0], [1], [0, 1], [1, 1], [7]]),  # type: ignore[arg-type]
            prev_kv=self._some(0.5),
            watch_id=self._often(0.7, 0, lambda: rnd.choice([1, 2, 5, -1, -2, _MAX])),
            fragment=self._some(0.3),
        )


def _make_plain(request: kv_pb2.TxnRequest) -> None:
    """Leave nothing of a transaction that sets a key twice, or sets and deletes it, what etcd overlooks.

    Those are deletions without an end, and a key that one transaction within sets and a later one deletes.
    """
    for branch in (request.success, request.failure):
        within = 0
        for at in reversed(range(len(branch))):
            op = branch[at]
            if op.request_delete_range.range_end == b"\0":
                op.request_delete_range.range_end = _BEYOND
            if op.HasField("request_txn"):
                within += 1
                _make_plain(op.request_txn)
                if within > 1:
                    del branch[at]


# --- making them smaller


Show = Callable[[list[Step]], Awaitable[bool]]


async def smallest(steps: list[Step], shows: Show) -> list[Step]:
    """The smallest sequence that could be made of one by leaving things out, so that it still `shows` the same."""
    size = len(steps)
    while size := size // 2:
        at = 0
        while at < len(steps):
            fewer = steps[:at] + steps[at + size :]
            if await shows(fewer):
                steps = fewer
            else:
                at += size
    for at in range(len(steps)):
        simpler = True
        while simpler:
            simpler = False
            for request in _simpler(steps[at].request):
                changed = [*steps[:at], Step(request, steps[at].stream), *steps[at + 1 :]]
                if await shows(changed):
                    steps, simpler = changed, True
                    break
    return steps


def _simpler(message: Message) -> Iterator[Message]:
    """The message without one of its fields, without some items of a field, or with something simpler in one."""
    for field, value in message.ListFields():
        name = field.name
        if field.is_repeated:
            size = len(value)
            while size:
                for at in range(0, len(value), size):
                    copy = _copy(message)
                    del getattr(copy, name)[at : at + size]
                    yield copy
                size //= 2
        elif field.containing_oneof is None:
            # A request without its kind would say nothing.
            copy = _copy(message)
            copy.ClearField(name)
            yield copy
        if field.message_type is None:
            continue
        for at, held in enumerate(value if field.is_repeated else [value]):
            for part in _simpler(held):
                copy = _copy(message)
                changed = getattr(copy, name)
                (changed[at] if field.is_repeated else changed).CopyFrom(part)
                yield copy


def _copy(message: M) -> M:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
