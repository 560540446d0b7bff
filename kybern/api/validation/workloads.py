"""Rules for Deployments and ReplicaSets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kybern.api import names
from kybern.api import selectors as matching
from kybern.api.validation import pods, selectors
from kybern.api.validation.field import (
    IMMUTABLE,
    Causes,
    forbidden,
    invalid,
    non_negative,
    not_supported,
    required,
)

_STRATEGIES = frozenset({"Recreate", "RollingUpdate"})


def deployment(document: Mapping[str, Any], out: Causes) -> None:
    """Complain about a Deployment."""
    spec = document.get("spec") or {}
    non_negative("spec.replicas", spec.get("replicas"), out)
    _selector_and_template(spec, "deployment", out)
    _strategy(spec.get("strategy") or {}, out)
    for field in ("minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        non_negative(f"spec.{field}", spec.get(field), out)
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= (spec.get("minReadySeconds") or 0):
        out.append(invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))


def replica_set(document: Mapping[str, Any], out: Causes) -> None:
    """Complain about a ReplicaSet."""
    spec = document.get("spec") or {}
    non_negative("spec.replicas", spec.get("replicas"), out)
    non_negative("spec.minReadySeconds", spec.get("minReadySeconds"), out)
    _selector_and_template(spec, "replicaset", out)


def immutable_selector(new: Mapping[str, Any], old: Mapping[str, Any], out: Causes) -> None:
    """Complain about a changed selector: the objects that it selected would be left alone."""
    now, then = (new.get("spec") or {}).get("selector"), (old.get("spec") or {}).get("selector")
    if now != then:
        out.append(invalid("spec.selector", now, IMMUTABLE))


def _selector_and_template(spec: Mapping[str, Any], kind: str, out: Causes) -> None:
    selector = spec.get("selector")
    if selector is None:
        out.append(required("spec.selector"))
    else:
        selectors.validate(selector, "spec.selector", out)
        if selectors.selects_nothing_in_particular(selector):
            out.append(invalid("spec.selector", selector, f"empty selector is invalid for {kind}"))
    template = spec.get("template")
    if not template:
        out.append(required("spec.template"))
        return
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not _matches(selector, labels):
        detail = "`selector` does not match template `labels`"
        out.append(invalid("spec.template.metadata.labels", labels, detail))
    pods.validate_template(template, "spec.template", out)
    _long_running(template.get("spec") or {}, kind, out)


def _matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    try:
        compiled = matching.from_label_selector(selector)
    except (ValueError, KeyError):
        # Complained about elsewhere.
        return True
    return compiled is not None and (compiled.empty or compiled.matches(labels))


def _long_running(spec: Mapping[str, Any], kind: str, out: Causes) -> None:
    """Pods that are kept at a number are never done."""
    policy = spec.get("restartPolicy")
    if policy and policy != "Always":
        out.append(not_supported("spec.template.spec.restartPolicy", policy, ["Always"]))
    if spec.get("activeDeadlineSeconds") is not None:
        where = {"deployment": "Deployment", "replicaset": "ReplicaSet"}[kind]
        out.append(
            forbidden("spec.template.spec.activeDeadlineSeconds", f"activeDeadlineSeconds in {where} is not Supported")
        )


def _strategy(strategy: Mapping[str, Any], out: Causes) -> None:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            detail = "may not be specified when strategy `type` is 'Recreate'"
            out.append(forbidden("spec.strategy.rollingUpdate", detail))
    elif kind == "RollingUpdate":
        if rolling is None:
            out.append(required("spec.strategy.rollingUpdate", "this should be defaulted and never be nil"))
        else:
            _rolling_update(rolling, "spec.strategy.rollingUpdate", out)
    elif kind:
        out.append(not_supported("spec.strategy.type", kind, _STRATEGIES))
    else:
        out.append(required("spec.strategy"))


def _rolling_update(rolling: Mapping[str, Any], path: str, out: Causes) -> None:
    unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
    for field, value in (("maxUnavailable", unavailable), ("maxSurge", surge)):
        number_or_percent(value, f"{path}.{field}", out)
    if _amount(unavailable) == 0 and _amount(surge) == 0:
        out.append(invalid(f"{path}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
    if isinstance(unavailable, str) and _amount(unavailable) > 100:
        out.append(invalid(f"{path}.maxUnavailable", unavailable, "must not be greater than 100%"))


def number_or_percent(value: int | str, path: str, out: Causes) -> None:
    """Complain about what is neither a count nor a percentage."""
    if isinstance(value, str):
        out += [invalid(path, value, w) for w in names.percent(value)]
    else:
        non_negative(path, value, out)


def _amount(value: int | str) -> int:
    """The number in a count or a percentage; -1 when there is none."""
    if isinstance(value, int):
        return value
    digits = value.removesuffix("%")
    return int(digits) if digits.isascii() and digits.isdigit() else -1
