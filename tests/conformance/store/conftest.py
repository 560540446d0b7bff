"""One group of three for all tests here. Each test has a prefix of its own for its keys."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.conformance.store.group import Group, three_members

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    with three_members(tmp_path_factory.mktemp("group")) as made:
        yield made


@pytest.fixture
def prefix() -> str:
    return f"t{next(_numbers)}/"
