"""Which container a request means."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from kybern.api.errors import StatusError
from node.runtime import lookup
from node.runtime.interface import Container, ContainerState, PodIdentity, Sandbox

START = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW = PodIdentity("ns", "db-0", "old"), PodIdentity("ns", "db-0", "new")


def container(pod: PodIdentity, name: str, attempt: int, minute: int) -> Container:
    at = START + timedelta(minutes=minute)
    return Container(f"{pod.uid}-{name}-{attempt}", "s", pod, name, attempt, ContainerState.RUNNING, "i", "i", at)


ALL = [
    container(OLD, "main", 0, 0),
    container(NEW, "main", 1, 12),
    container(NEW, "main", 0, 10),
    container(NEW, "side", 0, 11),
    container(PodIdentity("other", "db-0", "x"), "main", 0, 99),
]


def ids(uid: str, name: str) -> list[str]:
    return [c.id for c in lookup.attempts(ALL, "ns", "db-0", uid, name)]


def test_the_latest_attempt_comes_first() -> None:
    assert ids("new", "main") == ["new-main-1", "new-main-0"]


def test_without_a_uid_the_youngest_pod_of_the_name_is_meant() -> None:
    assert ids("", "main") == ["new-main-1", "new-main-0"]
    assert ids("old", "main") == ["old-main-0"]


@pytest.mark.parametrize(
    ("namespace", "pod", "uid", "name"),
    [("ns", "db-1", "", "main"), ("no", "db-0", "", "main"), ("ns", "db-0", "z", "main"), ("ns", "db-0", "", "none")],
)
def test_what_is_not_there(namespace: str, pod: str, uid: str, name: str) -> None:
    with pytest.raises(StatusError) as missing:
        lookup.attempts(ALL, namespace, pod, uid, name)
    assert missing.value.code == 404


def test_only_a_sandbox_that_is_ready_counts() -> None:
    old = Sandbox("a", OLD, 0, True, START)
    new = Sandbox("b", NEW, 0, True, START + timedelta(minutes=1))
    assert lookup.sandbox([new, old], "ns", "db-0", "") is new
    assert lookup.sandbox([new, old], "ns", "db-0", "old") is old
    assert lookup.sandbox([replace(new, ready=False), old], "ns", "db-0", "") is old
    with pytest.raises(StatusError):
        lookup.sandbox([replace(new, ready=False)], "ns", "db-0", "")
