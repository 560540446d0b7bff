"""Hands changes to watchers: in order, without gaps, and without ever waiting for one.

A watcher that keeps up is 'synced': each batch of changes is sorted once, and matching ones are put on its list. One
that starts in the past, or lets its list grow too long, is not: it reads the store's history at its own pace until it
has caught up. What it needs may be compacted meanwhile; then it is told so.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from store.mvcc.keyspace import KeySpace
from store.mvcc.records import NO_BOUND, Record
from store.watch.events import Pair

_K = TypeVar("_K")

# References to changes that a watcher may have waiting before it must read the history instead.
MAX_PENDING = 4096
# How many changes are taken at once, or looked through.
CHUNK = 1000


@dataclass(slots=True, eq=False)
class Watcher:
    """One watch: what it wants and how far it is. `end` follows etcd's conventions (empty: the key alone)."""

    id: int
    start: bytes
    end: bytes
    # Called whenever there may be something to take.
    wake: Callable[[Watcher], None]
    # The first revision that has not been taken, or looked through, for this watcher, and how many changes of it have.
    next_revision: int = 0
    passed: int = 0
    no_put: bool = False
    no_delete: bool = False
    progress: bool = False
    synced: bool = False
    pending: list[Pair] = field(default_factory=list)

    def wants(self, key: bytes, deleted: bool) -> bool:
        """Whether a change of a key is for this watcher."""
        if not self.wants_kind(deleted):
            return False
        if not self.end:
            return key == self.start
        return self.start <= key and (self.end == NO_BOUND or key < self.end)

    def wants_kind(self, deleted: bool) -> bool:
        """Whether the filters let a put or a deletion through."""
        return not (self.no_delete if deleted else self.no_put)

    @property
    def idle(self) -> bool:
        """Whether everything that the hub has handed out was taken."""
        return self.synced and not self.pending


@dataclass(frozen=True, slots=True)
class Taken:
    """Changes for one watcher; it has seen all that it wants up to `revision`. `compacted`: it can have no more.

    Unless they are `whole`, there are more changes of that revision.
    """

    pairs: Sequence[Pair]
    revision: int
    compacted: int = 0
    whole: bool = True


