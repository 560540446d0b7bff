"""Ownership and server-side apply, on documents of every kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kybern.api import resources, schema
from kybern.api.errors import StatusError
from kybern.api.managed_fields import apply, sets, track_update
from kybern.api.managed_fields.comparing import UNOWNED, compare, fields_of
from kybern.api.managed_fields.merging import merge
from kybern.api.metadata import copy_json
from tests.property.api import strategies

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
NONE: frozenset[str] = frozenset()
KINDS = {r.kind: r for r in resources.BUILT_IN}

Document = dict[str, Any]


@st.composite
def of_one_kind(draw: st.DrawFn, count: int) -> tuple[str, list[Document]]:
    """A kind and some documents of it, all of one object."""
    name = draw(st.sampled_from(sorted(KINDS)))
    drawn = [draw(strategies.documents(schema.load(KINDS[name]), 3)) for _ in range(count)]
    for document in drawn:
        metadata = document.setdefault("metadata", {})
        for key in UNOWNED["metadata"]:
            metadata.pop(key, None)
        document.update(apiVersion=KINDS[name].api_version, kind=name)
        metadata["name"] = "x"
    return name, drawn


def load(name: str) -> schema.Schema:
    return schema.load(KINDS[name])


def put(kind: schema.Schema, live: Document | None, config: Document, **options: Any) -> Document:
    settings_ = {"manager": "a", "api_version": "v1", "subresource": "", "force": False, "now": NOW, **options}
    return apply(kind, live, config, status_isolated=False, **settings_)


def tracked(kind: schema.Schema, old: Document | None, new: Document, manager: str = "u") -> Document:
    result: Document = copy_json(new)
    track_update(kind, old, result, manager=manager, api_version="v1", subresource="", now=NOW, status_isolated=False)
    return result


def without_entries(document: Document) -> Document:
    result: Document = copy_json(document)
    result["metadata"].pop("managedFields", None)
    return result


def entries(document: Document) -> list[Document]:
    return list(document["metadata"].get("managedFields", []))


def owned(document: Document, manager: str) -> sets.Fields:
    result: sets.Fields = {}
    for entry in entries(document):
        if entry["manager"] == manager:
            result = sets.union(result, entry["fieldsV1"])
    return result


@given(of_one_kind(2))
@strategies.examples(200)
def test_what_changed_is_what_differs(drawn: tuple[str, list[Document]]) -> None:
    name, (old, new) = drawn
    kind = load(name)
    compared = compare(kind, old, new, NONE)
    assert compare(kind, new, new, NONE).changed == {}
    # What is new is in the new document; what is gone is not.
    assert sets.difference(compared.changed, everywhere(fields_of(kind, new))) == {}
    assert sets.intersection(compared.removed, fields_of(kind, new)) == {}


def everywhere(fields: sets.Fields) -> sets.Fields:
    """A set with all that its members lie in."""
    return {k: {".": {}, **everywhere(v)} if v and k != "." else v for k, v in fields.items()}


@given(of_one_kind(2))
@strategies.examples(150)
def test_an_update_owns_what_it_changed_and_nothing_that_is_gone(drawn: tuple[str, list[Document]]) -> None:
    name, (first, second) = drawn
    kind = load(name)
    created = tracked(kind, None, first, "one")
    updated = tracked(kind, created, second, "two")
    assert without_entries(updated) == without_entries(second)
    here = everywhere(fields_of(kind, second))
    for manager in ("one", "two"):
        assert sets.difference(owned(updated, manager), here) == {}
    # Nobody owns a field together with the one who changed it last.
    both = sets.intersection(owned(updated, "one"), owned(updated, "two"))
    assert both == {}
    assert owned(updated, "two") == compare(kind, first, second, NONE).changed


@given(of_one_kind(1))
@strategies.examples(100)
def test_a_write_that_changes_nothing_records_nothing(drawn: tuple[str, list[Document]]) -> None:
    name, (document,) = drawn
    kind = load(name)
    created = tracked(kind, None, document)
    later = copy_json(created)
    track_update(kind, created, later, manager="other", api_version="v1", subresource="", now=NOW + timedelta(days=1))
    assert later == created


@given(of_one_kind(2))
@strategies.examples(200)
def test_apply_sets_all_that_is_applied(drawn: tuple[str, list[Document]]) -> None:
    name, (live, config) = drawn
    kind = load(name)
    result = put(kind, tracked(kind, None, live), config, force=True)
    # Merged over the result, the configuration changes nothing: all of it is there already.
    plain = without_entries(result)
    assert merge(kind, plain, config) == plain
    assert owned(result, "a") == fields_of(kind, config)
    assert put(kind, result, config) == result


@given(of_one_kind(1))
@strategies.examples(150)
def test_what_is_no_longer_applied_goes(drawn: tuple[str, list[Document]]) -> None:
    name, (config,) = drawn
    kind = load(name)
    created = put(kind, None, config)
    assert without_entries(created) == config
    left = put(kind, created, {"apiVersion": config["apiVersion"], "kind": name, "metadata": {"name": "x"}})
    assert left == {"apiVersion": config["apiVersion"], "kind": name, "metadata": {"name": "x"}}


@given(of_one_kind(2))
@strategies.examples(200)
def test_two_appliers_either_agree_or_one_is_told(drawn: tuple[str, list[Document]]) -> None:
    name, (first, second) = drawn
    kind = load(name)
    created = put(kind, None, first, manager="a")
    try:
        result = put(kind, created, second, manager="b")
    except StatusError as error:
        assert error.code == 409
        assert error.causes
        forced = put(kind, created, second, manager="b", force=True)
        shared = sets.intersection(owned(forced, "a"), owned(forced, "b"))
        changed = compare(kind, without_entries(created), without_entries(forced), NONE).changed
        assert sets.intersection(shared, changed) == {}
        return
    # Without a conflict nothing that the first one applied has another value now.
    assert put(kind, result, first, manager="a") == result


@given(of_one_kind(2))
@strategies.examples(100)
def test_arguments_are_not_changed(drawn: tuple[str, list[Document]]) -> None:
    name, (live, config) = drawn
    kind = load(name)
    live = tracked(kind, None, live)
    before = copy_json([live, config])
    put(kind, live, config, force=True)
    tracked(kind, live, config)
    assert [live, config] == before


@given(of_one_kind(1), st.integers(2, 15))
@strategies.examples(30)
def test_the_number_of_updaters_is_bounded(drawn: tuple[str, list[Document]], count: int) -> None:
    name, (document,) = drawn
    kind = load(name)
    document = tracked(kind, None, document, "first")
    for number in range(count):
        new = without_entries(document)
        new["metadata"].setdefault("labels", {})[f"l{number}"] = "x"
        document = tracked(kind, document, new, f"m{number}")
    assert len(entries(document)) <= 10
    everybody: sets.Fields = {}
    for entry in entries(document):
        everybody = sets.union(everybody, entry["fieldsV1"])
    assert sets.difference(fields_of(kind, without_entries(document)), everybody) == {}
