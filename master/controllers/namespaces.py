"""Empties deleted namespaces and lets them go. Deletes everything in them; writes their status and finalizers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.api.resources import Resource
from kybern.api.types import Condition, Namespace, Object, decode
from kybern.client import kinds
from kybern.client.acting import LeadershipLost
from kybern.client.controller import Controller, ControllerContext
from kybern.client.interface import Propagation
from kybern.key import Key
from master.controllers import batches, conditions

FINALIZER = "kubernetes"
# Seconds until a namespace that still has something in it is looked at again.
AGAIN = 1.0


@dataclass(frozen=True, slots=True)
class Remaining:
    """What a namespace still has: objects by resource, and finalizers that hold some of them."""

    objects: Mapping[Resource, int]
    finalizers: Mapping[str, int]
    refused: Sequence[StatusError] = ()


def stated(left: Remaining) -> list[tuple[str, str, str, str]]:
    """Type, status, reason and message of the conditions of a namespace on its way out."""
    objects = ", ".join(f"{r.qualified} has {n} resource instances" for r, n in sorted(left.objects.items(), key=str))
    finalizers = ", ".join(f"{f} in {n} resource instances" for f, n in sorted(left.finalizers.items()))
    failures = "; ".join(str(e) for e in left.refused)
    return [
        ("NamespaceDeletionDiscoveryFailure", "False", "ResourcesDiscovered", "All resources successfully discovered"),
        (
            "NamespaceDeletionContentFailure",
            *(
                ("True", "ContentDeletionFailed", f"Failed to delete all resources: {failures}")
                if failures
                else ("False", "ContentDeleted", "All content successfully deleted, may be waiting on finalization")
            ),
        ),
        (
            "NamespaceContentRemaining",
            *(
                ("True", "SomeResourcesRemain", f"Some resources are remaining: {objects}")
                if objects
                else ("False", "ContentRemoved", "All content successfully removed")
            ),
        ),
        (
            "NamespaceFinalizersRemaining",
            *(
                ("True", "SomeFinalizersRemain", f"Some content has finalizers remaining: {finalizers}")
                if finalizers
                else ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished")
            ),
        ),
    ]


class NamespaceController(Controller):
    """One key is one Namespace; `contents` are the resources that may be in it."""

    name = "namespace-controller"

    def __init__(self, context: ControllerContext, contents: Iterable[Resource] = resources.BUILT_IN) -> None:
        super().__init__(context)
        self._contents = tuple(r for r in contents if r.namespaced and "delete" in r.verbs)
        self._namespaces = self.watch(kinds.NAMESPACES)

    async def reconcile(self, key: Key) -> float | None:
        """Delete what is in a deleted namespace; once nothing is, take our finalizer away."""
        namespace = self._namespaces.get(key)
        if namespace is None or not namespace.deleting or FINALIZER not in namespace.spec.finalizers:
            return None
        left = await self._empty(namespace.name)
        if not left.objects and not left.refused:
            await self._finalize(namespace)
            return None
        await self._say(namespace, left, self.clock.now())
        return AGAIN

    async def _empty(self, name: str) -> Remaining:
        objects: dict[Resource, int] = {}
        finalizers: dict[str, int] = {}
        refused: list[StatusError] = []
        for resource in self._contents:
            # The API itself is asked, not a cache: what was created in the last moment must go too.
            found = [decode(item, Object) for item in (await self.client.list(resource, name)).items]
            if not found:
                continue
            refused += await batches.together(self._delete(resource, o) for o in found if not o.deleting)
            still = [decode(item, Object) for item in (await self.client.list(resource, name)).items]
            if still:
                objects[resource] = len(still)
            for finalizer in (f for o in still for f in o.metadata.finalizers):
                finalizers[finalizer] = finalizers.get(finalizer, 0) + 1
        return Remaining(objects, finalizers, refused)

    async def _delete(self, resource: Resource, victim: Object) -> None:
        try:
            await self.client.delete(
                resource, victim.name, victim.namespace, uid=victim.uid, propagation=Propagation.BACKGROUND
            )
        except StatusError as error:
            if isinstance(error, LeadershipLost) or error.reason not in (Reason.NOT_FOUND, Reason.CONFLICT):
                raise

    async def _finalize(self, namespace: Namespace) -> None:
        try:
            document = msgspec.json.decode(await self.client.get(resources.NAMESPACES, namespace.name))
            if document["metadata"].get("uid") != namespace.uid:
                return
            left = [f for f in document["spec"].get("finalizers") or () if f != FINALIZER]
            document["spec"]["finalizers"] = left
            await self.client.update(resources.NAMESPACES, namespace.name, document, subresource="finalize")
        except StatusError as error:
            if isinstance(error, LeadershipLost) or error.reason != Reason.NOT_FOUND:
                raise

    async def _say(self, namespace: Namespace, left: Remaining, now: datetime) -> None:
        # The view has no conditions: the document is read and the list is written whole.
        document = msgspec.json.decode(await self.client.get(resources.NAMESPACES, namespace.name))
        before = tuple(msgspec.convert(c, Condition) for c in (document.get("status") or {}).get("conditions") or ())
        after = before
        for kind, status, reason, message in stated(left):
            old = conditions.find(after, kind)
            if old is None or (old.status, old.message) != (status, message):
                after = conditions.with_condition(after, Condition(kind, status, reason, message), now)
        if after == before:
            return
        patch: dict[str, Any] = {
            "metadata": {"uid": namespace.uid, "resourceVersion": document["metadata"]["resourceVersion"]},
            "status": {"conditions": [conditions.document(c) for c in after]},
        }
        await self.client.patch(resources.NAMESPACES, namespace.name, patch, subresource="status")
