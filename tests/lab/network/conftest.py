"""One lab for each file of tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.lab.network.hosts import Lab, lab


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.fail("network namespaces need root")
    with lab(tmp_path_factory.mktemp("network")) as made:
        yield made
