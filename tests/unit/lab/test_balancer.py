"""Which master a connection goes to."""

from __future__ import annotations

from lab.balancer import LOSSES, Backend, order


def backend(name: str, *probes: bool) -> Backend:
    made = Backend(name)
    for answered in probes:
        made.observe(answered=answered)
    return made


def test_a_master_serves_from_its_first_answer_on() -> None:
    one = Backend("m1")
    assert [one.observe(answered=True), one.observe(answered=True)] == [True, False]
    assert [Backend("m2").serving, one.serving] == [False, True]


def test_a_late_answer_is_not_a_loss_but_several_are() -> None:
    assert backend("m1", True, *([False] * (LOSSES - 1))).serving
    assert not backend("m1", True, *([False] * LOSSES)).serving


def test_an_answer_in_between_forgives() -> None:
    one = backend("m1", True, *([False] * (LOSSES - 1)), True, *([False] * (LOSSES - 1)))
    assert one.serving


def test_new_connections_go_to_the_least_loaded_that_serves() -> None:
    serving, busy, lost = backend("m1", True), backend("m2", True), Backend("m3")
    assert [b.name for b in order([lost, busy, serving], {"m2": 4, "m1": 1})] == ["m1", "m2", "m3"]


def test_a_master_that_has_just_failed_comes_after_those_that_have_not() -> None:
    shaky, busy = backend("m1", True, False), backend("m2", True)
    assert [b.name for b in order([shaky, busy], {"m2": 10})] == ["m2", "m1"]


def test_those_that_do_not_serve_are_tried_last_rather_than_not_at_all() -> None:
    assert {b.name for b in order([Backend("m1"), Backend("m2")], {})} == {"m1", "m2"}
