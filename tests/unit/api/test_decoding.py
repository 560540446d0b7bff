"""Request bodies."""

from __future__ import annotations

import pytest

from kybern.api.decoding import decode_json, decode_json_value, decode_yaml
from kybern.api.errors import StatusError


def test_objects_are_read() -> None:
    assert decode_json(b'{"a": 1, "b": {"c": "\\u003c"}}') == ({"a": 1, "b": {"c": "<"}}, [])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a":1}x', "not valid JSON"),
        (b'{"a":NaN}', "not valid JSON"),
        (b'{"a":"\xff"}', "not valid JSON"),
        (b'{"a":"\\ud800 and more text behind it"}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "must be a JSON object, not a list"),
        (b'"a"', "must be a JSON object, not a string"),
        (b"1.5", "must be a JSON object, not a number"),
        (b"true", "must be a JSON object, not a boolean"),
        (b"null", "must be a JSON object, not null"),
    ],
)
def test_other_bodies_are_refused(body: bytes, message: str) -> None:
    with pytest.raises(StatusError, match=message) as caught:
        decode_json(body)
    assert (caught.value.code, caught.value.reason) == (400, "BadRequest")


def test_fields_that_occur_twice() -> None:
    body = b'{"spec":{"replicas":1,"x":[{"a":1},{"b":1,"b":2}],"replicas":2,"replicas":3},"kind":"\\u0041"}'
    assert decode_json(body) == (
        {"spec": {"replicas": 3, "x": [{"a": 1}, {"b": 2}]}, "kind": "A"},
        ["spec.replicas", "spec.x[1].b"],
    )


def test_other_ways_to_write_are_not_taken_for_duplicates() -> None:
    body = b' { "a" : 1.0e2 , "b" : "\\/\\u00e9" , "c" : [ ] , "d" : 1.10 } '
    assert decode_json(body) == ({"a": 100.0, "b": "/é", "c": [], "d": 1.1}, [])


def test_json_patches_are_lists() -> None:
    assert decode_json_value(b'[{"op":"remove"}]') == [{"op": "remove"}]
    with pytest.raises(StatusError):
        decode_json_value(b"[")


def test_yaml() -> None:
    body = b"""
apiVersion: v1
metadata:
  creationTimestamp: 2026-11-20T10:00:00Z
  annotations: {80: x, true: y}
spec:
  on: yes
  on: no
  items: [{a: 1, a: 2}]
"""
    document, duplicates = decode_yaml(body)
    assert document == {
        "apiVersion": "v1",
        "metadata": {"creationTimestamp": "2026-11-20T10:00:00Z", "annotations": {"80": "x", "true": "y"}},
        "spec": {"true": False, "items": [{"a": 2}]},
    }
    assert duplicates == ["spec.true", "spec.items.a"]


def test_json_is_yaml() -> None:
    assert decode_yaml(b'{"a":1,"a":2}') == ({"a": 2}, ["a"])


@pytest.mark.parametrize(
    "body",
    [b"a: b: c", b"- 1", b"", b"a: 1\n---\nb: 2", b"\x00", b"\x80", b"? [1, 2]\n: 3", b"!!python/object:os.system {}"],
)
def test_other_yaml_is_refused(body: bytes) -> None:
    with pytest.raises(StatusError) as caught:
        decode_yaml(body)
    assert caught.value.code == 400
