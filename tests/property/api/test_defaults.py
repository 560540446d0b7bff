"""Defaulting fills in, and only once."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kybern.api import resources, schema
from kybern.api.defaults import apply_defaults
from kybern.api.errors import CauseType
from kybern.api.metadata import copy_json
from kybern.api.pruning import conform
from tests.property.api import strategies

KINDS = {r.kind: r for r in resources.BUILT_IN}


def kept(before: Any, after: Any) -> bool:
    """Whether all that was there is there still; empty values count as unset."""
    if isinstance(before, dict):
        return isinstance(after, dict) and all(not v or kept(v, after.get(k)) for k, v in before.items())
    if isinstance(before, list):
        return isinstance(after, list) and len(after) == len(before) and all(map(kept, before, after))
    return bool(before == after)


@given(st.data())
@strategies.examples(400)
def test_defaults_are_set_once_and_leave_the_rest_alone(data: st.DataObject) -> None:
    resource = KINDS[data.draw(st.sampled_from(sorted(KINDS)))]
    kind = schema.load(resource)
    document = data.draw(strategies.documents(kind))
    before = copy_json(document)
    apply_defaults(resource, document)
    once = copy_json(document)
    apply_defaults(resource, document)
    assert document == once
    # A defaulted document is as good as before.
    found = conform(kind, document)
    assert found.unknown == []
    assert [c for c in found.causes if c.reason != CauseType.REQUIRED] == []
    assert document == once
    if resource.kind == "Service":
        before.get("spec", {}).pop("sessionAffinityConfig", None)
    if resource.kind == "Secret":
        plain = before.pop("stringData", {})
        for key in plain:
            before.get("data", {}).pop(key, None)
    assert kept(before, document)
