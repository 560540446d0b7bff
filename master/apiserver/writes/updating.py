"""Replaces and patches objects and their statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kybern.api import errors, resources
from kybern.api.defaults import apply_defaults
from kybern.api.errors import Cause, CauseType
from kybern.api.managed_fields import apply, track_update
from kybern.api.metadata import bump_generation, copy_json, prepare_status_update, prepare_update
from kybern.api.patch import apply_patch
from kybern.api.resources import Resource
from kybern.api.schema import load
from kybern.api.validation import validate, validate_status
from kybern.client.interface import PatchType
from master.admission.request import Admission, Verb
from master.apiserver.allocation import carry_over, check_ranges
from master.apiserver.interface import Body, Target, User, WriteOptions, Written
from master.apiserver.lifecycle import removable
from master.apiserver.machinery import Machinery
from master.apiserver.writes import bodies
from master.apiserver.writes.committing import Committer, Next
from master.apiserver.writes.creating import Creator, manager_of

Document = dict[str, Any]


class Updater:
    """Changes objects that exist; server-side apply creates those that do not."""

    def __init__(self, machinery: Machinery, committer: Committer, creator: Creator) -> None:
        self._machinery = machinery
        self._committer = committer
        self._creator = creator

    async def update(self, user: User, target: Target, body: Body, options: WriteOptions) -> Written:
        """Replace an object, its status, or the finalizers of a namespace."""
        document, complaints = bodies.read(body)
        warnings = bodies.conform(target.resource, load(target.resource), document, options, complaints)
        bodies.check_name(target, document)

        async def transform(old: Document) -> Next:
            return await self._next(user, target, copy_json(document), old, options)

        committed = await self._committer.change(target, transform, options)
        return Written(committed.document, warnings=warnings)

    async def patch(
        self, user: User, target: Target, kind: PatchType, data: bytes, options: WriteOptions, *, force: bool
    ) -> Written:
        """Change a part of an object; starts over when somebody else was quicker."""
        patch, complaints = bodies.read_patch(kind, data)
        if kind is PatchType.APPLY:
            return await self._apply(user, target, patch, complaints, options, force=force)
        schema = load(target.resource)
        warnings: tuple[str, ...] = ()

        async def transform(old: Document) -> Next:
            nonlocal warnings
            patched = apply_patch(schema, old, patch, kind)
            warnings = bodies.conform(target.resource, schema, patched, options, complaints)
            bodies.check_name(target, patched)
            return await self._next(user, target, patched, old, options)

        committed = await self._committer.change(target, transform, options)
        return Written(committed.document, warnings=warnings)

    async def _apply(
        self, user: User, target: Target, applied: Any, complaints: list[str], options: WriteOptions, *, force: bool
    ) -> Written:
        resource, schema = target.resource, load(target.resource)
        if not options.field_manager:
            cause = Cause("fieldManager", "Required value: is required for apply patch", CauseType.REQUIRED)
            raise errors.invalid("PatchOptions", "meta.k8s.io", "", [cause])
        warnings = bodies.conform(resource, schema, applied, options, complaints, partial=True)
        bodies.check_name(target, applied)

        def merged(live: Document | None) -> Document:
            return apply(
                schema,
                live,
                applied,
                manager=options.field_manager,
                api_version=resource.api_version,
                subresource=target.subresource,
                force=force,
                now=self._machinery.clock.now(),
                status_isolated=resource.status_isolated,
            )

        async def transform(old: Document) -> Next:
            return await self._next(user, target, merged(old), old, options, track=False)

        if not target.subresource and not await self._exists(target):
            created = await self._created(user, target, merged(None), options)
            if created is not None:
                return Written(created, created=True, warnings=warnings)
        committed = await self._committer.change(target, transform, options)
        return Written(committed.document, warnings=warnings)

    async def _exists(self, target: Target) -> bool:
        return await self._machinery.lookup.get(target.resource, target.namespace, target.name) is not None

    async def _created(self, user: User, target: Target, document: Document, options: WriteOptions) -> bytes | None:
        """Apply of an object that does not exist; None when it has come into being meanwhile."""
        metadata = document.setdefault("metadata", {})
        if metadata.get("uid"):
            raise _uid_conflict(target, str(metadata["uid"]), "")
        # A creation by PATCH is authorized as what it is.
        await self._machinery.authorize(user, "create", target)
        metadata.setdefault("name", target.name)
        try:
            return await self._creator.store(user, target, document, options, track=False)
        except errors.StatusError as error:
            if error.reason != errors.Reason.ALREADY_EXISTS:
                raise
            return None

    # --- the next state of an object

    async def _next(
        self, user: User, target: Target, new: Document, old: Document, options: WriteOptions, *, track: bool = True
    ) -> Next:
        """What a client's whole document makes of the object; the document is used up."""
        check_preconditions(target, new.get("metadata") or {}, old["metadata"])
        if target.subresource == "status":
            new = prepare_status_update(new, old, resource=target.resource)
        elif target.subresource == "finalize":
            new = _finalized(new, old)
        else:
            _prepare(new, old, target.resource)
        return await self.finish(user, target, new, old, options, track=track)

    async def finish(
        self,
        user: User,
        target: Target,
        new: Document,
        old: Document,
        options: WriteOptions,
        *,
        track: bool = True,
        tracked_as: str = "",
    ) -> Next:
        """Admit, default, validate and track a prepared state; `tracked_as` names another subresource for the last."""
        resource = target.resource
        request = Admission(
            user, Verb.UPDATE, resource, target.namespace, target.name, target.subresource, document=new, old=old
        )
        await self._machinery.admission.admit(request)
        apply_defaults(resource, new)
        if not target.subresource:
            bump_generation(new, old, resource)
        self._validate(target, new, old)
        if track:
            track_update(
                load(resource),
                old,
                new,
                manager=manager_of(user, options),
                api_version=resource.api_version,
                subresource=tracked_as or target.subresource,
                now=self._machinery.clock.now(),
                status_isolated=resource.status_isolated,
            )
        return Next(new, remove=removable(resource, new), guards=request.guards)

    def _validate(self, target: Target, new: Document, old: Document) -> None:
        resource = target.resource
        if target.subresource == "status":
            causes = validate_status(resource, new, old)
        else:
            causes = validate(resource, new, old)
            causes = causes or check_ranges(resource, new, old, self._machinery.allocator)
        if causes:
            raise errors.invalid(resource.kind, resource.group, target.name, causes)


