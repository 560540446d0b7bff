"""Sets of fields against Python's sets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kybern.api.managed_fields import sets

Path = tuple[str, ...]

paths = st.lists(st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', "v:1"]), min_size=1, max_size=4).map(tuple)
models = st.sets(paths, max_size=8)


def made(model: set[Path]) -> sets.Fields:
    return sets.from_paths(sorted(model))


def read(fields: sets.Fields) -> set[Path]:
    found = list(sets.members(fields))
    assert len(found) == len(set(found))
    assert sets.valid(fields)
    return set(found)


def below(path: Path, roots: set[Path]) -> bool:
    return any(path[: len(root)] == root for root in roots)


@given(models)
def test_a_set_holds_its_paths(model: set[Path]) -> None:
    assert read(made(model)) == model


@given(models, models)
def test_union(left: set[Path], right: set[Path]) -> None:
    assert read(sets.union(made(left), made(right))) == left | right


@given(models, models)
def test_difference(left: set[Path], right: set[Path]) -> None:
    assert read(sets.difference(made(left), made(right))) == left - right


@given(models, models)
def test_intersection(left: set[Path], right: set[Path]) -> None:
    assert read(sets.intersection(made(left), made(right))) == left & right


@given(models, models)
def test_without_subtrees(left: set[Path], right: set[Path]) -> None:
    wanted = {p for p in left if not below(p, right)}
    assert read(sets.without_subtrees(made(left), made(right))) == wanted


@given(models, models)
def test_arguments_are_not_changed_and_equal_results_are_the_argument(left: set[Path], right: set[Path]) -> None:
    first, second = made(left), made(right)
    for operation in (sets.union, sets.difference, sets.without_subtrees):
        result = operation(first, second)
        assert (read(first), read(second)) == (left, right)
        if read(result) == left:
            assert result is first or result == first
