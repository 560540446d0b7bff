"""The checks of leases: they accept what a right store does, and find each way to do wrong."""

from __future__ import annotations

from kybern.client.store import Change, KeyValue
from tests.fault.store.lease_check import Lease, check_keys, check_leftovers, check_lives, overdue
from tests.fault.store.log_check import Log, check_operations

L1, L2 = 0x11, 0x22


def put(key: bytes, revision: int, lease: int) -> Change:
    return Change(KeyValue(key, key, revision, revision, 1, lease), None)


def end(change: Change, revision: int) -> Change:
    return Change(KeyValue(change.value.key, b"", 0, revision, 0), change.value)


ONE, TWO, OTHER = put(b"l/1", 2, L1), put(b"l/2", 3, L1), put(b"l/3", 4, L2)
KNOWN = {b"l/1": L1, b"l/2": L1, b"l/3": L2}


def lease(*renewed: float, revoked: float | None = None, refused: tuple[float, ...] = ()) -> Lease:
    return Lease(L1, 3, list(renewed), max(renewed), [b"l/1"], list(refused), revoked)


def test_a_key_lives_until_the_last_renewal_has_run_out() -> None:
    assert check_lives([lease(10.0, 12.0)], {b"l/1": 15.0}) == []
    assert check_lives([lease(10.0, 12.0)], {}) == []
    assert "1.00 s before its time" in check_lives([lease(10.0, 12.0)], {b"l/1": 14.0})[0]


def test_a_lease_may_not_be_said_to_be_gone_before_its_time() -> None:
    assert check_lives([lease(10.0, refused=(13.0,))], {}) == []
    assert len(check_lives([lease(10.0, refused=(12.9,))], {})) == 1


def test_a_lease_that_is_revoked_may_end_at_once_but_not_before() -> None:
    assert check_lives([lease(10.0, revoked=11.0)], {b"l/1": 11.1}) == []
    assert len(check_lives([lease(10.0, revoked=11.0)], {b"l/1": 10.9})) == 1


def test_a_lease_is_not_renewed_after_its_key_was_gone() -> None:
    problems = check_lives([lease(10.0, 14.0)], {b"l/1": 13.5})
    assert any("renewed 0.50 s after l/1 was gone" in problem for problem in problems)


def test_the_keys_of_a_lease_vanish_together() -> None:
    right = [ONE, TWO, OTHER, end(ONE, 5), end(TWO, 5), end(OTHER, 6)]
    assert check_keys({}, right, KNOWN) == []
    assert Log(1, {}, right).problems == []
    verdict = check_operations(Log(4, {c.value.key: c.value for c in right[:3]}, right[3:]), [])
    assert (verdict.lost, verdict.wrong) == ([], [])
    apart = [ONE, TWO, OTHER, end(ONE, 5), end(TWO, 6)]
    problems = check_keys({}, apart, KNOWN)
    assert any("stayed" in problem for problem in problems)
    assert any("l/2 vanished at 6, its lease ended at 5" in problem for problem in problems)
    survivor = check_keys({b"l/1": ONE.value, b"l/2": TWO.value}, [end(ONE, 5)], KNOWN)
    assert len(survivor) == 1


def test_two_changes_share_a_revision_only_at_a_leases_end() -> None:
    assert Log(1, {}, [ONE, TWO, OTHER, end(ONE, 5), end(OTHER, 5)]).problems
    assert Log(1, {}, [ONE, put(b"l/2", 2, L1)]).problems
    free = put(b"k", 5, 0)
    assert Log(1, {}, [ONE, TWO, OTHER, free, end(ONE, 6), end(free, 6)]).problems


def test_a_key_does_not_come_after_its_leases_end_nor_vanish_with_anothers() -> None:
    late = [ONE, end(ONE, 3), put(b"l/2", 4, L1)]
    assert any("came at 4, after its lease's end at 3" in problem for problem in check_keys({}, late, KNOWN))
    assert any("not its own" in problem for problem in check_keys({}, [ONE, end(ONE, 3)], {b"l/1": L2}))


def test_a_key_without_its_lease_is_left_over() -> None:
    state = {b"l/1": ONE.value, b"r/1": KeyValue(b"r/1", b"", 1, 1, 1)}
    assert check_leftovers(state, [L1]) == []
    assert len(check_leftovers(state, [L2])) == 1


def test_a_lease_that_nobody_renews_ends() -> None:
    # 3 s of life and 10 of patience, from the renewal or the healing on, whichever was later.
    assert overdue([lease(10.0)], [L1], 22.9, 0.0, 10.0) == []
    assert len(overdue([lease(10.0)], [L1], 23.1, 0.0, 10.0)) == 1
    assert overdue([lease(10.0)], [L1], 23.1, 20.0, 10.0) == []
    assert overdue([lease(10.0)], [L2], 99.0, 0.0, 10.0) == []
