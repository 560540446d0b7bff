"""What may change in a pod that exists: little, since its containers run.

`spec.nodeName` is not among it: pods are bound through their `binding` subresource, whose handler does not ask here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kybern.api.metadata import copy_json
from kybern.api.validation.field import Causes, forbidden, invalid, required

_RULE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def validate(new: Mapping[str, Any], old: Mapping[str, Any], out: Causes) -> None:
    """Complain about changes of a pod's spec that are not allowed."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    if spec == before:
        return
    changed: dict[str, Any] = copy_json(spec)
    if not _containers(changed, before, out):
        return
    _deadline(changed, before, out)
    _gates(changed, before, out)
    _tolerations(changed, before, out)
    if before.get("schedulingGates"):
        _while_gated(changed, before, out)
    if before.get("terminationGracePeriodSeconds", 0) < 0 and changed.get("terminationGracePeriodSeconds") == 1:
        changed["terminationGracePeriodSeconds"] = before["terminationGracePeriodSeconds"]
    # Whatever may change is as before by now.
    fields = sorted(k for k in changed.keys() | before.keys() if changed.get(k) != before.get(k))
    if fields:
        out.append(forbidden("spec", f"{_RULE}; changed: {', '.join(f'spec.{f}' for f in fields)}"))


def _containers(changed: dict[str, Any], before: Mapping[str, Any], out: Causes) -> bool:
    """Images may change, the number of containers may not."""
    for field in ("containers", "initContainers"):
        now, then = changed.get(field) or [], before.get(field) or []
        if len(now) != len(then):
            out.append(forbidden(f"spec.{field}", "pod updates may not add or remove containers"))
            return False
        for index, (container, old) in enumerate(zip(now, then, strict=True)):
            if not container.get("image"):
                out.append(required(f"spec.{field}[{index}].image"))
            container["image"] = old.get("image")
            # The pull policy follows from an image's tag when nobody sets it.
            _same(container, old, "imagePullPolicy")
    return True


def _same(target: dict[str, Any], source: Mapping[str, Any], field: str) -> None:
    if field in source:
        target[field] = source[field]
    else:
        target.pop(field, None)


def _deadline(changed: dict[str, Any], before: Mapping[str, Any], out: Causes) -> None:
    now, then = changed.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    if then is not None and now is None:
        out.append(invalid("spec.activeDeadlineSeconds", now, "must not update from a positive integer to nil value"))
    elif then is not None and now is not None and now > then:
        out.append(invalid("spec.activeDeadlineSeconds", now, "must be less than or equal to previous value"))
    _same(changed, before, "activeDeadlineSeconds")


def _gates(changed: dict[str, Any], before: Mapping[str, Any], out: Causes) -> None:
    then = {g.get("name") for g in before.get("schedulingGates") or ()}
    for index, gate in enumerate(changed.get("schedulingGates") or ()):
        if gate.get("name") not in then:
            detail = "only deletion is allowed, but found new scheduling gate"
            out.append(forbidden(f"spec.schedulingGates[{index}]", f"{detail} {gate.get('name')!r}"))
    _same(changed, before, "schedulingGates")


def _tolerations(changed: dict[str, Any], before: Mapping[str, Any], out: Causes) -> None:
    now: Sequence[Any] = changed.get("tolerations") or []
    kept = [_without_seconds(t) for t in now]
    for toleration in before.get("tolerations") or ():
        if _without_seconds(toleration) not in kept:
            detail = "existing toleration can not be modified except its tolerationSeconds"
            out.append(forbidden("spec.tolerations", detail))
            break
    _same(changed, before, "tolerations")


def _without_seconds(toleration: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in toleration.items() if k != "tolerationSeconds" and v != ""}


def _while_gated(changed: dict[str, Any], before: Mapping[str, Any], out: Causes) -> None:
    """A pod that is held back from scheduling may still be told more narrowly where to run."""
    now, then = changed.get("nodeSelector") or {}, before.get("nodeSelector") or {}
    if any(now.get(k) != v for k, v in then.items()):
        detail = "only additions are allowed (no mutations or deletions)"
        out.append(invalid("spec.nodeSelector", now, detail))
    _same(changed, before, "nodeSelector")
    if not before.get("affinity"):
        changed.pop("affinity", None)
