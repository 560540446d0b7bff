"""Thresholds of probes."""

from __future__ import annotations

import pytest

from node.agent.probes import Counter


@pytest.mark.parametrize(
    ("success", "failure", "answers", "results"),
    [
        (1, 3, "+", "+"),
        (1, 3, "--", ".."),
        (1, 3, "---", "..-"),
        (1, 3, "--+--", "..+.."),
        (1, 3, "+---+", "+..-+"),
        (2, 1, "-+-++", "-...+"),
        (1, 1, "+-+-", "+-+-"),
        (1, 3, "-----", "..-.."),
    ],
)
def test_results_change_at_thresholds(success: int, failure: int, answers: str, results: str) -> None:
    counter = Counter(success, failure)
    found = ""
    for answer in answers:
        changed = counter.feed(answer == "+")
        found += ("+" if counter.result else "-") if changed else "."
    assert found == results