class WatchHub:
    """All watchers of this member. `revision` is how far changes have been handed out."""

    def __init__(self, keys: KeySpace) -> None:
        self._keys = keys
        self.revision = keys.revision
        # Synced watchers by what they watch.
        self._single: dict[bytes, dict[Watcher, None]] = {}
        self._ranges: dict[tuple[bytes, bytes], dict[Watcher, None]] = {}
        self._all: dict[Watcher, None] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, watcher: Watcher) -> None:
        """Begin a watch at `next_revision`; 0: at the next change, less: at the first of all."""
        self._all[watcher] = None
        watcher.next_revision = max(1, watcher.next_revision) if watcher.next_revision else self.revision + 1
        if watcher.next_revision > self.revision:
            self._join(watcher)
        else:
            watcher.wake(watcher)

    def remove(self, watcher: Watcher) -> None:
        """End a watch."""
        self._all.pop(watcher, None)
        self._leave(watcher)
        watcher.pending.clear()

    def caught_up(self) -> None:
        """Hand out what was applied since the last time."""
        last = self._keys.revision
        if last <= self.revision:
            return
        before, self.revision = self.revision, last
        if not self._single and not self._ranges:
            return
        records = self._keys.log.between(before + 1, last, limit=len(self._keys.log))
        if len(records) > MAX_PENDING:
            records = self._few(records, before)
        pairs: list[Pair] = [(record, record.replaced) for record in records]
        if self._single:
            for pair in pairs:
                for watcher in tuple(self._single.get(pair[0].key, ())):
                    self._push(watcher, (pair,))
        if self._ranges:
            self._push_ranges(pairs)

    def reloaded(self) -> None:
        """The key space was replaced by a later state: what is kept of the changes in between is read as history."""
        before, self.revision = self.revision, self._keys.revision
        for watcher in tuple(self._all):
            if watcher.synced:
                self._fall_back(watcher, before)
            elif watcher.next_revision > self.revision:
                self._join(watcher)
            else:
                # When what it needs was compacted, that is what it is told when it takes.
                watcher.wake(watcher)

    def take(self, watcher: Watcher) -> Taken:
        """The next changes for a watcher; none when there are none now or this stretch of history held none for it."""
        if watcher.synced:
            return self._take_pending(watcher)
        if watcher.next_revision < self._keys.compacted:
            return Taken((), self.revision, self._keys.compacted)
        if not watcher.end and not watcher.passed:
            changes = self._keys.changes(watcher.start, watcher.next_revision, self.revision, limit=CHUNK)
            if changes is not None:
                watcher.next_revision = self.revision + 1
                self._join(watcher)
                return Taken([(r, r.replaced) for r in changes if watcher.wants_kind(r.deleted)], self.revision)
        log = self._keys.log
        end = log.position(self.revision + 1)
        first = min(log.position(watcher.next_revision) + watcher.passed, end)
        records = log.portion(first, min(end, first + CHUNK))
        pairs = [(r, r.replaced) for r in records if watcher.wants(r.key, r.deleted)]
        if first + len(records) == end:
            watcher.next_revision, watcher.passed = self.revision + 1, 0
            self._join(watcher)
            return Taken(pairs, self.revision)
        seen, after = records[-1].mod, first + len(records)
        whole = log.portion(after, after + 1)[0].mod != seen
        watcher.next_revision, watcher.passed = (seen + 1, 0) if whole else (seen, after - log.position(seen))
        return Taken(pairs, seen, whole=whole)

    # --- within

    def _few(self, records: Sequence[Record], before: int) -> Sequence[Record]:
        """Of very many changes after the revision `before` those for watchers that want few of them.

        The others read them as history, at their own pace: to hand them out here would hold up everybody.
        """
        keys = sorted([record.key for record in records])
        wanted: set[bytes] = set()
        for (start, end), watchers in tuple(self._ranges.items()):
            first = bisect_left(keys, start)
            last = len(keys) if end == NO_BOUND else bisect_left(keys, end)
            if last - first <= MAX_PENDING:
                wanted.update(keys[first:last])
                continue
            for watcher in tuple(watchers):
                self._fall_back(watcher, before)
        return [record for record in records if record.key in wanted or record.key in self._single]

    def _fall_back(self, watcher: Watcher, before: int) -> None:
        """Let a synced watcher, that was handed out all up to the revision `before`, read what it needs as history."""
        first = watcher.pending[0][0].mod if watcher.pending else max(before + 1, watcher.next_revision)
        self._leave(watcher)
        watcher.pending.clear()
        watcher.next_revision, watcher.passed = first, 0
        if first > self.revision:
            self._join(watcher)
        else:
            watcher.wake(watcher)

    def _take_pending(self, watcher: Watcher) -> Taken:
        pending = watcher.pending
        end = len(pending)
        if end > CHUNK:
            end = CHUNK
            while end < len(pending) and pending[end][0].mod == pending[end - 1][0].mod:
                end += 1
        pairs = pending[:end]
        del pending[:end]
        return Taken(pairs, pairs[-1][0].mod if pending else self.revision)

    def _join(self, watcher: Watcher) -> None:
        watcher.synced = True
        if watcher.end:
            self._ranges.setdefault((watcher.start, watcher.end), {})[watcher] = None
        else:
            self._single.setdefault(watcher.start, {})[watcher] = None

    def _leave(self, watcher: Watcher) -> None:
        watcher.synced = False
        if watcher.end:
            _discard(self._ranges, (watcher.start, watcher.end), watcher)
        else:
            _discard(self._single, watcher.start, watcher)

    def _push_ranges(self, pairs: list[Pair]) -> None:
        order = sorted(range(len(pairs)), key=lambda i: pairs[i][0].key)
        keys = [pairs[i][0].key for i in order]
        for (start, end), watchers in tuple(self._ranges.items()):
            first = bisect_left(keys, start)
            last = len(keys) if end == NO_BOUND else bisect_left(keys, end)
            if first >= last:
                continue
            # The usual case, a watch of everything, needs no selection.
            matching = pairs if last - first == len(pairs) else [pairs[i] for i in sorted(order[first:last])]
            for watcher in tuple(watchers):
                self._push(watcher, matching)

    def _push(self, watcher: Watcher, pairs: Sequence[Pair]) -> None:
        if watcher.no_put or watcher.no_delete or pairs[0][0].mod < watcher.next_revision:
            pairs = [p for p in pairs if p[0].mod >= watcher.next_revision and watcher.wants_kind(p[0].deleted)]
            if not pairs:
                return
        watcher.pending.extend(pairs)
        if len(watcher.pending) > MAX_PENDING:
            self._fall_back(watcher, self.revision)
        else:
            watcher.wake(watcher)


def _discard(groups: dict[_K, dict[Watcher, None]], name: _K, watcher: Watcher) -> None:
    group = groups.get(name)
    if group is not None:
        group.pop(watcher, None)
        if not group:
            del groups[name]
