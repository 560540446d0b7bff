"""The pin on PySyncObj, and member ids."""

from __future__ import annotations

import pytest

from kybern.daemon import StartupError
from store.raft import overrides
from store.raft.core import HardenedRaft
from store.raft.members import member_id


def test_the_installed_pysyncobj_is_the_one_that_is_overridden() -> None:
    overrides.check(HardenedRaft)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("PINNED_VERSION", "0.3.14", "needs exactly 0.3.14"),
        ("PINNED_SOURCE", "0" * 64, "is not the source of pysyncobj"),
        ("OVERRIDDEN", dict(list(overrides.OVERRIDDEN.items())[1:]), "list of overridden names is wrong"),
        ("USED_METHODS", ("_SyncObj__gone",), "has no _SyncObj__gone"),
    ],
)
def test_another_pysyncobj_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: object, reason: str) -> None:
    monkeypatch.setattr(overrides, name, value)
    with pytest.raises(StartupError, match=reason):
        overrides.check(HardenedRaft)


def test_every_override_says_what_it_repairs() -> None:
    assert all(len(reason) > 20 for reason in overrides.OVERRIDDEN.values())


def test_member_ids_are_etcds() -> None:
    assert member_id("kybern", "s1") == member_id("kybern", "s1")
    assert len({member_id("kybern", "s1"), member_id("kybern", "s2"), member_id("other", "s1")}) == 3
    assert member_id("kybern", "s1") == 0x7A5F705C272C7AF8
