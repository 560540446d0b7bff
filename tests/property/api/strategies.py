"""Documents for tests: made from the schemas, in order or with something wrong with them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from kybern.api.metadata import copy_json
from kybern.api.schema import ListType, Schema, SchemaType

WORDS = st.sampled_from(["a", "b", "web", "http", "x-1", "app.kubernetes.io/name", "80", "25%"])
QUANTITIES = st.sampled_from(["0", "1", "500m", "64Mi", "1Gi", "2k", "1500m", "999n"])
MOMENTS = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC))


def examples(count: int) -> settings:
    """Settings of tests whose documents take a while to make, more so on a busy machine."""
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])


# How deep documents go; deeper objects are left empty where they may be.
_DEPTH = 5


def scalars(schema: Schema) -> st.SearchStrategy[Any]:
    """Canonical values of a scalar."""
    if schema.quantity:
        return QUANTITIES
    if schema.int_or_string:
        return st.integers(0, 65535) | WORDS
    match schema.type:
        case SchemaType.INTEGER:
            return st.integers(-(2**31), 2**31 - 1)
        case SchemaType.NUMBER:
            return st.integers(-1000, 1000) | st.floats(allow_nan=False, allow_infinity=False)
        case SchemaType.BOOLEAN:
            return st.booleans()
        case _:
            return _texts(schema)


def _texts(schema: Schema) -> st.SearchStrategy[str]:
    if schema.format == "date-time":
        form = "%Y-%m-%dT%H:%M:%S.%fZ" if schema.micro else "%Y-%m-%dT%H:%M:%SZ"
        # strftime does not pad years.
        return MOMENTS.map(lambda m: f"{m.year:04d}{m.strftime(form.replace('%Y', ''))}")
    if schema.format == "byte":
        return st.binary(max_size=12).map(lambda b: base64.b64encode(b).decode())
    return WORDS


@st.composite
def documents(draw: st.DrawFn, schema: Schema, depth: int = _DEPTH) -> Any:
    """Documents that are in order: known fields, right types, canonical scalars, required fields there."""
    if schema.scalar:
        return draw(scalars(schema))
    if schema.type is SchemaType.ANY or schema.preserve_unknown:
        return draw(st.dictionaries(WORDS, st.integers() | WORDS, max_size=2))
    if schema.type is SchemaType.ARRAY:
        return draw(_lists(schema, depth))
    if schema.additional is not None:
        return draw(st.dictionaries(WORDS, documents(schema.additional, depth - 1), max_size=2))
    optional = sorted(schema.properties.keys() - schema.required)
    most = 3 if depth > 0 else 0
    chosen = draw(st.lists(st.sampled_from(optional), max_size=most, unique=True)) if optional and most else []
    return {k: draw(documents(schema.properties[k], depth - 1)) for k in [*sorted(schema.required), *chosen]}


@st.composite
def _lists(draw: st.DrawFn, schema: Schema, depth: int) -> list[Any]:
    assert schema.items is not None
    items = draw(st.lists(documents(schema.items, depth - 1), max_size=2 if depth > 0 else 0))
    if schema.list_type is ListType.SET:
        return list(dict.fromkeys(items))
    if schema.list_type is ListType.MAP:
        return _with_keys(schema, items)
    return items


def _with_keys(schema: Schema, items: list[Any]) -> list[Any]:
    """Give every item keys of its own."""
    assert schema.items is not None
    for index, item in enumerate(items):
        for key in schema.list_map_keys:
            child = schema.items.properties[key]
            item[key] = index + 1 if child.type is SchemaType.INTEGER or child.int_or_string else f"k{index}"
    return items


# Values that are wrong, or not canonical, in most places.
STRANGE: st.SearchStrategy[Any] = st.sampled_from(
    [
        None, True, 0, -1, 2**31, 2**63, 1.0, 1.5, "", "two", "1000m", "0.5", "1024Mi", "10E", "7Ei", "8Ei", "+1",
        "2026-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "2026-11-31T10:00:00Z", "2026-11-20T10:00:00+01:00",
        "2026-11-20T10:00:00.5Z", "2026-11-20T24:00:00Z", "0000-01-01T00:00:00Z", "YQ", "YQ==", "Y Q==", "YQ==\n",
        [], {}, [None], {"a": None}, {"a": 1}, ["a", 1], "١", "2026-11-20T10:00:00Z\n",
    ]
).map(copy_json)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, schema: Schema) -> dict[str, Any]:
    """Documents with some values put in that may be anything, anywhere."""
    document: dict[str, Any] = draw(documents(schema))
    for _ in range(draw(st.integers(0, 3))):
        place: Any = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            extra = ["unknownField"] if isinstance(place, dict) else []
            if not keys + extra:
                break
            key = draw(st.sampled_from(keys + extra))
            below = place.get(key) if isinstance(place, dict) else place[key]
            if isinstance(below, dict | list) and below and draw(st.booleans()):
                place = below
                continue
            place[key] = draw(STRANGE)
            break
    return document
