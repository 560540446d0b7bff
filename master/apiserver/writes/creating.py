"""Creates objects."""

from __future__ import annotations

import uuid
from typing import Any

from kybern.api import errors
from kybern.api.defaults import apply_defaults
from kybern.api.errors import Reason, StatusError
from kybern.api.managed_fields import track_update
from kybern.api.metadata import copy_json, prepare_create, reset_status
from kybern.api.schema import load
from kybern.api.validation import validate
from master.admission.request import Admission, Verb
from master.apiserver.allocation import check_ranges
from master.apiserver.interface import Body, Target, User, WriteOptions, Written
from master.apiserver.machinery import Machinery
from master.apiserver.writes import bodies
from master.apiserver.writes.committing import Committer, Guards

Document = dict[str, Any]

# So often another name is made up when the one that was is taken.
_NAMES = 8
# So often a namespace may change under a create.
_GUARDED = 5


class Creator:
    """Creates objects, for requests and for server-side apply."""

    def __init__(self, machinery: Machinery, committer: Committer) -> None:
        self._machinery = machinery
        self._committer = committer

    async def create(self, user: User, target: Target, body: Body, options: WriteOptions) -> Written:
        """Store a new object that a client has sent."""
        document, complaints = bodies.read(body)
        warnings = bodies.conform(target.resource, load(target.resource), document, options, complaints)
        stored = await self.store(user, target, document, options)
        return Written(stored, created=True, warnings=warnings)

    async def store(
        self, user: User, target: Target, document: Document, options: WriteOptions, *, track: bool = True
    ) -> bytes:
        """Store a new object; tries further names when the first that was made up is taken.

        Args:
            user: Who asks.
            target: Resource and namespace.
            document: The object, pruned.
            options: Options of the write.
            track: Whether to record who set which fields; server-side apply has done so.

        Raises:
            StatusError: the object is refused.
        """
        generated = not (document.get("metadata") or {}).get("name")
        for attempt in range(_NAMES):
            try:
                return await self._store(user, target, copy_json(document), options, track=track)
            except StatusError as error:
                if error.reason != Reason.ALREADY_EXISTS or not generated or attempt + 1 == _NAMES:
                    raise
        raise AssertionError("the loop returns or raises")

    async def _store(
        self, user: User, target: Target, document: Document, options: WriteOptions, *, track: bool
    ) -> bytes:
        machinery, resource = self._machinery, target.resource
        prepare_create(
            document,
            resource=resource,
            namespace=target.namespace,
            uid=str(uuid.uuid4()),
            now=machinery.clock.now(),
            rng=machinery.rng,
        )
        for _ in range(_GUARDED):
            guards = await self._complete(user, target, document)
            if track:
                self._track(user, target, document, options)
            stored = await self._committer.create(target, document, guards, options)
            if stored is not None:
                return stored
        name = document["metadata"]["name"]
        raise errors.conflict(resource.plural, resource.group, name, "its namespace changes all the time")

    async def _complete(self, user: User, target: Target, document: Document) -> Guards:
        """Admit, default and validate, in place; returns what must not change until the object is stored."""
        resource, name = target.resource, document["metadata"]["name"]
        request = Admission(user, Verb.CREATE, resource, target.namespace, name, document=document)
        await self._machinery.admission.admit(request)
        apply_defaults(resource, document)
        # What admission and defaults have set may change the first status (a pod's quality of service).
        reset_status(document, resource)
        causes = validate(resource, document, None)
        causes = causes or check_ranges(resource, document, None, self._machinery.allocator)
        if causes:
            raise errors.invalid(resource.kind, resource.group, name, causes)
        return request.guards

    def _track(self, user: User, target: Target, document: Document, options: WriteOptions) -> None:
        resource = target.resource
        track_update(
            load(resource),
            None,
            document,
            manager=manager_of(user, options),
            api_version=resource.api_version,
            subresource="",
            now=self._machinery.clock.now(),
            status_isolated=resource.status_isolated,
        )


def manager_of(user: User, options: WriteOptions) -> str:
    """The name under which a write's fields are recorded."""
    return options.field_manager or user.name or "unknown"
