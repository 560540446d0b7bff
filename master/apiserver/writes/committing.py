"""Commits: what a write has made of an object becomes its next state, or the write starts over from what it is now."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from kybern.api import errors, resources
from kybern.api.errors import StatusError
from kybern.api.metadata import encode, splice_resource_version
from kybern.api.resources import Resource
from kybern.client.store import KeyValue, prefix_end
from master.apiserver import allocation, keys
from master.apiserver.allocation import Taken, allocate, claims_of, taken_error
from master.apiserver.entry import Document, Entry, from_store
from master.apiserver.interface import Target, WriteOptions
from master.apiserver.keys import CLAIMS, Claim
from master.apiserver.machinery import Machinery
from master.apiserver.storage import Change, LeaseEndedError, Outcome
from master.apiserver.writes.bodies import check_size

log = logging.getLogger(__name__)

# So often a write starts over because somebody else was quicker.
_ATTEMPTS = 25

Guards = list[tuple[bytes, int]]


@dataclass(slots=True)
class Next:
    """What a write makes of an object: its next document, None for an object that is to be removed."""

    document: Document
    remove: bool = False
    guards: Guards = field(default_factory=list)


# Gets the object as it is, which it must not change.
Transform = Callable[[Document], Awaitable[Next]]


@dataclass(frozen=True, slots=True)
class Committed:
    """The document as it was stored, or as it was when it was removed; `changed` unless it already was like that."""

    document: bytes
    removed: bool = False
    changed: bool = True


class Committer:
    """Runs the transactions of writes."""

    def __init__(self, machinery: Machinery) -> None:
        self._machinery = machinery

    # --- new objects

    async def create(self, target: Target, document: Document, guards: Guards, options: WriteOptions) -> bytes | None:
        """Store a new object. None when a guard has moved: whoever set it must look again.

        Raises:
            StatusError: 409 when there is one of that name, or the fence no longer holds; 422 when a shared value that
                the object asks for is taken.
        """
        resource, metadata = target.resource, document["metadata"]
        key = keys.object_key(resource, metadata.get("namespace", ""), metadata["name"])
        taken = await self._known_taken(resource, document)
        for _ in range(_ATTEMPTS):
            attempt: Document = {**document, "spec": _copy_spec(document)} if "spec" in document else dict(document)
            chosen = allocate(resource, attempt, self._machinery.allocator, taken)
            value = check_size(encode(attempt))
            if options.dry_run:
                await self._would_create(resource, key, document, claims_of(resource, attempt) - chosen)
                return value
            change = Change(key, 0, value, claims_of(resource, attempt), fence=options.fence, guards=guards)
            change.fences = _fences(resource, None, attempt)
            outcome = await self._commit(resource, change)
            if outcome.done:
                return splice_resource_version(value, outcome.revision)
            if outcome.current is not None:
                raise errors.already_exists(resource.plural, resource.group, metadata["name"])
            _check_fence(resource, metadata["name"], options, outcome)
            if outcome.guarded:
                return None
            await self._learn(resource, attempt, outcome, chosen, taken)
        raise errors.conflict(resource.plural, resource.group, metadata["name"], "too many lost races for its values")

    async def _would_create(self, resource: Resource, key: bytes, document: Document, asked: frozenset[Claim]) -> None:
        """What the transaction would find, for dry runs."""
        name = document["metadata"]["name"]
        store = self._machinery.storage
        if await store.read(resource, document["metadata"].get("namespace", ""), name) is not None:
            raise errors.already_exists(resource.plural, resource.group, name)
        taken = {c for c in asked if (await store.range(c.key, c.key + b"\0")).items}
        if taken:
            raise taken_error(resource, document, frozenset(taken))

    # --- objects that exist

    async def change(self, target: Target, transform: Transform, options: WriteOptions) -> Committed:
        """Make a change of the object as it is now. `transform` may be called several times, with newer states.

        Raises:
            StatusError: 404 when there is no such object; 409 when it cannot be changed in time, or the fence no longer
                holds; whatever `transform` raises.
        """
        resource = target.resource
        taken = Taken()
        current = self._machinery.lookup.cached(resource, target.namespace, target.name)
        known = False
        for _ in range(_ATTEMPTS):
            if current is None and not known:
                current, known = await self._read(target), True
            if current is None:
                raise errors.not_found(resource.plural, resource.group, target.name)
            before = current.document()
            try:
                following = await transform(before)
            except StatusError:
                # What the cache says may be old; what it makes of the request is believed when it is not.
                if known or (current := await self._newer(target, current)) is None:
                    raise
                known = True
                continue
            if not following.remove and _unchanged(following.document, before):
                if not known and (newer := await self._newer(target, current)) is not None:
                    current, known = newer, True
                    continue
                return Committed(current.raw, changed=False)
            committed, found = await self._try(target, current, before, following, options, taken)
            if committed is not None:
                return committed
            current = self._entry(target, found)
            known = True
        raise errors.modified(resource.plural, resource.group, target.name)

    async def _try(
        self,
        target: Target,
        current: Entry,
        before: Document,
        following: Next,
        options: WriteOptions,
        taken: Taken,
    ) -> tuple[Committed | None, KeyValue | None]:
        resource, document = target.resource, following.document
        chosen: frozenset[Claim] = frozenset()
        if not following.remove:
            document = {**document, "spec": _copy_spec(document)} if "spec" in document else document
            chosen = allocate(resource, document, self._machinery.allocator, taken)
        value = check_size(encode(document))
        if options.dry_run:
            return Committed(splice_resource_version(value, current.revision), following.remove), None
        had, has = (
            claims_of(resource, before),
            frozenset[Claim]() if following.remove else claims_of(resource, document),
        )
        change = Change(
            current.key,
            current.revision,
            None if following.remove else value,
            claims=has - had,
            releases=had - has,
            fence=options.fence,
            guards=following.guards,
        )
        if following.remove:
            change.unfences = _fences(resource, None, before)
        else:
            change.fences = _fences(resource, before, document)
        outcome = await self._commit(resource, change)
        if outcome.done:
            return Committed(splice_resource_version(value, outcome.revision), following.remove), None
        _check_fence(resource, target.name, options, outcome)
        if outcome.taken:
            await self._learn(resource, document, outcome, chosen, taken)
        return None, outcome.current

    async def _commit(self, resource: Resource, change: Change) -> Outcome:
        leases = self._machinery.event_leases
        if change.value is None:
            return await self._machinery.storage.commit(change)
        change.lease = await leases.lease_for(resource)
        try:
            return await self._machinery.storage.commit(change)
        except LeaseEndedError:
            leases.forget()
            change.lease = await leases.lease_for(resource)
        try:
            return await self._machinery.storage.commit(change)
        except LeaseEndedError as error:
            raise errors.internal("the store does not take the object with a lease") from error

    async def _read(self, target: Target) -> Entry | None:
        return await self._machinery.storage.read(target.resource, target.namespace, target.name)

    async def _newer(self, target: Target, current: Entry) -> Entry | None:
        """The object as of now, if it is not what is known of it."""
        latest = await self._read(target)
        if latest is None:
            raise errors.not_found(target.resource.plural, target.resource.group, target.name)
        return latest if latest.revision != current.revision else None

    def _entry(self, target: Target, found: KeyValue | None) -> Entry | None:
        return from_store(found, target.namespace, target.name) if found is not None else None

    # --- shared values

    async def _known_taken(self, resource: Resource, document: Document) -> Taken:
        """Ranges of nodes are given out from the lowest on, so guessing without knowledge would be futile."""
        taken = Taken()
        if resource == resources.NODES and not (document.get("spec") or {}).get("podCIDR"):
            await self._load(allocation.POD_CIDR, taken)
        return taken

    async def _learn(
        self, resource: Resource, document: Document, outcome: Outcome, chosen: frozenset[Claim], taken: Taken
    ) -> None:
        """After a lost race for a value: what was asked for is refused, what was chosen is chosen again."""
        asked = outcome.taken - chosen
        if asked:
            raise taken_error(resource, document, asked)
        for claim in outcome.taken:
            taken.add(claim)
        for kind in {c.kind for c in outcome.taken}:
            await self._load(kind, taken)

    async def _load(self, kind: str, taken: Taken) -> None:
        prefix = CLAIMS + f"{kind}/".encode()
        found = await self._machinery.storage.range(prefix, prefix_end(prefix))
        for pair in found.items:
            taken.add(Claim(kind, pair.key[len(prefix) :].decode()))


def _copy_spec(document: Document) -> Any:
    """Deep enough for allocation, which sets fields of the spec and of its ports."""
    spec = document["spec"]
    if not isinstance(spec, dict):
        return spec
    copied = dict(spec)
    if isinstance(copied.get("ports"), list):
        copied["ports"] = [dict(p) for p in copied["ports"]]
    return copied


def _unchanged(document: Document, before: Document) -> bool:
    """Whether a write leaves everything as it was; resource versions do not count."""
    if document.keys() != before.keys():
        return False
    if any(document[key] != value for key, value in before.items() if key != "metadata"):
        return False
    after, then = document["metadata"], before["metadata"]
    # Either may lack the version: a client's document need not have one.
    return {**after, "resourceVersion": ""} == {**then, "resourceVersion": ""}


def _fences(resource: Resource, old: Document | None, new: Document) -> list[bytes]:
    """The fence to move when the holder of a Lease changes."""
    if resource != resources.LEASES:
        return []
    before, after = ((d or {}).get("spec") or {} for d in (old, new))
    if old is not None and before.get("holderIdentity") == after.get("holderIdentity"):
        return []
    metadata = new["metadata"]
    return [keys.lease_fence_key(metadata["namespace"], metadata["name"])]


def _check_fence(resource: Resource, name: str, options: WriteOptions, outcome: Outcome) -> None:
    if outcome.fenced and options.fence is not None:
        lease = f"{options.fence.namespace}/{options.fence.name}"
        raise errors.conflict(
            resource.plural, resource.group, name, f"the writer no longer leads: the Lease {lease} has another holder"
        )
