"""Plays a sequence to two stores side by side, and finds where their answers part."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from google.protobuf.message import Message

from kybern.pb.etcd import kv_pb2, lease_pb2, maintenance_pb2, mvcc_pb2, watch_pb2
from tests.integration.store.differential.side import PATIENCE, Outcome, Side, Watch, revision_alone
from tests.integration.store.differential.steps import LEASES, ORIGIN, Step, resolved, smallest

# A watch that begins later than this many revisions from now is not waited for.
_NEAR = 60
# Seconds that the search for the smallest sequence may take, and how long it is waited then for what is to come.
_SEARCH = 120.0
_IMPATIENT = 1.0


class Difference(Exception):  # noqa: N818 - what is looked for, not a mistake
    """The stores do not answer alike."""


@dataclass(slots=True, eq=False)
class _Open:
    """A watch that both stores have."""

    stream: int
    id: int
    request: watch_pb2.WatchCreateRequest
    # What it is told, on either side.
    told: tuple[Watch, Watch]
    # The revision that was compacted when it was made, and up to which its events have been compared.
    compacted: int
    compared: int = 0

    @property
    def start(self) -> bytes:
        return self.request.key or b"\0"

    def events(self, told: Watch, last: int) -> list[mvcc_pb2.Event]:
        """Those that are to be compared up to a revision; what was done since may be there already, or not."""
        return [
            event
            for event in told.events
            if self.compared < event.kv.mod_revision <= last
            # A known difference: etcd forgets deletions of the compacted revision, some time.
            and (event.kv.mod_revision, event.type) != (self.compacted, mvcc_pb2.Event.DELETE)
        ]


class Player:
    """Two stores that have been asked the same so far."""

    def __init__(self, ours: Side, etcd: Side) -> None:
        self._sides = (ours, etcd)
        self._revision = 0
        self._compacted = 0
        self._open: dict[tuple[int, int], _Open] = {}

    async def find(self, steps: list[Step]) -> str | None:
        """Play a sequence; where the stores differ, the smallest sequence that was found to show it, as text."""
        difference = await self._difference(steps)
        if difference is None:
            return None
        for side in self._sides:
            # What does not come is what is looked for; a mistake here only makes another sequence the smallest.
            side.patience = _IMPATIENT
        end = time.monotonic() + _SEARCH

        async def shows(fewer: list[Step]) -> bool:
            nonlocal difference
            found = await self._difference(fewer) if time.monotonic() < end else None
            difference = found or difference
            return found is not None

        steps = await smallest(steps, shows)
        for side in self._sides:
            side.patience = PATIENCE
        return "\n".join(["played:", *(f"  {step}" for step in steps), difference])

    async def _difference(self, steps: list[Step]) -> str | None:
        try:
            await self._play(steps)
        except Difference as error:
            return str(error)
        return None

    async def _play(self, steps: list[Step]) -> None:
        base = await self._begin()
        try:
            for step in steps:
                request = resolved(step.request, base)
                if isinstance(request, watch_pb2.WatchRequest):
                    await self._watch(step.stream, request)
                    continue
                if isinstance(request, maintenance_pb2.HashKVRequest) and request.revision == self._compacted:
                    # Refused by etcd 3.4, answered by later ones.
                    continue
                if isinstance(request, kv_pb2.CompactionRequest):
                    # A watch that is late would miss what is compacted, or not: that is a matter of time.
                    await self._settle(list(self._open.values()))
                await self._both(request)
            await self._settle(list(self._open.values()))
            await self._whole()
        finally:
            self._open.clear()
            unasked = [await side.close_streams() for side in self._sides]
        if unasked[0] != unasked[1]:
            raise _differs("answers on streams that nobody waits for", unasked[0], unasked[1])

    async def _begin(self) -> int:
        """Have both stores without keys and leases, at the same revision, and all history compacted; the revision."""
        heads = [await _empty(side) for side in self._sides]
        target = max(*heads, 2 * ORIGIN) + 2
        for side, head in zip(self._sides, heads, strict=True):
            for _ in range(target - head - 1):
                await side.call(kv_pb2.PutRequest(key=b"begin"))
            await side.call(kv_pb2.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
        both = [await side.call(kv_pb2.CompactionRequest(revision=target)) for side in self._sides]
        for side, outcome in zip(self._sides, both, strict=True):
            assert isinstance(outcome, kv_pb2.CompactionResponse), f"{side.name}: {outcome}"
            assert outcome.header.revision == target, side.name
        self._revision = self._compacted = target
        return target

    # --- calls

    async def _both(self, request: Message) -> Outcome:
        ours, etcd = await asyncio.gather(*(side.call(request) for side in self._sides))
        if ours != etcd:
            raise _differs(request, ours, etcd)
        if isinstance(ours, Message):
            self._revision = ours.header.revision  # type: ignore[attr-defined]
            if isinstance(request, kv_pb2.CompactionRequest):
                self._compacted = max(request.revision, self._compacted)
        return ours

    async def _whole(self) -> None:
        """All keys as of all revisions, and all leases."""
        for revision in range(self._compacted, self._revision + 1):
            await self._both(kv_pb2.RangeRequest(key=b"\0", range_end=b"\0", revision=revision))
        await self._both(lease_pb2.LeaseLeasesRequest())
        for lease in LEASES:
            await self._both(lease_pb2.LeaseTimeToLiveRequest(ID=lease, keys=True))

    # --- watches

    async def _watch(self, stream: int, request: watch_pb2.WatchRequest) -> None:
        match request.WhichOneof("request_union"):
            case "create_request":
                await self._create(stream, request)
            case "cancel_request":
                held = self._open.get((stream, request.cancel_request.watch_id))
                if held is not None:
                    # What is on its way to a watch that ends may be lost.
                    await self._settle([held])
                    del self._open[stream, held.id]
                    await self._asked(stream, request)
                else:
                    await self._ask(stream, request)
            case "progress_request":
                await self._asked(stream, request)
            case _:
                await self._ask(stream, request)

    async def _ask(self, stream: int, request: watch_pb2.WatchRequest) -> None:
        for side in self._sides:
            await side.stream(stream).send(request)

    async def _asked(self, stream: int, request: watch_pb2.WatchRequest) -> watch_pb2.WatchResponse | None:
        await self._ask(stream, request)
        ours, etcd = await asyncio.gather(*(side.stream(stream).answer() for side in self._sides))
        for answer in (ours, etcd):
            if answer is not None:
                revision_alone(answer)
        if ours != etcd:
            raise _differs(request, ours, etcd)
        return ours

    async def _create(self, stream: int, request: watch_pb2.WatchRequest) -> None:
        answer = await self._asked(stream, request)
        if answer is None or answer.canceled:
            return
        create = request.create_request
        number = answer.watch_id
        told = [side.stream(stream).watch(number) for side in self._sides]
        if create.start_revision and create.start_revision < self._compacted:
            ends = await asyncio.gather(
                *(side.stream(stream).ended(watch) for side, watch in zip(self._sides, told, strict=True))
            )
            for end in ends:
                if end is not None:
                    # etcd gives neither, we do.
                    end.ClearField("header")
                    end.ClearField("cancel_reason")
            if ends[0] != ends[1]:
                raise _differs(f"the end of {request}", *ends)
            # A known difference: etcd still knows the watch, until the client cancels it too.
            cancel = watch_pb2.WatchCancelRequest(watch_id=number)
            await self._ask(stream, watch_pb2.WatchRequest(cancel_request=cancel))
            await self._sides[1].stream(stream).answer()
            return
        self._open[stream, number] = _Open(stream, number, create, (told[0], told[1]), self._compacted)

    async def _settle(self, watches: list[_Open]) -> None:
        """Make a change that each of the watches must be told, and compare all that it was told until then."""
        marks = {watch: await self._mark(watch) for watch in watches}
        for watch, mark in marks.items():
            if mark is None:
                continue
            seen = await asyncio.gather(
                *(
                    side.stream(watch.stream).told(told, mark)
                    for side, told in zip(self._sides, watch.told, strict=True)
                )
            )
            ours, etcd = (watch.events(told, mark) for told in watch.told)
            if seen != [True, True] or ours != etcd:
                raise _differs(f"events for {watch.request}", ours, etcd)
            watch.compared = mark

    async def _mark(self, watch: _Open) -> int | None:
        """The revision of a change that the watch must be told of; None when there can be none for it."""
        filters = set(watch.request.filters)
        begin = watch.request.start_revision
        if len(filters) > 1 or begin > self._revision + _NEAR:
            return None
        while True:
            await self._both(kv_pb2.PutRequest(key=watch.start))
            if watch_pb2.WatchCreateRequest.NOPUT in filters:
                await self._both(kv_pb2.DeleteRangeRequest(key=watch.start))
            if self._revision >= begin:
                return self._revision


async def _empty(side: Side) -> int:
    """Take out all keys and leases of a store; its revision."""
    for lease in LEASES:
        await side.call(lease_pb2.LeaseRevokeRequest(ID=lease))
    outcome = await side.call(kv_pb2.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
    assert isinstance(outcome, kv_pb2.DeleteRangeResponse), f"{side.name}: {outcome}"
    return outcome.header.revision


def _differs(what: object, ours: object, etcd: object) -> Difference:
    return Difference(f"differs: {_text(what)}\n  ours: {_text(ours)}\n  etcd: {_text(etcd)}")


def _text(what: object) -> str:
    if isinstance(what, list):
        return "[" + "; ".join(map(_text, what)) + "]"
    name = f"{type(what).__name__} " if isinstance(what, Message) else ""
    return name + " ".join(str(what).split())
