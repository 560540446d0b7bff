"""Patches against their definitions."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from kybern.api import resources, schema
from kybern.api.metadata import copy_json
from kybern.api.patch import apply_patch
from kybern.client.interface import PatchType
from tests.property.api import strategies

PODS = schema.load(resources.PODS)
DEPLOYMENTS = schema.load(resources.DEPLOYMENTS)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


def rfc7386(target: Any, patch: Any) -> Any:
    """The algorithm as RFC 7386 gives it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = rfc7386(result.get(name), value)
    return result


@given(objects, objects)
def test_merge_patches_follow_the_rfc(document: dict[str, Any], patch: dict[str, Any]) -> None:
    kept, given_patch = copy_json(document), copy_json(patch)
    assert apply_patch(PODS, document, patch, PatchType.MERGE) == rfc7386(document, patch)
    assert (document, patch) == (kept, given_patch)


@given(objects, objects)
def test_without_known_lists_a_strategic_patch_is_a_merge_patch(
    document: dict[str, Any], patch: dict[str, Any]
) -> None:
    assert apply_patch(PODS, document, patch, PatchType.STRATEGIC) == rfc7386(document, patch)


@given(st.data())
@strategies.examples(150)
def test_a_strategic_patch_changes_nothing_the_second_time(data: st.DataObject) -> None:
    document = data.draw(strategies.documents(PODS))
    patch = data.draw(strategies.documents(PODS))
    once = apply_patch(PODS, document, patch, PatchType.STRATEGIC)
    assert apply_patch(PODS, once, patch, PatchType.STRATEGIC) == once


@given(st.data())
@strategies.examples(150)
def test_a_strategic_patch_with_the_whole_document_brings_it_back(data: st.DataObject) -> None:
    document = data.draw(strategies.documents(DEPLOYMENTS))
    assert apply_patch(DEPLOYMENTS, {}, document, PatchType.STRATEGIC) == document
    assert apply_patch(DEPLOYMENTS, document, document, PatchType.STRATEGIC) == document


names = st.lists(st.sampled_from("abcdefg"), unique=True, max_size=6)


def containers(listed: list[str], image: str) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": n, "image": image} for n in listed]}}


@given(names, names, st.randoms(use_true_random=False))
def test_order_of_merged_items(before: list[str], patched: list[str], random: Any) -> None:
    order = list(patched)
    random.shuffle(order)
    patch = containers(patched, "new")
    patch["spec"]["$setElementOrder/containers"] = [{"name": n} for n in order]
    result = apply_patch(PODS, containers(before, "old"), patch, PatchType.STRATEGIC)
    listed = [c["name"] for c in result["spec"]["containers"]]
    assert sorted(listed) == sorted({*before, *patched})
    assert [n for n in listed if n in patched] == order
    # Items of others keep their order among themselves.
    assert [n for n in listed if n not in patched] == [n for n in before if n not in patched]
    assert all(c["image"] == ("new" if c["name"] in patched else "old") for c in result["spec"]["containers"])


@given(names, names)
def test_deleted_items_are_gone(before: list[str], gone: list[str]) -> None:
    patch = {"spec": {"containers": [{"$patch": "delete", "name": n} for n in gone]}}
    result = apply_patch(PODS, containers(before, "old"), patch, PatchType.STRATEGIC)
    assert [c["name"] for c in result["spec"]["containers"]] == [n for n in before if n not in gone]


@given(st.lists(st.sampled_from("abcd"), unique=True), st.lists(st.sampled_from("abcd"), unique=True))
def test_lists_of_scalars_are_united_and_thinned(before: list[str], patched: list[str]) -> None:
    document = {"metadata": {"finalizers": before}}
    united = apply_patch(PODS, document, {"metadata": {"finalizers": patched}}, PatchType.STRATEGIC)
    assert united["metadata"]["finalizers"] == before + [p for p in patched if p not in before]
    directive = {"metadata": {"$deleteFromPrimitiveList/finalizers": patched}}
    thinned = apply_patch(PODS, document, directive, PatchType.STRATEGIC)
    assert thinned["metadata"]["finalizers"] == [b for b in before if b not in patched]


@given(st.data())
@strategies.examples(100)
def test_json_patches_add_and_remove(data: st.DataObject) -> None:
    document = data.draw(strategies.documents(PODS))
    key = data.draw(st.sampled_from(["a", "b/c", "d~e"]))
    assume(key not in document)
    pointer = "/" + key.replace("~", "~0").replace("/", "~1")
    added = apply_patch(PODS, document, [{"op": "add", "path": pointer, "value": 1}], PatchType.JSON)
    assert added == {**document, key: 1}
    removed = apply_patch(PODS, added, [{"op": "remove", "path": pointer}], PatchType.JSON)
    assert removed == document
