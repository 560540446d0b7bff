"""How `kybern store status` shows members."""

from __future__ import annotations

import pytest

from kybern.cli.store import level_of
from kybern.cli.store_calls import StatusRow


@pytest.mark.parametrize(
    ("level", "highest", "shown"),
    [
        ("1", 1, "1"),
        ("1", 2, "1 (can 2)"),
        # A real etcd of 3.6, which has a version there, and one of 3.4.
        ("3.6.0", 0, "3.6.0"),
        ("", 0, "-"),
    ],
)
def test_a_member_that_can_do_more_than_its_group_says_so(level: str, highest: int, shown: str) -> None:
    assert level_of(StatusRow("h:1", id="1", level=level, highest_level=highest)) == shown
