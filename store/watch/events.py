"""Changes as bytes on the wire, made once however many watchers they go to.

The concatenation of two encoded messages of one type is their merger: a response is its head followed by its encoded
events, so that events need not be made anew for every response.
"""

from __future__ import annotations

from collections.abc import Sequence

from kybern.pb.etcd import mvcc_pb2, watch_pb2
from store.mvcc.records import Record

# A change and what the key was before. The pair is made when the change is handed out: compaction cuts the chain.
Pair = tuple[Record, Record | None]

_CACHED_BYTES = 4 * 1024 * 1024


def key_value(record: Record) -> mvcc_pb2.KeyValue:
    """A record as a message."""
    return mvcc_pb2.KeyValue(
        key=record.key,
        value=record.value,
        create_revision=record.create,
        mod_revision=record.mod,
        version=record.version,
        lease=record.lease,
    )


class EventEncoder:
    """Encodes changes; remembers the latest, within bounds, since watchers of one range ask for the same ones."""

    def __init__(self) -> None:
        self._cache: dict[tuple[Record, bool], bytes] = {}
        self._bytes = 0

    def encode(self, pair: Pair, *, with_previous: bool) -> bytes:
        """A `WatchResponse` that holds this change alone, for joining to others."""
        record, previous = pair
        name = (record, with_previous)
        found = self._cache.get(name)
        if found is not None:
            return found
        event = mvcc_pb2.Event(
            type=mvcc_pb2.Event.PUT if record.version else mvcc_pb2.Event.DELETE,
            kv=key_value(record),
            prev_kv=key_value(previous) if with_previous and previous is not None else None,
        )
        encoded = watch_pb2.WatchResponse(events=(event,)).SerializeToString()
        if self._bytes + len(encoded) > _CACHED_BYTES:
            self._cache.clear()
            self._bytes = 0
        if len(encoded) <= _CACHED_BYTES // 16:
            self._cache[name] = encoded
            self._bytes += len(encoded)
        return encoded


def split(
    encoder: EventEncoder, pairs: Sequence[Pair], *, with_previous: bool, fragment: bool, limit: int
) -> list[tuple[bytes, int, bool]]:
    """Cut changes into responses of about `limit` bytes: encoded events, last revision, whether a fragment follows.

    Without `fragment` a revision is never split, however large it is.
    """
    parts: list[tuple[bytes, int, bool]] = []
    chunk: list[bytes] = []
    size = 0
    last = 0
    for pair in pairs:
        encoded = encoder.encode(pair, with_previous=with_previous)
        boundary = pair[0].mod != last
        if chunk and size + len(encoded) > limit and (boundary or fragment):
            parts.append((b"".join(chunk), last, not boundary))
            chunk, size = [], 0
        chunk.append(encoded)
        size += len(encoded)
        last = pair[0].mod
    if chunk:
        parts.append((b"".join(chunk), last, False))
    return parts
