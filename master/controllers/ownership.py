"""Who controls what: objects that match a selector are adopted, those that no longer do are released.

Writes metadata.ownerReferences of the controlled objects, with their resourceVersion as precondition.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from kybern.api.errors import Reason, StatusError
from kybern.api.resources import Resource
from kybern.api.selectors import Selector
from kybern.api.types import Object, OwnerReference, decode
from kybern.client.acting import ActingClient
from kybern.client.informer import Informer
from master.controllers import indices

T = TypeVar("T", bound=Object)


@dataclass(frozen=True, slots=True)
class Claim(Generic[T]):
    """What an owner has, and what is to change about that."""

    owned: tuple[T, ...]
    adopt: tuple[T, ...]
    release: tuple[T, ...]


def plan(owner: Object, selector: Selector, owned: Collection[T], orphans: Collection[T]) -> Claim[T]:
    """Which of the objects that it owns stay, and which orphans become its own. A deleted owner claims nothing."""
    mine = tuple(o for o in owned if selector.matches(o.metadata.labels))
    if owner.deleting:
        return Claim(mine, (), ())
    return Claim(
        owned=mine,
        adopt=tuple(o for o in orphans if not o.deleting and selector.matches(o.metadata.labels)),
        release=tuple(o for o in owned if not selector.matches(o.metadata.labels)),
    )


async def claim(
    client: ActingClient, resource: Resource, owner: Object, selector: Selector, informer: Informer[T]
) -> tuple[list[T], bool]:
    """Adopt and release as `plan` says; returns what the owner has for certain, and whether anything was written.

    The caller does nothing more when something was: the caches must see it first.
    """
    todo = plan(owner, selector, indices.controlled(informer, owner.uid), indices.orphans(informer, owner.namespace))
    if todo.adopt and not await _still_there(client, resource, owner):
        return list(todo.owned), False
    for orphan in todo.adopt:
        references = [*_references(orphan.metadata.owner_references), owner.owner_reference()]
        await _write(client, informer.kind.resource, orphan, references)
    for stray in todo.release:
        kept = tuple(o for o in stray.metadata.owner_references if o.uid != owner.uid)
        await _write(client, informer.kind.resource, stray, _references(kept))
    return list(todo.owned), bool(todo.adopt or todo.release)


async def _still_there(client: ActingClient, resource: Resource, owner: Object) -> bool:
    """Asks the API itself: an owner that is deleted must not adopt, or its orphans would be collected."""
    try:
        current = decode(await client.get(resource, owner.name, owner.namespace), Object)
    except StatusError as error:
        if error.reason == Reason.NOT_FOUND:
            return False
        raise
    return current.uid == owner.uid and not current.deleting


def _references(references: Collection[OwnerReference]) -> list[dict[str, Any]]:
    return [msgspec.to_builtins(r) for r in references]


async def _write(client: ActingClient, resource: Resource, of: Object, references: list[dict[str, Any]]) -> None:
    meta: dict[str, Any] = {"uid": of.uid, "resourceVersion": of.metadata.resource_version}
    meta["ownerReferences"] = references or None
    try:
        await client.patch(resource, of.name, {"metadata": meta}, of.namespace)
    except StatusError as error:
        # Gone meanwhile: nothing to own.
        if error.reason != Reason.NOT_FOUND:
            raise