def _prepare(new: Document, old: Document, resource: Resource) -> None:
    prepare_update(new, old, resource=resource)
    if resource == resources.SERVICES:
        carry_over(new, old)
    if resource == resources.NAMESPACES:
        # Taken away through the subresource `finalize` alone.
        _set_spec_finalizers(new, (old.get("spec") or {}).get("finalizers"))


def _finalized(new: Document, old: Mapping[str, Any]) -> Document:
    """A namespace with the finalizers of its spec as in `new`, and all else as it was."""
    result: Document = copy_json(dict(old))
    finalizers = (new.get("spec") or {}).get("finalizers")
    _set_spec_finalizers(result, finalizers)
    return result


def _set_spec_finalizers(document: Document, finalizers: Any) -> None:
    spec = document.setdefault("spec", {})
    if finalizers:
        spec["finalizers"] = list(finalizers)
    else:
        spec.pop("finalizers", None)


def check_preconditions(target: Target, given: Mapping[str, Any], actual: Mapping[str, Any]) -> None:
    """Refuse a change of another object, or of another state of it, than the client means.

    Raises:
        StatusError: 409, naming what is not as expected.
    """
    uid, version = given.get("uid"), given.get("resourceVersion")
    if uid and uid != actual.get("uid"):
        raise _uid_conflict(target, str(uid), str(actual.get("uid")))
    if version and version != actual.get("resourceVersion"):
        raise errors.modified(target.resource.plural, target.resource.group, target.name)


def _uid_conflict(target: Target, wanted: str, actual: str) -> errors.StatusError:
    message = f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}"
    return errors.conflict(target.resource.plural, target.resource.group, target.name, message)
