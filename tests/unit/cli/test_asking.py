"""What is made of the daemons' answers."""

from __future__ import annotations

from kybern.cli.asking import StoreStatus, holder_name, store_leader
from kybern.cli.tables import duration, render, size


def test_the_leader_is_the_member_that_says_so_itself() -> None:
    found = {"m1": StoreStatus(1, 2, 7, 100), "m2": StoreStatus(2, 2, 7, 100), "m3": None}
    assert store_leader(found) == "m2"


def test_of_two_that_say_they_lead_the_later_term_does() -> None:
    found = {"m1": StoreStatus(1, 1, 7, 100), "m2": StoreStatus(2, 2, 8, 90)}
    assert store_leader(found) == "m2"


def test_nobody_leads_when_nobody_says_so() -> None:
    assert store_leader({"m1": None, "m2": StoreStatus(2, 0, 8, 90)}) is None
    assert store_leader({"m1": StoreStatus(1, 2, 8, 90), "m2": None}) is None


def test_a_holder_is_on_the_host_that_its_identity_begins_with() -> None:
    names = ["m1", "m10", "m2"]
    assert holder_name("m1", names) == "m1"
    assert holder_name("m10_4711", names) == "m10"
    assert holder_name("m1_m10", names) == "m1"
    assert holder_name("", names) is None
    assert holder_name("m100", names) is None


def test_tables_have_aligned_columns_and_no_trailing_space() -> None:
    assert render([("A", "LONG"), ("abc", "x"), ("d", "")]) == "A     LONG\nabc   x\nd"
    assert render([]) == ""


def test_durations_are_short() -> None:
    given = [-1, 0, 119, 120, 3 * 3600 - 1, 3 * 3600, 5 * 3600 + 61, 48 * 3600, 50 * 3600]
    assert [duration(s) for s in given] == ["0s", "0s", "119s", "2m", "179m", "3h", "5h1m", "2d", "2d2h"]


def test_sizes_are_short() -> None:
    given = [0, 999, 1000, 999_949, 999_950, 2 * 1024**3, 5 * 10**12]
    assert [size(n) for n in given] == ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "2.1 GB", "5000.0 GB"]
