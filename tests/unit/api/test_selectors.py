"""Label and field selectors."""

from __future__ import annotations

from typing import Any

import pytest

from kybern.api.selectors import (
    EVERYTHING,
    Operator,
    Requirement,
    Selector,
    from_expressions,
    from_label_selector,
    from_mapping,
    parse_fields,
    parse_labels,
    to_text,
)

LABELS = {"app": "web", "tier": "front", "version": "2", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True), (" ", True), ("app=web", True), ("app==web", True), ("app = web", True), ("app=db", False),
        ("app!=db", True), ("app!=web", False), ("missing!=x", True), ("missing=", False), ("empty=", True),
        ("app", True), ("missing", False), ("!missing", True), ("!app", False), ("! missing", True),
        ("app in (web,db)", True), ("app in (db)", False), ("missing in (x)", False), ("app in ( web , db )", True),
        ("app notin (db)", True), ("app notin (web)", False), ("missing notin (x)", True), ("empty in ()", True),
        ("version>1", True), ("version>2", False), ("version<3", True), ("app>1", False), ("missing>1", False),
        ("app=web,tier=front", True), ("app=web,tier=back", False), ("app,!missing,tier in (front)", True),
        ("a.b/c-d_e!=f", True),
    ],
)  # fmt: skip
def test_label_selectors(text: str, matches: bool) -> None:
    assert parse_labels(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    "text",
    [
        "a=b,", ",a", "a b", "a in b", "a in (b", "a in b)", "=a", "a>b", "a>", "!", "a=b=c", "a,,b", "a notin", "a@b", "a=(b)",
        "-a=b", "a/b/c", "a=-b", "a in (b,!)", f"{'a' * 64}=b", f"a={'b' * 64}", "ä=b",
    ],
)  # fmt: skip
def test_bad_label_selectors(text: str) -> None:
    with pytest.raises(ValueError, match=r"unable to parse requirement"):
        parse_labels(text)


@pytest.mark.parametrize(
    "text", ["app=web", "app!=web", "app in (a,b)", "app notin (a,b)", "app", "!app", "a>1", "a<2"]
)
def test_selectors_as_text(text: str) -> None:
    assert to_text(parse_labels(text)) in (text, text.replace("!=", " notin (") + ")")
    assert parse_labels(to_text(parse_labels(text))) == parse_labels(text)


def test_field_selectors() -> None:
    selector = parse_fields(r"metadata.name=a\,b\=c\\d, status.phase!=Failed,x==,")
    assert selector.requirements == (
        Requirement("metadata.name", Operator.IN, frozenset({r"a,b=c\d"})),
        Requirement("status.phase", Operator.NOT_IN, frozenset({"Failed"})),
        Requirement("x", Operator.IN, frozenset({""})),
    )
    assert selector.matches({"metadata.name": r"a,b=c\d", "status.phase": "Running", "x": ""})
    assert parse_fields("") == EVERYTHING
    assert parse_fields(r"a=b\\,c=d").requirements == (
        Requirement("a", Operator.IN, frozenset({"b\\"})),
        Requirement("c", Operator.IN, frozenset({"d"})),
    )


@pytest.mark.parametrize("text", ["name", "=x", "a>1", "a in (b)"])
def test_bad_field_selectors(text: str) -> None:
    with pytest.raises(ValueError, match="invalid selector"):
        parse_fields(text)


def test_only_known_fields() -> None:
    with pytest.raises(ValueError, match=r"field label not supported: spec\.x"):
        parse_fields("spec.x=1", ("metadata.name",))


@pytest.mark.parametrize(
    ("document", "matches"),
    [
        ({}, True),
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "db"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
        ({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}, False),
    ],
)
def test_label_selector_objects(document: dict[str, Any], matches: bool) -> None:
    selector = from_label_selector(document)
    assert selector is not None
    assert selector.matches(LABELS) is matches
    assert selector.empty is (document == {})


def test_no_selector_and_bad_expressions() -> None:
    assert from_label_selector(None) is None
    for expression in ({"key": "a", "operator": "Is"}, {"key": "a"}):
        with pytest.raises(ValueError, match="is not a valid label selector operator"):
            from_expressions([expression])


def test_expressions_of_nodes() -> None:
    requirements = from_expressions([{"key": "version", "operator": "Gt", "values": ["1"]}])
    assert Selector(tuple(requirements)).matches(LABELS)


def test_plain_maps() -> None:
    selector = from_mapping({"app": "web"})
    assert selector is not None
    assert selector.matches(LABELS)
    assert from_mapping({}) is None
    assert from_mapping(None) is None
