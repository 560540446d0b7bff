"""The fast check in C and the walk in Python agree."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kybern.api import quantity, resources, schema
from kybern.api.metadata import copy_json
from kybern.api.pruning import Conformance, conform
from kybern.api.schema.strict import conforms, has_fast_check
from tests.property.api import strategies

KINDS = {r.kind: schema.load(r) for r in resources.BUILT_IN}
any_kind = st.sampled_from(sorted(KINDS))


def walked(kind: schema.Schema, document: dict[str, Any]) -> Conformance:
    """What the walk finds, whatever the fast check says."""
    # A field that is not known sends every document to the walk.
    document["\0"] = None
    found = conform(kind, document)
    found.unknown.remove('unknown field "\0"')
    return found


@given(st.data())
@strategies.examples(400)
def test_what_the_fast_check_accepts_the_walk_leaves_alone(data: st.DataObject) -> None:
    kind = KINDS[data.draw(any_kind)]
    document = data.draw(strategies.damaged(kind))
    if conforms(kind, document):
        before = copy_json(document)
        assert walked(kind, document) == Conformance()
        assert document == before


@given(st.data())
@strategies.examples(200)
def test_documents_in_order_take_the_fast_way(data: st.DataObject) -> None:
    kind = KINDS[data.draw(any_kind)]
    document = data.draw(strategies.documents(kind))
    found = walked(kind, copy_json(document))
    assert found == Conformance()
    # 29 February alone is left to the walk.
    assert conforms(kind, document) or "-02-29T" in repr(document)


@given(st.data())
@strategies.examples(300)
def test_a_walked_document_is_in_order_or_its_faults_are_named(data: st.DataObject) -> None:
    kind = KINDS[data.draw(any_kind)]
    document = data.draw(strategies.damaged(kind))
    found = conform(kind, document)
    again = copy_json(document)
    second = conform(kind, again)
    # What could be repaired is repaired, and stays so.
    assert second.unknown == []
    assert again == document
    assert second.causes == found.causes


@given(st.from_regex(r"\A[+-]?[0-9]{0,21}(\.[0-9]{0,10})?([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,3})?\Z"))
@strategies.examples(500)
def test_the_fast_check_knows_canonical_quantities(text: str) -> None:
    container = schema.load_definition("io.k8s.api.core.v1.ResourceRequirements")
    if conforms(container, {"limits": {"cpu": text}}):
        assert quantity.canonical(text) == text


@given(st.integers(0, 2**63 - 1), st.sampled_from(["", "m", "k", "Mi", "Gi", "n", "e3"]))
def test_canonical_quantities_stay_the_same_number(number: int, suffix: str) -> None:
    written = quantity.canonical(f"{number}{suffix}")
    assert quantity.parse(written) == quantity.parse(f"{number}{suffix}")
    assert quantity.canonical(written) == written


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_has_a_fast_check(kind: str) -> None:
    assert has_fast_check(KINDS[kind])
