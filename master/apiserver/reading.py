"""Gets, lists and watches: how fresh, which objects, in which pages."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec

from kybern.api import errors
from kybern.api.errors import Cause, CauseType, StatusError
from kybern.api.metadata import encode, splice_resource_version
from kybern.api.resources import Resource
from kybern.client.interface import EventType, WatchEvent
from kybern.client.store import KeyValue, prefix_end
from master.apiserver import keys
from master.apiserver.cache.selection import Selection
from master.apiserver.entry import Entry, from_store
from master.apiserver.interface import Listed, ListOptions, Target, WatchOptions
from master.apiserver.machinery import Machinery
from master.apiserver.writes.scale import scale_bytes

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
# Objects per batch at the beginning of a watch, and keys per question to the store.
_BATCH = 500
_EXACT, _NOT_OLDER = "Exact", "NotOlderThan"


class Reader:
    """Reads from the watch cache; single objects as of now, and old revisions, from the store."""

    def __init__(self, machinery: Machinery) -> None:
        self._machinery = machinery

    async def get(self, target: Target, resource_version: str) -> bytes:
        """One object, or its subresource."""
        entry = await self._entry(target, resource_version)
        if entry is None:
            raise errors.not_found(target.resource.plural, target.resource.group, target.name)
        return scale_bytes(entry.document(), entry.revision) if target.subresource == "scale" else entry.raw

    async def _entry(self, target: Target, resource_version: str) -> Entry | None:
        if not resource_version:
            return await self._machinery.storage.read(target.resource, target.namespace, target.name)
        await self._machinery.cacher.reached(parse_revision(resource_version))
        return self._machinery.cacher.of(target.resource).get(target.namespace, target.name)

    # --- lists

    async def list(self, selection: Selection, options: ListOptions) -> Listed:
        """The selected objects."""
        if options.limit < 0:
            raise errors.bad_request("limit: Invalid value: must not be negative")
        if options.continue_token:
            if options.resource_version not in ("", "0"):
                raise errors.bad_request("specifying resource version is not allowed when using continue")
            return await self._page(selection, options, _decode_token(options.continue_token))
        if options.resource_version_match == _EXACT:
            revision = parse_revision(options.resource_version)
            if not revision:
                raise errors.bad_request(
                    'resourceVersionMatch: Forbidden: resourceVersionMatch "Exact" is forbidden for '
                    'resourceVersion "0" or without one'
                )
            return await self._page(selection, options, _Token(revision, ""))
        if options.resource_version_match not in ("", _NOT_OLDER):
            raise errors.bad_request(
                f'resourceVersionMatch: Unsupported value: "{options.resource_version_match}": '
                'supported values: "Exact", "NotOlderThan", ""'
            )
        await self._as_fresh_as(options.resource_version)
        return self._cached(selection, options)

    async def _as_fresh_as(self, resource_version: str) -> None:
        cacher = self._machinery.cacher
        if resource_version:
            await cacher.reached(parse_revision(resource_version))
        else:
            await cacher.fresh()

    def _cached(self, selection: Selection, options: ListOptions, after: bytes = b"") -> Listed:
        cacher = self._machinery.cacher
        cache = cacher.of(selection.resource)
        # Nothing awaits between here and the end, so that items and revision belong together.
        revision = cacher.revision
        found = cache.select(selection, after)
        if not options.limit:
            return Listed([e.raw for e in found], revision)
        page = list(islice(found, options.limit))
        if next(found, None) is None:
            return Listed([e.raw for e in page], revision)
        remaining = cache.count(selection, page[-1].key) if selection.everything else None
        return Listed([e.raw for e in page], revision, _encode_token(selection, revision, page[-1].key), remaining)

    async def _page(self, selection: Selection, options: ListOptions, token: _Token) -> Listed:
        """Objects as of an old revision, from the store."""
        prefix = keys.namespace_prefix(selection.resource, selection.namespace)
        after = prefix + token.start.encode() if token.start else b""
        if token.rv < 0:
            # Consistency was lost before, and the client has agreed to go on without.
            await self._machinery.cacher.fresh()
            return self._cached(selection, options, after)
        try:
            return await self._old(selection, options.limit, token.rv, prefix, after)
        except StatusError as error:
            if error.code == 410 and token.start:
                error.continue_token = _encode(_Token(-1, token.start))
                error.message = (
                    "The provided continue parameter is too old to display a consistent list result. You can start a "
                    "new list without the continue parameter, or use the continue token in this response to retrieve "
                    "the remainder of the results. Continuing with the provided token results in an inconsistent list "
                    "- objects that were created, modified, or deleted between the time the first chunk was returned "
                    "and now may show up in the list."
                )
            raise

    async def _old(self, selection: Selection, limit: int, revision: int, prefix: bytes, after: bytes) -> Listed:
        start = after + b"\0" if after else prefix
        items: list[Entry] = []
        latest = await self._machinery.storage.revision()
        if revision > latest:
            await self._machinery.cacher.reached(revision)
        while True:
            page = await self._machinery.storage.range(start, prefix_end(prefix), limit=_BATCH, revision=revision)
            for at, pair in enumerate(page.items):
                entry = self._read(selection, pair)
                if entry is None or not selection.matches(entry):
                    continue
                items.append(entry)
                if limit and len(items) == limit:
                    left = page.count - at - 1
                    if not left:
                        return Listed([e.raw for e in items], revision)
                    remaining = left if selection.everything else None
                    token = _encode_token(selection, revision, entry.key)
                    return Listed([e.raw for e in items], revision, token, remaining)
            if not page.more:
                return Listed([e.raw for e in items], revision)
            start = page.items[-1].key + b"\0"

    def _read(self, selection: Selection, pair: KeyValue) -> Entry | None:
        resource = selection.resource
        names = keys.split_object_key(pair.key, keys.resource_prefix(resource), namespaced=resource.namespaced)
        try:
            return from_store(pair, *names) if names is not None else None
        except ValueError:
            return None

    # --- watches

    async def watch(self, selection: Selection, options: WatchOptions) -> AsyncGenerator[Sequence[WatchEvent], None]:
        """Changes, in batches. The first batch is empty: it tells that the watch has begun."""
        cacher = self._machinery.cacher
        since = parse_revision(options.resource_version)
        begin = not since or options.send_initial_events
        if begin:
            await self._as_fresh_as(options.resource_version)
        cache = cacher.of(selection.resource)
        initial: list[Entry] = []
        if begin:
            since = cacher.revision
            initial = list(cache.select(selection))
        watcher = cache.watch(selection, since, cacher.revision)
        try:
            yield []
            for at in range(0, len(initial), _BATCH):
                yield [WatchEvent(EventType.ADDED, e.raw, e.revision) for e in initial[at : at + _BATCH]]
            if options.send_initial_events:
                yield [_bookmark(selection.resource, since, initial_end=True)]
            while True:
                events = await watcher.next()
                if events[-1].type is EventType.BOOKMARK:
                    events = list(events)
                    last = events.pop()
                    if options.bookmarks:
                        events.append(_bookmark(selection.resource, last.revision))
                if events:
                    yield events
        finally:
            cache.unwatch(watcher)


def check_watch(options: WatchOptions) -> None:
    """Refuse options that contradict each other.

    Raises:
        StatusError: 422.
    """
    if options.send_initial_events and not options.bookmarks:
        text = "Forbidden: sendInitialEvents requires setting allowWatchBookmarks to true"
        cause = Cause("allowWatchBookmarks", text, CauseType.FORBIDDEN)
        raise errors.invalid("ListOptions", "meta.k8s.io", "", [cause])


def _bookmark(resource: Resource, revision: int, *, initial_end: bool = False) -> WatchEvent:
    metadata = {"creationTimestamp": None, **({"annotations": {INITIAL_EVENTS_END: "true"}} if initial_end else {})}
    document = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
    return WatchEvent(EventType.BOOKMARK, splice_resource_version(encode(document), revision), revision)


def parse_revision(text: str) -> int:
    """A resourceVersion as a number; 0 when there is none.

    Raises:
        StatusError: 400 when it is not one.
    """
    if not text:
        return 0
    if not text.isdecimal() or not text.isascii():
        raise errors.bad_request(f'resourceVersion: Invalid value: "{text}": must be a resource version of this API')
    return int(text)


# --- continue tokens


@dataclass(frozen=True, slots=True)
class _Token:
    """Where a list goes on: behind which key (without the prefix), as of which revision (-1: any)."""

    rv: int
    start: str
    v: str = "meta.k8s.io/v1"


def _encode(token: _Token) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def _encode_token(selection: Selection, revision: int, last: bytes) -> str:
    prefix = keys.namespace_prefix(selection.resource, selection.namespace)
    return _encode(_Token(revision, last[len(prefix) :].decode()))


def _decode_token(text: str) -> _Token:
    try:
        token = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=_Token)
    except (ValueError, msgspec.DecodeError):
        raise errors.bad_request("continue key is not valid") from None
    if token.rv == 0 or token.start.startswith("/") or ".." in token.start.split("/"):
        raise errors.bad_request("continue key is not valid")
    return token
