"""How objects end, decided on documents."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kybern.api import resources
from kybern.api.metadata import copy_json
from master.apiserver.lifecycle import begin, removable

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def pod(*, grace: int | None = None, where: str = "n1", phase: str = "Running", **metadata: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"nodeName": where} if where else {}
    if grace is not None:
        spec["terminationGracePeriodSeconds"] = grace
    return {"metadata": {"name": "p", "generation": 1, **metadata}, "spec": spec, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("document", "asked", "seconds"),
    [
        (pod(), None, 30),
        (pod(grace=5), None, 5),
        (pod(grace=5), 9, 9),
        (pod(grace=-1), None, 1),
        (pod(), -1, 1),
        (pod(), 0, 0),
        (pod(where=""), 20, 0),
        (pod(phase="Failed"), 20, 0),
    ],
)
def test_the_time_that_a_pod_gets(document: dict[str, Any], asked: int | None, seconds: int) -> None:
    before = copy_json(document)
    ending = begin(resources.PODS, document, grace=asked, propagation="", now=NOW)
    assert document == before
    assert ending.gone == (seconds == 0)
    if seconds:
        metadata = ending.document["metadata"]
        assert metadata["deletionGracePeriodSeconds"] == seconds
        assert metadata["deletionTimestamp"] == f"2026-01-01T12:00:{seconds:02}Z"
        assert metadata["generation"] == 2


@pytest.mark.parametrize(
    ("asked", "left", "changed"), [(None, 30, False), (40, 30, False), (30, 30, False), (10, 10, True)]
)
def test_a_second_deletion_only_shortens(asked: int | None, left: int, changed: bool) -> None:
    first = begin(resources.PODS, pod(), grace=None, propagation="", now=NOW).document
    second = begin(resources.PODS, first, grace=asked, propagation="", now=NOW)
    assert second.changed == changed
    assert second.document["metadata"]["deletionGracePeriodSeconds"] == left
    assert second.document["metadata"]["deletionTimestamp"] == f"2026-01-01T12:00:{left:02}Z"


@pytest.mark.parametrize(
    ("propagation", "before", "after"),
    [
        ("", ["orphan"], ["orphan"]),
        ("Background", ["orphan", "a/b"], ["a/b"]),
        ("Foreground", ["orphan"], ["foregroundDeletion"]),
        ("Orphan", ["foregroundDeletion", "a/b"], ["a/b", "orphan"]),
    ],
)
def test_policies_and_finalizers(propagation: str, before: list[str], after: list[str]) -> None:
    document = {"metadata": {"name": "d", "finalizers": before}}
    ending = begin(resources.DEPLOYMENTS, document, grace=None, propagation=propagation, now=NOW)
    assert not ending.gone
    assert ending.document["metadata"]["finalizers"] == after


def test_a_namespace_waits_for_the_finalizers_of_its_spec() -> None:
    document = {"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
    ending = begin(resources.NAMESPACES, document, grace=None, propagation="", now=NOW)
    assert not ending.gone
    assert ending.document["status"]["phase"] == "Terminating"
    del ending.document["spec"]["finalizers"]
    assert removable(resources.NAMESPACES, ending.document)


def test_what_is_not_being_deleted_stays() -> None:
    assert not removable(resources.CONFIG_MAPS, {"metadata": {"name": "c"}})
