"""Bodies: equal keys are found, and nothing but a 400 comes of bad ones."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from kybern.api.decoding import decode_json, decode_yaml
from kybern.api.errors import StatusError
from kybern.api.metadata import encode, splice_resource_version

scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5) | st.floats(-1e6, 1e6)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
objects = st.dictionaries(st.text(max_size=3), values, max_size=4)

# An object as pairs, in which keys may occur twice.
pairs = st.lists(st.tuples(st.sampled_from(["a", "b", "ä", '"']), values), max_size=5)


def written(listed: list[tuple[str, Any]], **options: Any) -> str:
    return "{" + ",".join(f"{json.dumps(k)}:{json.dumps(v, **options)}" for k, v in listed) + "}"


@given(pairs, st.booleans())
def test_the_last_of_equal_keys_counts_and_is_reported(listed: list[tuple[str, Any]], ascii_only: bool) -> None:
    document, duplicates = decode_json(written(listed, ensure_ascii=ascii_only).encode())
    keys = [k for k, _ in listed]
    assert document == dict(listed)
    assert sorted(duplicates) == sorted({k for k in keys if keys.count(k) > 1})


@given(pairs)
def test_the_path_to_equal_keys_is_told(listed: list[tuple[str, Any]]) -> None:
    keys = [k for k, _ in listed]
    twice = sorted({k for k in keys if keys.count(k) > 1})
    _, duplicates = decode_json(f'{{"spec":{{"items":[0,{written(listed)}]}}}}'.encode())
    assert sorted(duplicates) == [f"spec.items[1].{k}" for k in twice]


# PyYAML's own writer does not escape every line break that its reader knows.
plain = st.dictionaries(st.text("abc é\"':{}#", max_size=3), st.integers() | st.text("a b:é#'\n"), max_size=4)


@given(plain)
def test_yaml_reads_what_json_reads(document: dict[str, Any]) -> None:
    assert decode_yaml(json.dumps(document).encode()) == (document, [])
    assert decode_yaml(("---\n" + yaml.safe_dump(document, allow_unicode=True)).encode()) == (document, [])


@given(st.binary(max_size=40) | st.text(alphabet='{}[]":,\\ud80 abc123', max_size=30).map(str.encode))
def test_other_bytes_are_refused(body: bytes) -> None:
    for decode in (decode_json, decode_yaml):
        try:
            document, _ = decode(body)
        except StatusError as error:
            assert error.code == 400
        else:
            # What is accepted can be stored.
            assert isinstance(document, dict)
            encode(document)


@given(objects, st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2), st.integers(1, 2**62))
def test_the_resource_version_is_spliced_in(rest: dict[str, Any], metadata: dict[str, str], revision: int) -> None:
    document = {**rest, "kind": 'say "metadata":{', "apiVersion": "v1", "metadata": metadata}
    raw = encode(document)
    assert list(json.loads(raw))[:3] == ["apiVersion", "kind", "metadata"]
    spliced = json.loads(splice_resource_version(raw, revision))
    assert spliced == {**document, "metadata": {**metadata, "resourceVersion": str(revision)}}
    assert encode(spliced) == encode(
        {**document, "metadata": {k: v for k, v in metadata.items() if k != "resourceVersion"}}
    )
