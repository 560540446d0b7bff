"""The API in memory: objects with revisions, watches, preconditions and status isolation; no schema and no admission.

For tests of what is written against `Client`. `fail_next` makes calls fail the way a lost or slow master does.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kybern.api import errors, selectors
from kybern.api.resources import NAMESPACES, Resource
from kybern.client.interface import (
    DEFAULT_OPTIONS,
    EventType,
    ListResult,
    PatchType,
    Propagation,
    WatchEvent,
    WriteOptions,
)
from kybern.clock import Clock, LoopClock, rfc3339
from kybern.key import Key

Document = dict[str, Any]


@dataclass
class Call:
    """A write that was asked for, for assertions."""

    verb: str
    resource: Resource
    key: Key
    subresource: str = ""
    body: Any = None
    options: WriteOptions = DEFAULT_OPTIONS


@dataclass
class _Change:
    resource: Resource
    type: EventType
    revision: int
    new: Document
    old: Document | None


@dataclass
class _Watcher:
    queue: asyncio.Queue[_Change | errors.StatusError] = field(default_factory=asyncio.Queue)


class FakeClient:
    """Implements `Client`. Deterministic: uids and generated names are counted."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or LoopClock()
        self.calls: list[Call] = []
        self.revision = 1
        self._objects: dict[tuple[Resource, Key], Document] = {}
        self._history: list[_Change] = []
        self._compacted = 0
        self._watchers: list[_Watcher] = []
        self._failures: deque[tuple[str, Exception]] = deque()
        self._counter = itertools.count(1)

    # --- for tests

    def put(self, resource: Resource, document: Mapping[str, Any]) -> Document:
        """Store an object as if the API had, status included."""
        new = _copy(document)
        new.setdefault("apiVersion", resource.api_version)
        new.setdefault("kind", resource.kind)
        key = _key(new)
        old = self._objects.get((resource, key))
        self._fill(new, old)
        return self._store(resource, key, new, old)

    def read(self, resource: Resource, name: str, namespace: str = "") -> Document | None:
        """The object as it is stored, or None."""
        found = self._objects.get((resource, Key(namespace, name)))
        return None if found is None else _copy(found)

    def all(self, resource: Resource) -> list[Document]:
        """Every stored object of a resource, in order of creation."""
        return [_copy(d) for (r, _), d in self._objects.items() if r == resource]

    def fail_next(self, verb: str, error: Exception, times: int = 1) -> None:
        """Let the next calls of a verb (`get`, `create`, ...; `*` for any) raise `error` and change nothing."""
        self._failures.extend([(verb, error)] * times)

    def break_watches(self, error: errors.StatusError | None = None) -> None:
        """End every open watch with an error (by default: the server went away)."""
        for watcher in self._watchers:
            watcher.queue.put_nowait(error or errors.unavailable("the server went away"))

    def compact(self) -> None:
        """Forget the history: watches from earlier revisions are answered with Expired."""
        self._compacted = self.revision
        self._history.clear()

    # --- Client

    async def get(self, resource: Resource, name: str, namespace: str = "", *, subresource: str = "") -> bytes:
        """As `Client.get`."""
        await self._enter("get")
        return _encode(self._find(resource, Key(namespace, name)))

    async def list(self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "") -> ListResult:
        """As `Client.list`."""
        await self._enter("list")
        chosen = _Selection(namespace, labels, fields)
        items = [_encode(d) for (r, _), d in self._objects.items() if r == resource and chosen.matches(d)]
        return ListResult(items, self.revision)

    async def watch(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "", since: int
    ) -> AsyncIterator[Sequence[WatchEvent]]:
        """As `Client.watch`."""
        await self._enter("watch")
        if since < self._compacted:
            raise errors.expired(f"too old resource version: {since} ({self._compacted})")
        chosen = _Selection(namespace, labels, fields)
        watcher = _Watcher()
        for change in self._history:
            if change.revision > since:
                watcher.queue.put_nowait(change)
        self._watchers.append(watcher)
        try:
            yield [WatchEvent(EventType.BOOKMARK, b"", since)]
            while True:
                change_or_error = await watcher.queue.get()
                if isinstance(change_or_error, errors.StatusError):
                    raise change_or_error
                if change_or_error.resource == resource:
                    yield [chosen.event(change_or_error)]
        finally:
            self._watchers.remove(watcher)

    async def create(
        self,
        resource: Resource,
        document: Mapping[str, Any],
        namespace: str = "",
        *,
        name: str = "",
        subresource: str = "",
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> bytes:
        """As `Client.create`; of subresources it knows `pods/binding`."""
        await self._enter("create")
        new = _copy(document)
        meta = new.setdefault("metadata", {})
        if subresource:
            self.calls.append(Call("create", resource, Key(namespace, name), subresource, new, options))
            return self._bind(resource, Key(namespace, name), new)
        meta.setdefault("namespace", namespace) if resource.namespaced else meta.pop("namespace", None)
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = f"{meta['generateName']}{next(self._counter):05d}"
        key = _key(new)
        self.calls.append(Call("create", resource, key, "", _copy(new), options))
        if (resource, key) in self._objects:
            raise errors.already_exists(resource.plural, resource.group, key.name)
        new.setdefault("apiVersion", resource.api_version)
        new.setdefault("kind", resource.kind)
        if resource.status_isolated and resource.plural != "nodes":
            new.pop("status", None)
        if resource == NAMESPACES:
            new.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
            new["status"] = {"phase": "Active"}
        self._fill(new, None)
        return _encode(self._store(resource, key, new, None))

    async def update(
        self,
        resource: Resource,
        name: str,
        document: Mapping[str, Any],
        namespace: str = "",
        *,
        subresource: str = "",
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> bytes:
        """As `Client.update`."""
        await self._enter("update")
        key = Key(namespace, name)
        self.calls.append(Call("update", resource, key, subresource, _copy(document), options))
        return self._change(resource, key, _copy(document), subresource)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Mapping[str, Any] | Sequence[Any],
        namespace: str = "",
        *,
        type: PatchType = PatchType.MERGE,  # noqa: A002 - the API's word
        subresource: str = "",
        force: bool = False,
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> bytes:
        """As `Client.patch`; merge patches alone."""
        await self._enter("patch")
        key = Key(namespace, name)
        self.calls.append(Call("patch", resource, key, subresource, _copy(patch), options))
        if type is not PatchType.MERGE or not isinstance(patch, Mapping):
            raise errors.unsupported_media_type(str(type), [PatchType.MERGE])
        old = self._find(resource, key)
        wanted_uid = (patch.get("metadata") or {}).get("uid")
        if wanted_uid and wanted_uid != old["metadata"]["uid"]:
            raise errors.conflict(resource.plural, resource.group, name, "the UID in the precondition does not match")
        new = _merge(_copy(old), patch)
        if not (patch.get("metadata") or {}).get("resourceVersion"):
            new["metadata"].pop("resourceVersion", None)
        return self._change(resource, key, new, subresource)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        grace_seconds: int | None = None,
        propagation: Propagation | None = None,
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> bytes:
        """As `Client.delete`; pods bound to a node end gracefully, the rest when they have no finalizers.

        Policies become finalizers for a garbage collector, and a namespace waits for its own finalizers.
        """
        await self._enter("delete")
        key = Key(namespace, name)
        body = {"grace": grace_seconds, "uid": uid, "propagation": propagation}
        self.calls.append(Call("delete", resource, key, "", body, options))
        old = self._find(resource, key)
        meta = old["metadata"]
        if (uid and uid != meta["uid"]) or (resource_version and resource_version != meta["resourceVersion"]):
            raise errors.conflict(resource.plural, resource.group, name, "the precondition does not match")
        grace = grace_seconds
        if grace is None and resource.graceful:
            grace = (old.get("spec") or {}).get("terminationGracePeriodSeconds", 30)
        if not (old.get("spec") or {}).get("nodeName"):
            grace = 0
        new = _copy(old)
        if propagation in _POLICIES and _POLICIES[propagation] not in meta.get("finalizers", ()):
            new["metadata"].setdefault("finalizers", []).append(_POLICIES[propagation])
        if (grace and resource.graceful) or _held(new):
            if resource == NAMESPACES:
                new.setdefault("status", {})["phase"] = "Terminating"
            new["metadata"].setdefault("deletionTimestamp", rfc3339(self.clock.now()))
            new["metadata"]["deletionGracePeriodSeconds"] = grace or 0
            return _encode(self._store(resource, key, new, old))
        return _encode(self._remove(resource, key, old))

    # --- within

    async def _enter(self, verb: str) -> None:
        await asyncio.sleep(0)
        if self._failures and self._failures[0][0] in (verb, "*"):
            raise self._failures.popleft()[1]

    def _find(self, resource: Resource, key: Key) -> Document:
        found = self._objects.get((resource, key))
        if found is None:
            raise errors.not_found(resource.plural, resource.group, key.name)
        return found

    def _bind(self, resource: Resource, key: Key, binding: Document) -> bytes:
        old = self._find(resource, key)
        new = _copy(old)
        if new.setdefault("spec", {}).get("nodeName"):
            raise errors.conflict(resource.plural, resource.group, key.name, "the pod is already assigned to a node")
        new["spec"]["nodeName"] = binding["target"]["name"]
        conditions = new.setdefault("status", {}).setdefault("conditions", [])
        conditions[:] = [c for c in conditions if c["type"] != "PodScheduled"]
        conditions.append({"type": "PodScheduled", "status": "True", "lastTransitionTime": rfc3339(self.clock.now())})
        return _encode(self._store(resource, key, new, old))

    def _change(self, resource: Resource, key: Key, new: Document, subresource: str) -> bytes:
        old = self._find(resource, key)
        version = new.setdefault("metadata", {}).get("resourceVersion")
        if version and version != old["metadata"]["resourceVersion"]:
            raise errors.modified(resource.plural, resource.group, key.name)
        if subresource == "status":
            changed = _copy(old)
            changed["status"] = new.get("status")
            new = changed
        elif subresource in ("finalize", "scale"):
            changed = _copy(old)
            field = "finalizers" if subresource == "finalize" else "replicas"
            changed.setdefault("spec", {})[field] = new["spec"][field]
            new = changed
        elif resource.status_isolated and "status" in old:
            new["status"] = _copy(old["status"])
        self._fill(new, old)
        if _comparable(new) == _comparable(old):
            return _encode(old)
        if new["metadata"].get("deletionTimestamp") and not _held(new) and not resource.graceful:
            return _encode(self._remove(resource, key, new))
        return _encode(self._store(resource, key, new, old))

    def _fill(self, new: Document, old: Document | None) -> None:
        meta = new.setdefault("metadata", {})
        kept = (old or {}).get("metadata", {})
        meta["uid"] = kept.get("uid") or meta.get("uid") or f"uid-{next(self._counter)}"
        meta["creationTimestamp"] = (
            kept.get("creationTimestamp") or meta.get("creationTimestamp") or rfc3339(self.clock.now())
        )
        if old is None:
            meta.setdefault("generation", 1)
        else:
            changed = new.get("spec") != old.get("spec")
            meta["generation"] = kept.get("generation", 1) + (1 if changed else 0)

    def _store(self, resource: Resource, key: Key, new: Document, old: Document | None) -> Document:
        self.revision += 1
        new["metadata"]["resourceVersion"] = str(self.revision)
        self._objects[resource, key] = new
        self._publish(_Change(resource, EventType.MODIFIED if old else EventType.ADDED, self.revision, new, old))
        return new

    def _remove(self, resource: Resource, key: Key, old: Document) -> Document:
        self.revision += 1
        gone: Document = _copy(old)
        gone["metadata"]["resourceVersion"] = str(self.revision)
        del self._objects[resource, key]
        self._publish(_Change(resource, EventType.DELETED, self.revision, gone, old))
        return gone

    def _publish(self, change: _Change) -> None:
        self._history.append(change)
        for watcher in self._watchers:
            watcher.queue.put_nowait(change)


_POLICIES = {Propagation.FOREGROUND: "foregroundDeletion", Propagation.ORPHAN: "orphan"}


def _held(document: Document) -> bool:
    """Whether finalizers keep it from going."""
    return bool(document["metadata"].get("finalizers") or (document.get("spec") or {}).get("finalizers"))


class _Selection:
    def __init__(self, namespace: str, labels: str, fields: str) -> None:
        self._namespace = namespace
        self._labels = selectors.parse_labels(labels)
        self._fields = selectors.parse_fields(fields)

    def matches(self, document: Document) -> bool:
        meta = document["metadata"]
        if self._namespace and meta.get("namespace") != self._namespace:
            return False
        paths = {r.key: _at(document, r.key) for r in self._fields.requirements}
        return self._labels.matches(meta.get("labels") or {}) and self._fields.matches(paths)

    def event(self, change: _Change) -> WatchEvent:
        was = change.old is not None and self.matches(change.old)
        now = change.type is not EventType.DELETED and self.matches(change.new)
        if now:
            return WatchEvent(EventType.MODIFIED if was else EventType.ADDED, _encode(change.new), change.revision)
        if was:
            return WatchEvent(EventType.DELETED, _encode(change.new), change.revision)
        return WatchEvent(EventType.BOOKMARK, b"", change.revision)


def _at(document: Document, path: str) -> str:
    value: Any = document
    for part in path.split("."):
        value = (value or {}).get(part)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _key(document: Document) -> Key:
    return Key(document["metadata"].get("namespace", ""), document["metadata"]["name"])


def _encode(document: Document) -> bytes:
    return msgspec.json.encode(document)


def _copy(document: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(document))


def _comparable(document: Document) -> Document:
    meta = {k: v for k, v in document["metadata"].items() if k != "resourceVersion"}
    return {**document, "metadata": meta}


def _merge(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2."""
    if not isinstance(patch, Mapping):
        return _copy(patch)
    result = target if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merge(result.get(name), value)
    return result
