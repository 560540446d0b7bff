"""What is said once in a while although it happens all the time."""

from __future__ import annotations

import logging

from kybern.logs import Seldom


def test_what_happens_again_and_again_is_a_warning_once_in_a_while() -> None:
    now = 100.0
    seldom = Seldom(lambda: now, seconds=60.0)
    levels = []
    for now in (100.0, 101.0, 159.0, 160.0, 161.0, 220.5):  # noqa: B007 - the clock reads it
        levels.append(seldom.level("s2 is refused"))
    w, d = logging.WARNING, logging.DEBUG
    assert levels == [w, d, d, w, d, w]


def test_each_thing_has_a_while_of_its_own() -> None:
    seldom = Seldom(lambda: 0.0)
    assert [seldom.level(what) for what in ("a", "b", "a")] == [logging.WARNING, logging.WARNING, logging.DEBUG]


def test_who_makes_up_new_names_does_not_fill_the_memory() -> None:
    seldom = Seldom(lambda: 0.0)
    for number in range(10_000):
        seldom.level(f"stranger {number}")
    assert len(seldom._said) < 1000
    # The last ones are those that are remembered.
    assert seldom.level("stranger 9999") == logging.DEBUG
    assert seldom.level("stranger 0") == logging.WARNING
