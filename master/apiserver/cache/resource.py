"""The objects of one resource in memory, its last changes, and who watches them. All on the loop, nothing awaits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import msgspec
from sortedcontainers import SortedDict

from kybern.api import errors
from kybern.api.resources import Resource
from kybern.client.store import prefix_end
from master.apiserver import keys
from master.apiserver.cache.selection import Selection
from master.apiserver.cache.watcher import CacheEvent, Watcher
from master.apiserver.entry import Entry

# Bounds of the changes that are kept for watches that resume: as many, and as many bytes, per resource.
RING_EVENTS = 10_000
RING_BYTES = 16 * 1024 * 1024


class _NodeSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class _OnNode(msgspec.Struct):
    spec: _NodeSpec = msgspec.field(default_factory=_NodeSpec)


_decode_on_node = msgspec.json.Decoder(_OnNode).decode


def _node_name(entry: Entry) -> str:
    return _decode_on_node(entry.raw).spec.node_name


# The field that many watchers select a part of the resource by, with a quick way to read it. Without it each of 5,000
# nodes would look at every change of every pod.
_INDEXED: dict[tuple[str, str], tuple[str, Callable[[Entry], str]]] = {
    ("", "Pod"): ("spec.nodeName", _node_name),
}


class ResourceCache:
    """One resource's part of the cache. `revision` is shared: the cacher tells it when it changes."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.prefix = keys.resource_prefix(resource)
        self.entries: SortedDict[bytes, Entry] = SortedDict()
        # Changes up to this revision cannot be replayed.
        self.floor = 0
        self._ring: deque[CacheEvent] = deque()
        self._ring_bytes = 0
        self._watchers: set[Watcher] = set()
        self._indexed = _INDEXED.get((resource.group, resource.kind))
        self._watchers_at: dict[str, set[Watcher]] = {}
        self._entries_at: dict[str, dict[bytes, Entry]] = {}

    # --- reading

    def get(self, namespace: str, name: str) -> Entry | None:
        """The object of that name."""
        return self.entries.get(keys.object_key(self.resource, namespace, name))

    def select(self, selection: Selection, after: bytes = b"") -> Iterator[Entry]:
        """The selected objects in the order of their keys, those behind the key `after` alone."""
        for entry in self._candidates(selection, after):
            if selection.everything or selection.matches(entry):
                yield entry

    def count(self, selection: Selection, after: bytes) -> int:
        """How many objects of the selection's namespace lie behind a key."""
        prefix = keys.namespace_prefix(self.resource, selection.namespace)
        return self.entries.bisect_left(prefix_end(prefix)) - self.entries.bisect_right(after)

    def at_index(self, value: str) -> Iterable[Entry]:
        """The objects whose indexed field (pods: spec.nodeName) has a value."""
        return self._entries_at.get(value, {}).values()

    def _candidates(self, selection: Selection, after: bytes) -> Iterator[Entry]:
        if self._indexed is not None:
            value = selection.exact(self._indexed[0])
            if value:
                found = sorted(self.at_index(value), key=lambda e: e.key)
                yield from (e for e in found if e.key > after)
                return
        prefix = keys.namespace_prefix(self.resource, selection.namespace)
        for key in self.entries.irange(max(prefix, after), prefix_end(prefix), (after < prefix, False)):
            yield self.entries[key]

    # --- watching

    def watch(self, selection: Selection, since: int, revision: int) -> Watcher:
        """Begin to watch; changes after `since` that are known already are there at once.

        Raises:
            StatusError: 410 when changes after `since` are no longer kept.
        """
        if since < self.floor:
            raise errors.expired(f"too old resource version: {since} ({self.floor})")
        watcher = Watcher(selection, since, revision)
        for event in self._since(since):
            watcher.offer(event)
        watched = self._watched_value(selection)
        if watched:
            self._watchers_at.setdefault(watched, set()).add(watcher)
        else:
            self._watchers.add(watcher)
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        """End a watch."""
        self._watchers.discard(watcher)
        watched = self._watched_value(watcher.selection)
        if watched and (there := self._watchers_at.get(watched)) is not None:
            there.discard(watcher)
            if not there:
                del self._watchers_at[watched]

    def watchers(self) -> Iterator[Watcher]:
        """Everyone who watches."""
        yield from self._watchers
        for there in self._watchers_at.values():
            yield from there

    def _watched_value(self, selection: Selection) -> str:
        return (selection.exact(self._indexed[0]) or "") if self._indexed is not None else ""

    def _since(self, since: int) -> Iterator[CacheEvent]:
        newer = 0
        for event in reversed(self._ring):
            if event.revision <= since:
                break
            newer += 1
        return islice(self._ring, len(self._ring) - newer, None)

    # --- keeping up

    def apply(self, key: bytes, new: Entry | None, revision: int) -> None:
        """Take in a change: the object after it, or None when it is gone."""
        old = self.entries.get(key)
        if new is None and old is None:
            return
        if new is None:
            del self.entries[key]
        else:
            self.entries[key] = new
        event = CacheEvent(revision, old, new)
        self._remember(event)
        touched = self._reindex(key, old, new)
        for watcher in self._watchers:
            watcher.offer(event)
        for value in touched:
            for watcher in self._watchers_at.get(value, ()):
                watcher.offer(event)

    def _reindex(self, key: bytes, old: Entry | None, new: Entry | None) -> set[str]:
        if self._indexed is None:
            return set()
        read = self._indexed[1]
        before, after = read(old) if old else "", read(new) if new else ""
        if before and before != after and (there := self._entries_at.get(before)) is not None:
            there.pop(key, None)
            if not there:
                del self._entries_at[before]
        if after and new is not None:
            self._entries_at.setdefault(after, {})[key] = new
        return {v for v in (before, after) if v}

    def _remember(self, event: CacheEvent) -> None:
        self._ring.append(event)
        self._ring_bytes += event.size
        while len(self._ring) > RING_EVENTS or self._ring_bytes > RING_BYTES:
            dropped = self._ring.popleft()
            self._ring_bytes -= dropped.size
            self.floor = dropped.revision

    def reset(self, entries: Iterable[Entry], revision: int) -> None:
        """Begin anew from a list; watches end, since nobody knows what happened in between."""
        for watcher in list(self.watchers()):
            watcher.end(errors.expired("the watch cache has been filled anew; list again"))
        self.entries = SortedDict((e.key, e) for e in entries)
        self._ring.clear()
        self._ring_bytes = 0
        self._entries_at.clear()
        self.floor = revision
        if self._indexed is not None:
            for entry in self.entries.values():
                self._reindex(entry.key, None, entry)
