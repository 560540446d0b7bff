"""One watch of one client: the changes that wait for it, and what they look like through its selectors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from kybern.api.errors import StatusError, expired
from kybern.client.interface import EventType, WatchEvent
from master.apiserver.cache.selection import Selection
from master.apiserver.entry import Entry

# So many changes may wait for a client; one that is slower is told to list again rather than fill the memory.
MOST_WAITING = 20_000


@dataclass(slots=True)
class CacheEvent:
    """A change of one object: what it was (None: new) and what it is (None: gone)."""

    revision: int
    old: Entry | None
    new: Entry | None
    _gone: bytes = b""

    @property
    def size(self) -> int:
        """Bytes that it keeps in memory."""
        return len(self.new.raw) if self.new is not None else 200

    def gone(self) -> bytes:
        """The object as it last was, with this change's revision."""
        if not self._gone and self.old is not None:
            self._gone = self.old.at(self.revision)
        return self._gone


class Watcher:
    """Filled by the cache, read by one task."""

    def __init__(self, selection: Selection, since: int, revision: int) -> None:
        self.selection = selection
        self._since = since
        # Everything up to here has been offered.
        self._revision = revision
        self._waiting: list[CacheEvent] = []
        self._bookmark_due = False
        self._wake = asyncio.Event()
        self._ended: StatusError | None = None

    # --- the cache's side

    def offer(self, event: CacheEvent) -> None:
        """A change has happened."""
        if event.revision <= self._since or self._ended is not None:
            return
        namespace = self.selection.namespace
        if namespace and (event.new or event.old).namespace != namespace:  # type: ignore[union-attr]
            return
        self._waiting.append(event)
        if len(self._waiting) > MOST_WAITING:
            self.end(expired(f"the watch is too slow: more than {MOST_WAITING} changes wait for it; list again"))
        self._wake.set()

    def bookmark(self, revision: int) -> None:
        """Nothing that has not been offered happened up to `revision`, and it is time to say so."""
        self._revision = revision
        self._bookmark_due = True
        self._wake.set()

    def end(self, error: StatusError) -> None:
        """The watch cannot go on."""
        self._ended = error
        self._waiting.clear()
        self._wake.set()

    # --- the client's side

    async def next(self) -> Sequence[WatchEvent]:
        """What has happened since the last call, waiting until something has; ends with a bookmark when one is due.

        Raises:
            StatusError: the watch has ended.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._ended is not None:
                raise self._ended
            waiting, self._waiting = self._waiting, []
            events = [seen for event in waiting if (seen := self._seen(event)) is not None]
            if self._bookmark_due:
                self._bookmark_due = False
                if self._revision >= self._since:
                    events.append(WatchEvent(EventType.BOOKMARK, b"", self._revision))
            if events:
                return events

    def _seen(self, event: CacheEvent) -> WatchEvent | None:
        selection = self.selection
        if selection.everything:
            was, now = event.old is not None, event.new is not None
        else:
            was = event.old is not None and selection.matches(event.old)
            now = event.new is not None and selection.matches(event.new)
        if now:
            assert event.new is not None  # noqa: S101 - for the type checker
            kind = EventType.MODIFIED if was else EventType.ADDED
            return WatchEvent(kind, event.new.raw, event.revision)
        return WatchEvent(EventType.DELETED, event.gone(), event.revision) if was else None
