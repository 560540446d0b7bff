"""Deletes what lost all its owners, and finishes deletions that wait for dependents or spare them.

Reads the metadata of every kind. Deletes any object; writes metadata.ownerReferences and the collector's two
finalizers. An owner that the caches do not show is asked for by the API itself before anything is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import msgspec

from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.api.resources import Registry, Resource
from kybern.api.types import Object, OwnerReference, decode
from kybern.client.acting import LeadershipLost
from kybern.client.controller import Controller, ControllerContext
from kybern.client.informer import Informer
from kybern.client.kinds import Kind
from kybern.key import Key
from master.controllers import batches
from master.controllers.garbage import references
from master.controllers.garbage.references import Action, Decision, Owner

_OWNER = "owner"
# Events are many, have no owners and end by themselves.
_IGNORED = frozenset((resources.EVENTS,))


def pack(resource: Resource, key: Key) -> Key:
    """A queue's key for an object of any kind."""
    return Key(f"{resource.qualified}/{key.namespace}", key.name)


class GarbageCollector(Controller):
    """One key is one object of any kind, as `pack` writes it."""

    name = "generic-garbage-collector"

    def __init__(self, context: ControllerContext, served: Iterable[Resource] = resources.BUILT_IN) -> None:
        super().__init__(context)
        kinds = tuple(r for r in served if r not in _IGNORED and "delete" in r.verbs)
        self._registry = Registry(kinds)
        self._caches: dict[str, Informer[Object]] = {r.qualified: self.read(Kind(r, Object)) for r in kinds}
        for cache in self._caches.values():
            cache.index(_OWNER, lambda o: [ref.uid for ref in o.metadata.owner_references])
        for cache in self._caches.values():
            self._endings.append(cache.on_change(partial(self._changed, cache.kind.resource)))

    def _changed(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """Most changes (status) concern no owner: only those of references, finalizers and deletion are looked at."""
        if new is None:
            if old is not None:
                self._dependents_too(old)
                self._owners_too(old)
            return
        if old is not None and _facts(old) == _facts(new):
            return
        if new.metadata.owner_references or new.deleting:
            self.queue.add(pack(resource, new.key))
        if new.deleting:
            self._dependents_too(new)
        self._owners_too(new if old is None else old)

    def _dependents_too(self, owner: Object) -> None:
        for resource, dependent in self._dependents(owner):
            self.queue.add(pack(resource, dependent.key))

    def _owners_too(self, dependent: Object) -> None:
        """Owners that are being deleted may have waited for it."""
        for ref in dependent.metadata.owner_references:
            resource = self._registry.by_kind(ref.api_version, ref.kind)
            if resource is None:
                continue
            key = Key(dependent.namespace if resource.namespaced else "", ref.name)
            owner = self._caches[resource.qualified].get(key)
            if owner is not None and owner.deleting:
                self.queue.add(pack(resource, key))

    def _dependents(self, owner: Object) -> Iterator[tuple[Resource, Object]]:
        for cache in self._caches.values():
            for dependent in cache.indexed(_OWNER, owner.uid):
                yield cache.kind.resource, dependent

    async def reconcile(self, key: Key) -> float | None:
        """Look at one object's owners and dependents and do what they call for."""
        qualified, _, namespace = key.namespace.partition("/")
        cache = self._caches[qualified]
        item = cache.get(Key(namespace, key.name))
        if item is None:
            return None
        resource = cache.kind.resource
        owners = [] if item.deleting else [(r, await self._owner(item, r)) for r in item.metadata.owner_references]
        dependents = list(self._dependents(item))
        decision = references.decide(item, owners, [d for _, d in dependents])
        try:
            await self._act(resource, item, decision, dependents)
        except StatusError as error:
            if isinstance(error, LeadershipLost) or error.reason != Reason.NOT_FOUND:
                raise
        return None

    async def _owner(self, item: Object, ref: OwnerReference) -> Owner:
        resource = self._registry.by_kind(ref.api_version, ref.kind)
        if resource is None or (resource.namespaced and not item.namespace):
            return Owner.UNKNOWN
        key = Key(item.namespace if resource.namespaced else "", ref.name)
        current = self._caches[resource.qualified].get(key)
        if current is None or current.uid != ref.uid:
            try:
                current = decode(await self.client.get(resource, key.name, key.namespace), Object)
            except StatusError as error:
                if error.reason != Reason.NOT_FOUND:
                    raise
                return Owner.GONE
        if current.uid != ref.uid:
            return Owner.GONE
        waits = current.deleting and references.FOREGROUND in current.metadata.finalizers
        return Owner.WAITING if waits else Owner.THERE

    async def _act(
        self, resource: Resource, item: Object, decision: Decision, dependents: list[tuple[Resource, Object]]
    ) -> None:
        match decision.action:
            case Action.NOTHING:
                pass
            case Action.LOOSEN:
                await self._patch(resource, item, {"ownerReferences": [msgspec.to_builtins(r) for r in decision.keep]})
            case Action.DELETE:
                await self.client.delete(
                    resource, item.name, item.namespace, uid=item.uid, propagation=decision.propagation
                )
            case Action.RELEASE_FOREGROUND:
                await self._without_finalizer(resource, item, references.FOREGROUND)
            case Action.ORPHAN_DEPENDENTS:
                refused = await batches.together(self._orphan(r, d, item.uid) for r, d in dependents)
                if refused:
                    raise refused[0]
                await self._without_finalizer(resource, item, references.ORPHAN)

    async def _orphan(self, resource: Resource, dependent: Object, owner: str) -> None:
        kept = [msgspec.to_builtins(r) for r in dependent.metadata.owner_references if r.uid != owner]
        try:
            await self._patch(resource, dependent, {"ownerReferences": kept or None})
        except StatusError as error:
            if isinstance(error, LeadershipLost) or error.reason != Reason.NOT_FOUND:
                raise

    async def _without_finalizer(self, resource: Resource, item: Object, finalizer: str) -> None:
        kept = [f for f in item.metadata.finalizers if f != finalizer]
        await self._patch(resource, item, {"finalizers": kept or None})

    async def _patch(self, resource: Resource, item: Object, meta: dict[str, Any]) -> None:
        meta = {"uid": item.uid, "resourceVersion": item.metadata.resource_version, **meta}
        await self.client.patch(resource, item.name, {"metadata": meta}, item.namespace)


def _facts(item: Object) -> object:
    return item.uid, item.deleting, item.metadata.owner_references, item.metadata.finalizers
