"""Counting who answered."""

from __future__ import annotations

import pytest

from lab.demo import QUESTIONS, answers_table, check, count
from lab.errors import LabError
from lab.faults import parse_signal

PODS = ["hello-a", "hello-b"]
NODES = ["n1", "n2"]
GOOD = ["hello 1 from hello-a on n1", "hello 1 from hello-b on n2"] * (QUESTIONS // 2)


def test_answers_are_counted_by_pod_and_node() -> None:
    found = count(GOOD)
    assert found == {("hello-a", "n1"): QUESTIONS // 2, ("hello-b", "n2"): QUESTIONS // 2}
    check(found, found, PODS, NODES)
    assert answers_table(found, found).splitlines()[1].split() == ["hello-a", "n1", "20", "20"]


def test_a_failed_question_is_an_error() -> None:
    with pytest.raises(LabError, match=f"1 of {QUESTIONS} questions by NodePort"):
        check(count(GOOD), count([*GOOD[1:], "failed: timed out"]), PODS, NODES)
    with pytest.raises(LabError, match=f"1 of {QUESTIONS} questions by DNS name"):
        check(count(GOOD[1:]), count(GOOD), PODS, NODES)


def test_a_pod_that_never_answers_is_an_error() -> None:
    with pytest.raises(LabError, match="pod hello-c never answered"):
        check(count(GOOD), count(GOOD), [*PODS, "hello-c"], NODES)


def test_a_node_that_never_answers_is_an_error() -> None:
    with pytest.raises(LabError, match="no pod on n3"):
        check(count(GOOD), count(GOOD), PODS, [*NODES, "n3"])


def test_signals_by_number_and_name() -> None:
    assert [parse_signal(s) for s in ("9", "KILL", "sigterm", "STOP")] == [9, 9, 15, 19]
    for text in ("0", "99", "NOSUCH", ""):
        with pytest.raises(LabError, match="no signal"):
            parse_signal(text)
