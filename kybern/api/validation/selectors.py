"""Rules for label selectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kybern.api import names
from kybern.api.validation.field import Causes, forbidden, invalid, not_supported, required

_OPERATORS = frozenset({"In", "NotIn", "Exists", "DoesNotExist"})


def validate(selector: Mapping[str, Any] | None, path: str, out: Causes) -> None:
    """Complain about a label selector; absent is fine."""
    if not selector:
        return
    validate_map(selector.get("matchLabels") or {}, f"{path}.matchLabels", out)
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        _expression(expression, f"{path}.matchExpressions[{index}]", out)


def validate_map(labels: Mapping[str, str], path: str, out: Causes) -> None:
    """Complain about a selector that is a plain map."""
    for key, value in labels.items():
        out += [invalid(path, key, w) for w in names.qualified(key)]
        out += [invalid(path, value, w) for w in names.label_value(value)]


def _expression(expression: Mapping[str, Any], path: str, out: Causes) -> None:
    operator, values = expression.get("operator"), expression.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            out.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            out.append(forbidden(f"{path}.values", detail))
    else:
        out.append(not_supported(f"{path}.operator", operator, _OPERATORS))
    key = expression.get("key") or ""
    out += [invalid(f"{path}.key", key, w) for w in names.qualified(key)]
    for index, value in enumerate(values):
        out += [invalid(f"{path}.values[{index}]", value, w) for w in names.label_value(value)]


def selects_nothing_in_particular(selector: Mapping[str, Any]) -> bool:
    """Whether a selector has no condition, and so matches everything."""
    return not selector.get("matchLabels") and not selector.get("matchExpressions")
