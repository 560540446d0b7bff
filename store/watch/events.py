"""Changes as bytes on the wire, made once however many watchers they go to.

The concatenation of two encoded messages of one type is their merger: a response is its head followed by its encoded
events, so that events need not be made anew for every response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kybern.pb.etcd import mvcc_pb2, watch_pb2
from store.mvcc.records import Record

# A change and what the key was before. The pair is made when the change is handed out: compaction cuts the chain.
Pair = tuple[Record, Record | None]

_CACHED_BYTES = 4 * 1024 * 1024
# A message keeps the memory of all that it was ever filled with until it is freed itself (protobuf's arenas): after so
# many bytes another one takes its place.
_FILLED_BYTES = 256 * 1024


def key_value(record: Record) -> mvcc_pb2.KeyValue:
    """A record as a message."""
    message = mvcc_pb2.KeyValue()
    fill(message, record)
    return message


def fill(message: mvcc_pb2.KeyValue, record: Record) -> None:
    """Make a message that of a record, whatever it held.

    Who encodes many needs but one message, for a while: it keeps the memory of all that it was ever filled with.
    """
    message.key, message.value = record.key, record.value
    message.create_revision, message.mod_revision = record.create, record.mod
    message.version, message.lease = record.version, record.lease


class EventEncoder:
    """Encodes changes; remembers the latest, within bounds, since watchers of one range ask for the same ones."""

    def __init__(self) -> None:
        self._cache: dict[tuple[Record, bool], bytes] = {}
        self._bytes = 0
        # Filled in again and again: new ones cost three times as much.
        self._forms = _forms()
        self._filled = 0

    def encode(self, pair: Pair, *, with_previous: bool) -> bytes:
        """A `WatchResponse` that holds this change alone, for joining to others."""
        record, previous = pair
        name = (record, with_previous)
        found = self._cache.get(name)
        if found is not None:
            return found
        shown = previous if with_previous else None
        response, event = self._forms[record.deleted, shown is not None]
        fill(event.kv, record)
        if shown is not None:
            fill(event.prev_kv, shown)
        encoded = response.SerializeToString()
        self._filled += len(encoded)
        if self._filled > _FILLED_BYTES:
            self._forms = _forms()
            self._filled = 0
        if self._bytes + len(encoded) > _CACHED_BYTES:
            self._cache.clear()
            self._bytes = 0
        if len(encoded) <= _CACHED_BYTES // 16:
            self._cache[name] = encoded
            self._bytes += len(encoded)
        return encoded


def _forms() -> dict[tuple[bool, bool], tuple[watch_pb2.WatchResponse, mvcc_pb2.Event]]:
    """By whether a change is a deletion, and whether what was before is shown."""
    return {(deleted, previous): _form(deleted) for deleted in (False, True) for previous in (False, True)}


def _form(deleted: bool) -> tuple[watch_pb2.WatchResponse, mvcc_pb2.Event]:
    response = watch_pb2.WatchResponse()
    return response, response.events.add(type=mvcc_pb2.Event.DELETE if deleted else mvcc_pb2.Event.PUT)


@dataclass(frozen=True, slots=True)
class Part:
    """What one response holds: encoded events up to a revision, and whether more of that revision follows."""

    events: bytes
    revision: int
    fragment: bool


class Cutter:
    """Cuts one watcher's changes into responses of about `limit` bytes.

    Without `fragment` a revision is never split, however large it is: what there is of it is kept until it is whole.
    """

    def __init__(self, encoder: EventEncoder, *, with_previous: bool, fragment: bool, limit: int) -> None:
        self._encoder = encoder
        self._with_previous = with_previous
        self._fragment = fragment
        self._limit = limit
        # Of the next response: encoded events, their bytes, and the revision of the last one.
        self._events: list[bytes] = []
        self._size = 0
        self._last = 0

    def add(self, pairs: Sequence[Pair], *, whole: bool) -> list[Part]:
        """The responses that are complete with these changes; `whole`: no more of the last revision follow."""
        parts: list[Part] = []
        for pair in pairs:
            encoded = self._encoder.encode(pair, with_previous=self._with_previous)
            boundary = pair[0].mod != self._last
            if self._events and self._size + len(encoded) > self._limit and (boundary or self._fragment):
                parts.append(self._part(fragment=not boundary))
            self._events.append(encoded)
            self._size += len(encoded)
            self._last = pair[0].mod
        if whole and self._events:
            parts.append(self._part(fragment=False))
        return parts

    def _part(self, *, fragment: bool) -> Part:
        part = Part(b"".join(self._events), self._last, fragment)
        self._events, self._size = [], 0
        return part
