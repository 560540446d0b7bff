"""Deletes objects, at once or step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from kybern.api import errors
from kybern.api.errors import Reason, StatusError
from master.admission.request import Admission, Verb
from master.apiserver import lifecycle
from master.apiserver.cache.selection import Selection
from master.apiserver.interface import Deleted, DeleteOptions, Target, User
from master.apiserver.machinery import Machinery
from master.apiserver.writes.committing import Committer, Next

Document = dict[str, Any]

_POLICIES = ("", "Background", "Foreground", "Orphan")
# Deletions of a collection that run at once.
_PARALLEL = 16


class Deleter:
    """Deletes single objects and collections."""

    def __init__(self, machinery: Machinery, committer: Committer) -> None:
        self._machinery = machinery
        self._committer = committer

    async def delete(self, user: User, target: Target, options: DeleteOptions) -> Deleted:
        """Begin, hurry or finish the deletion of an object."""
        check_options(options)
        request = Admission(user, Verb.DELETE, target.resource, target.namespace, target.name)
        await self._machinery.admission.admit(request)

        async def transform(old: Document) -> Next:
            _check_preconditions(target, options, old["metadata"])
            ending = lifecycle.begin(
                target.resource,
                old,
                grace=options.grace_seconds,
                propagation=options.propagation,
                now=self._machinery.clock.now(),
            )
            return Next(ending.document, remove=ending.gone)

        committed = await self._committer.change(target, transform, options.write)
        return Deleted(committed.document, committed.removed)

    async def delete_all(
        self, user: User, target: Target, selection: Selection, options: DeleteOptions
    ) -> Sequence[Deleted]:
        """Delete every object of a selection, as the cache has it now."""
        check_options(options)
        found = list(self._machinery.cacher.of(target.resource).select(selection))
        limit = asyncio.Semaphore(_PARALLEL)

        async def one(namespace: str, name: str) -> Deleted | None:
            async with limit:
                try:
                    return await self.delete(user, Target(target.resource, namespace, name), options)
                except StatusError as error:
                    if error.reason == Reason.NOT_FOUND:
                        return None
                    raise

        outcomes = await asyncio.gather(*(one(e.namespace, e.name) for e in found), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return [o for o in outcomes if isinstance(o, Deleted)]


def check_options(options: DeleteOptions) -> None:
    """Refuse options that nobody knows.

    Raises:
        StatusError: 400, naming the option.
    """
    if options.propagation not in _POLICIES:
        raise errors.bad_request(
            f'DeleteOptions.propagationPolicy: Unsupported value: "{options.propagation}": supported values: '
            '"Background", "Foreground", "Orphan"'
        )


def _check_preconditions(target: Target, options: DeleteOptions, metadata: Document) -> None:
    resource = target.resource
    uid, version = metadata.get("uid"), metadata.get("resourceVersion")
    if options.uid and options.uid != uid:
        text = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {uid}"
        raise errors.conflict(resource.plural, resource.group, target.name, text)
    if options.resource_version and options.resource_version != version:
        text = (
            f"Precondition failed: ResourceVersion in precondition: {options.resource_version}, "
            f"ResourceVersion in object meta: {version}"
        )
        raise errors.conflict(resource.plural, resource.group, target.name, text)
