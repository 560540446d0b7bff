"""The subresource `pods/eviction`: a deletion that asks first. Without disruption budgets nothing says no."""

from __future__ import annotations

from typing import Any

import msgspec

from kybern.api import errors
from kybern.api.resources import Resource
from kybern.api.schema import load_kind
from master.apiserver.interface import Body, DeleteOptions, Target, User, WriteOptions, Written
from master.apiserver.writes import bodies
from master.apiserver.writes.deleting import Deleter

EVICTION = Resource("policy", "v1", "Eviction", "evictions")
_SUCCESS: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


class Evictor:
    """Evicts pods."""

    def __init__(self, deleter: Deleter) -> None:
        self._deleter = deleter

    async def evict(self, user: User, target: Target, body: Body, options: WriteOptions) -> Written:
        """Delete the pod that `target` names, as the Eviction's options say; answers with a Status."""
        eviction, complaints = bodies.read(body)
        schema = load_kind(EVICTION.group, EVICTION.version, EVICTION.kind)
        warnings = bodies.conform(EVICTION, schema, eviction, options, complaints)
        bodies.check_name(target, eviction)
        stated = eviction.get("deleteOptions") or {}
        preconditions = stated.get("preconditions") or {}
        dry_run = stated.get("dryRun") or []
        if dry_run not in ([], ["All"]):
            raise errors.bad_request(f"deleteOptions.dryRun: Invalid value: {dry_run}")
        write = options if not dry_run else WriteOptions(True, options.field_manager, options.field_validation)
        asked = DeleteOptions(
            grace_seconds=stated.get("gracePeriodSeconds"),
            propagation=str(stated.get("propagationPolicy") or ""),
            uid=str(preconditions.get("uid") or ""),
            resource_version=str(preconditions.get("resourceVersion") or ""),
            write=write,
        )
        await self._deleter.delete(user, Target(target.resource, target.namespace, target.name), asked)
        return Written(msgspec.json.encode(_SUCCESS), created=True, warnings=warnings)
