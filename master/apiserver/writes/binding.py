"""The subresource `pods/binding`: puts a pod onto a node. The one way in which `spec.nodeName` is set later."""

from __future__ import annotations

from typing import Any

from kybern.api import errors, resources
from kybern.api.managed_fields import track_update
from kybern.api.metadata import copy_json
from kybern.api.resources import Resource
from kybern.api.schema import load, load_kind
from kybern.api.validation import validate
from kybern.clock import rfc3339
from master.apiserver.interface import Body, Target, User, WriteOptions, Written
from master.apiserver.machinery import Machinery
from master.apiserver.writes import bodies
from master.apiserver.writes.committing import Committer, Next
from master.apiserver.writes.creating import manager_of
from master.apiserver.writes.updating import check_preconditions

Document = dict[str, Any]

BINDING = Resource("", "v1", "Binding", "bindings")


class Binder:
    """Binds pods."""

    def __init__(self, machinery: Machinery, committer: Committer) -> None:
        self._machinery = machinery
        self._committer = committer

    async def bind(self, user: User, target: Target, body: Body, options: WriteOptions) -> Written:
        """Bind the pod that `target` names to the node that the Binding names; answers with the pod."""
        binding, complaints = bodies.read(body)
        binding.setdefault("metadata", {}).setdefault("name", target.name)
        warnings = bodies.conform(BINDING, load_kind("", "v1", "Binding"), binding, options, complaints)
        bodies.check_name(target, binding)
        causes = validate(BINDING, {**binding, "metadata": {"name": target.name, "namespace": target.namespace}}, None)
        if causes:
            raise errors.invalid(BINDING.kind, BINDING.group, target.name, causes)

        async def transform(old: Document) -> Next:
            check_preconditions(target, binding["metadata"], old["metadata"])
            new = _bound(target, binding, old, rfc3339(self._machinery.clock.now()))
            track_update(
                load(resources.PODS),
                old,
                new,
                manager=manager_of(user, options),
                api_version=resources.PODS.api_version,
                subresource="binding",
                now=self._machinery.clock.now(),
            )
            return Next(new)

        committed = await self._committer.change(target, transform, options)
        return Written(committed.document, created=True, warnings=warnings)


def _bound(target: Target, binding: Document, old: Document, now: str) -> Document:
    """The pod on its node.

    Raises:
        StatusError: 409 when it is on one already, is being deleted, or is held back by a scheduling gate.
    """

    def refuse(message: str) -> errors.StatusError:
        return errors.conflict("pods/binding", "", target.name, message)

    if "deletionTimestamp" in old["metadata"]:
        raise refuse(f"pod {target.name} is being deleted, cannot be assigned to a host")
    spec = old.get("spec") or {}
    if spec.get("nodeName"):
        raise refuse(f'pod {target.name} is already assigned to node "{spec["nodeName"]}"')
    if spec.get("schedulingGates"):
        raise refuse(f"pod {target.name} has non-empty .spec.schedulingGates")
    new: Document = copy_json(old)
    new["spec"]["nodeName"] = binding["target"]["name"]
    for field in ("labels", "annotations"):
        if binding["metadata"].get(field):
            new["metadata"].setdefault(field, {}).update(binding["metadata"][field])
    status = new.setdefault("status", {})
    conditions = [c for c in status.get("conditions") or () if c.get("type") != "PodScheduled"]
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now}
    status["conditions"] = [*conditions, scheduled]
    return new
