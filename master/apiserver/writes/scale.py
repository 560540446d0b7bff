"""The subresource `scale`: the replicas of a workload as a `Scale` object of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kybern.api import errors, selectors
from kybern.api.errors import Cause, CauseType
from kybern.api.metadata import copy_json, encode, splice_resource_version
from kybern.api.patch import apply_patch
from kybern.api.resources import Resource
from kybern.api.schema import load_kind
from kybern.client.interface import PatchType
from master.apiserver.entry import Entry
from master.apiserver.interface import Body, Target, User, WriteOptions, Written
from master.apiserver.writes import bodies
from master.apiserver.writes.committing import Committed, Committer, Next
from master.apiserver.writes.updating import Updater, check_preconditions

Document = dict[str, Any]

SCALE = Resource("autoscaling", "v1", "Scale", "scales")
_KEPT = ("name", "namespace", "uid", "creationTimestamp", "resourceVersion")


def scale_of(document: Mapping[str, Any]) -> Document:
    """The Scale of a workload."""
    spec, status = document.get("spec") or {}, document.get("status") or {}
    try:
        selector = selectors.from_label_selector(spec.get("selector"))
    except ValueError:
        selector = None
    scale: Document = {
        "apiVersion": SCALE.api_version,
        "kind": SCALE.kind,
        "metadata": {k: v for k, v in document["metadata"].items() if k in _KEPT},
        "spec": {"replicas": spec.get("replicas", 1)},
        "status": {"replicas": status.get("replicas", 0)},
    }
    if selector is not None:
        scale["status"]["selector"] = selectors.to_text(selector)
    return scale


def scale_bytes(document: Mapping[str, Any], revision: int) -> bytes:
    """The Scale of a workload as it is answered."""
    return splice_resource_version(encode(scale_of(document)), revision)


class Scaler:
    """Replaces and patches Scales."""

    def __init__(self, committer: Committer, updater: Updater) -> None:
        self._committer = committer
        self._updater = updater

    async def update(self, user: User, target: Target, body: Body, options: WriteOptions) -> Written:
        """Set the replicas of a workload to those of a Scale."""
        scale, complaints = bodies.read(body)
        warnings = _conform(scale, options, complaints)
        bodies.check_name(target, scale)

        async def transform(old: Document) -> Next:
            return await self._next(user, target, scale, old, options)

        return _written(await self._committer.change(target, transform, options), warnings)

    async def patch(self, user: User, target: Target, kind: PatchType, data: bytes, options: WriteOptions) -> Written:
        """Patch the Scale of a workload. An apply is a merge: there is one field to own."""
        patch, complaints = bodies.read_patch(kind, data)
        kind = PatchType.MERGE if kind is PatchType.APPLY else kind
        schema = load_kind(SCALE.group, SCALE.version, SCALE.kind)
        warnings: tuple[str, ...] = ()

        async def transform(old: Document) -> Next:
            nonlocal warnings
            scale = apply_patch(schema, scale_of(old), patch, kind)
            warnings = _conform(scale, options, complaints)
            bodies.check_name(target, scale)
            return await self._next(user, target, scale, old, options)

        return _written(await self._committer.change(target, transform, options), warnings)

    async def _next(self, user: User, target: Target, scale: Document, old: Document, options: WriteOptions) -> Next:
        check_preconditions(target, scale.get("metadata") or {}, old["metadata"])
        replicas = (scale.get("spec") or {}).get("replicas", 0)
        if replicas < 0:
            text = f"Invalid value: {replicas}: must be greater than or equal to 0"
            raise errors.invalid(
                SCALE.kind, SCALE.group, target.name, [Cause("spec.replicas", text, CauseType.INVALID)]
            )
        new: Document = copy_json(old)
        new.setdefault("spec", {})["replicas"] = replicas
        main = Target(target.resource, target.namespace, target.name)
        return await self._updater.finish(user, main, new, old, options, tracked_as="scale")


def _conform(scale: Document, options: WriteOptions, complaints: list[str]) -> tuple[str, ...]:
    scale.setdefault("apiVersion", SCALE.api_version)
    scale.setdefault("kind", SCALE.kind)
    if scale["kind"] != SCALE.kind:
        raise errors.bad_request(f"the kind in the data ({scale['kind']}) does not match the expected kind (Scale)")
    return bodies.conform(SCALE, load_kind(SCALE.group, SCALE.version, SCALE.kind), scale, options, complaints)


def _written(committed: Committed, warnings: tuple[str, ...]) -> Written:
    entry = Entry(b"", "", "", committed.document, 0)
    document = entry.document()
    return Written(scale_bytes(document, int(document["metadata"]["resourceVersion"])), warnings=warnings)
