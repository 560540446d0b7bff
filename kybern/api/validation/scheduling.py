"""Rules for where pods may run: tolerations, affinity, spread, node selectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kybern.api import names
from kybern.api.validation import selectors
from kybern.api.validation.field import (
    Causes,
    duplicate,
    forbidden,
    in_range,
    invalid,
    not_supported,
    one_of,
    required,
)

_EFFECTS = frozenset({"NoSchedule", "PreferNoSchedule", "NoExecute"})
_TOLERATION_OPERATORS = frozenset({"Equal", "Exists", "Gt", "Lt"})
_NODE_OPERATORS = frozenset({"In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"})
_UNSATISFIABLE = frozenset({"DoNotSchedule", "ScheduleAnyway"})
_NODE_POLICIES = frozenset({"Honor", "Ignore"})


def validate(spec: Mapping[str, Any], path: str, out: Causes) -> None:
    """Complain about what a pod spec says of where the pod may run."""
    selector = spec.get("nodeSelector")
    if selector:
        selectors.validate_map(selector, f"{path}.nodeSelector", out)
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        _toleration(toleration, f"{path}.tolerations[{index}]", out)
    affinity = spec.get("affinity")
    if affinity:
        _affinity(affinity, f"{path}.affinity", out)
    spread = spec.get("topologySpreadConstraints")
    if spread:
        _spread(spread, f"{path}.topologySpreadConstraints", out)


def _toleration(toleration: Mapping[str, Any], path: str, out: Causes) -> None:
    key, operator = toleration.get("key") or "", toleration.get("operator") or "Equal"
    if key:
        out += [invalid(f"{path}.key", key, w) for w in names.qualified(key)]
    elif operator != "Exists":
        detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        out.append(invalid(f"{path}.operator", operator, detail))
    effect = toleration.get("effect") or ""
    if "tolerationSeconds" in toleration and effect != "NoExecute":
        out.append(invalid(f"{path}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
    if operator not in _TOLERATION_OPERATORS:
        out.append(not_supported(f"{path}.operator", operator, _TOLERATION_OPERATORS))
    elif operator == "Exists":
        if toleration.get("value"):
            out.append(
                invalid(f"{path}.operator", toleration["value"], "value must be empty when `operator` is 'Exists'")
            )
    else:
        value = toleration.get("value") or ""
        out += [invalid(f"{path}.operator", value, w) for w in names.label_value(value)]
    if effect and effect not in _EFFECTS:
        out.append(not_supported(f"{path}.effect", effect, _EFFECTS))


def validate_taints(taints: Sequence[Mapping[str, Any]], path: str, out: Causes) -> None:
    """Complain about the taints of a node."""
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(taints):
        at = f"{path}[{index}]"
        key, value, effect = taint.get("key") or "", taint.get("value") or "", taint.get("effect") or ""
        out += [invalid(f"{at}.key", key, w) for w in names.qualified(key)]
        out += [invalid(f"{at}.value", value, w) for w in names.label_value(value)]
        one_of(f"{at}.effect", effect, _EFFECTS, out)
        if (key, effect) in seen:
            out.append(duplicate(at, dict(taint)))
        seen.add((key, effect))


# --- affinity


def _affinity(affinity: Mapping[str, Any], path: str, out: Causes) -> None:
    node = affinity.get("nodeAffinity")
    if node:
        _node_affinity(node, f"{path}.nodeAffinity", out)
    for kind in ("podAffinity", "podAntiAffinity"):
        pods = affinity.get(kind)
        if pods:
            _pod_affinity(pods, f"{path}.{kind}", out)


_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def _node_affinity(affinity: Mapping[str, Any], path: str, out: Causes) -> None:
    needed = affinity.get(_REQUIRED)
    if needed is not None:
        at = f"{path}.{_REQUIRED}.nodeSelectorTerms"
        terms = needed.get("nodeSelectorTerms") or ()
        if not terms:
            out.append(required(at, "must have at least one node selector term"))
        for index, term in enumerate(terms):
            _node_term(term, f"{at}[{index}]", out)
    for index, preference in enumerate(affinity.get(_PREFERRED) or ()):
        at = f"{path}.{_PREFERRED}[{index}]"
        _weight(preference, at, out)
        _node_term(preference.get("preference") or {}, f"{at}.preference", out)


def _weight(preference: Mapping[str, Any], path: str, out: Causes) -> None:
    weight = preference.get("weight") or 0
    if not 1 <= weight <= 100:
        out.append(invalid(f"{path}.weight", weight, "must be in the range 1-100"))


def _node_term(term: Mapping[str, Any], path: str, out: Causes) -> None:
    for index, requirement in enumerate(term.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{index}]"
        _node_requirement(requirement, at, out)
        key = requirement.get("key") or ""
        out += [invalid(f"{at}.key", key, w) for w in names.qualified(key)]
    for index, requirement in enumerate(term.get("matchFields") or ()):
        at = f"{path}.matchFields[{index}]"
        _node_requirement(requirement, at, out)
        if requirement.get("key") != "metadata.name":
            out.append(invalid(f"{at}.key", requirement.get("key"), "not a valid field selector key"))
        if requirement.get("operator") not in ("In", "NotIn"):
            out.append(invalid(f"{at}.operator", requirement.get("operator"), "not a valid selector operator"))


def _node_requirement(requirement: Mapping[str, Any], path: str, out: Causes) -> None:
    operator = requirement.get("operator")
    values: Sequence[str] = requirement.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            out.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            out.append(forbidden(f"{path}.values", detail))
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            out.append(required(f"{path}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'"))
        elif not (values[0].isascii() and values[0].removeprefix("-").isdigit()):
            out.append(invalid(f"{path}.values", values, "must be an integer when `operator` is 'Lt' or 'Gt'"))
    else:
        out.append(not_supported(f"{path}.operator", operator, _NODE_OPERATORS))


def _pod_affinity(affinity: Mapping[str, Any], path: str, out: Causes) -> None:
    for index, term in enumerate(affinity.get(_REQUIRED) or ()):
        _pod_term(term, f"{path}.{_REQUIRED}[{index}]", out)
    for index, preference in enumerate(affinity.get(_PREFERRED) or ()):
        at = f"{path}.{_PREFERRED}[{index}]"
        _weight(preference, at, out)
        _pod_term(preference.get("podAffinityTerm") or {}, f"{at}.podAffinityTerm", out)


def _pod_term(term: Mapping[str, Any], path: str, out: Causes) -> None:
    selectors.validate(term.get("labelSelector"), f"{path}.labelSelector", out)
    selectors.validate(term.get("namespaceSelector"), f"{path}.namespaceSelector", out)
    for index, namespace in enumerate(term.get("namespaces") or ()):
        out += [invalid(f"{path}.namespaces[{index}]", namespace, w) for w in names.label(namespace)]
    _topology_key(term.get("topologyKey"), f"{path}.topologyKey", "can not be empty", out)


def _topology_key(key: str | None, path: str, detail: str, out: Causes) -> None:
    if not key:
        out.append(required(path, detail))
    else:
        out += [invalid(path, key, w) for w in names.qualified(key)]


# --- spread


def _spread(constraints: Sequence[Mapping[str, Any]], path: str, out: Causes) -> None:
    seen: set[tuple[Any, Any]] = set()
    for index, constraint in enumerate(constraints):
        at = f"{path}[{index}]"
        skew = constraint.get("maxSkew") or 0
        if skew <= 0:
            out.append(invalid(f"{at}.maxSkew", skew, "must be greater than zero"))
        _topology_key(constraint.get("topologyKey"), f"{at}.topologyKey", "can not be empty", out)
        action = constraint.get("whenUnsatisfiable")
        one_of(f"{at}.whenUnsatisfiable", action, _UNSATISFIABLE, out)
        pair = (constraint.get("topologyKey"), action)
        if pair in seen:
            out.append(duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{pair[0]}, {pair[1]}}}"))
        seen.add(pair)
        _spread_options(constraint, at, out)
        selectors.validate(constraint.get("labelSelector"), f"{at}.labelSelector", out)


def _spread_options(constraint: Mapping[str, Any], path: str, out: Causes) -> None:
    domains = constraint.get("minDomains")
    if domains is not None:
        in_range(f"{path}.minDomains", domains, 1, 2**31 - 1, out)
        if constraint.get("whenUnsatisfiable") != "DoNotSchedule":
            detail = "can only use minDomains if whenUnsatisfiable=DoNotSchedule"
            out.append(invalid(f"{path}.minDomains", domains, detail))
    for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
        one_of(f"{path}.{field}", constraint.get(field), _NODE_POLICIES, out, needed=False)
