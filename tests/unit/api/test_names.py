"""Rules for names that are easy to get wrong."""

from __future__ import annotations

import pytest

from kybern.api import names


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (names.label, ["a", "1", "a-b", "a" * 63], ["", "-a", "a-", "A", "a.b", "a_b", "a" * 64, "ä", "a\n"]),
        (names.subdomain, ["a", "a.b", "1.2", "a-b.c", "a" * 253], ["", ".a", "a.", "a..b", "a.-b", "A.b", "a\n", "a" * 254]),
        (names.label_1035, ["a", "a1", "a-1"], ["1a", "-", "a.", ""]),
        (names.qualified, ["a", "A_b.c-d", "a.b/C", "x/y"], ["", "/a", "a/", "a/b/c", "-a", "A/b", "a b", "a\n"]),
        (names.label_value, ["", "a", "A_b.c-d", "a" * 63], ["-a", "a-", "a/b", "a b", "a" * 64, "a\n"]),
        (names.config_key, ["a", ".a", "a..b", "A-b_c.d"], ["", ".", "..", "..a", "a/b", "a b", "a\n"]),
        (names.environment, ["A", "a.b", "1", "a b", "-"], ["", "a=b", "ä", "a\tb", "a\n"]),
        (names.port_name, ["http", "a1", "1a", "a-b"], ["", "1", "A", "a--b", "-a", "a-", "sixteen-letters-"]),
        (names.percent, ["1%", "100%", "0%"], ["", "%", "1", "-1%", "1.5%", "1%\n"]),
        (names.ip_address, ["10.0.0.1", "::1", "fd00::1"], ["", "10.0.0", "10.0.0.256", "10.0.0.01", "fe80::1%eth0", "localhost"]),
        (names.cidr, ["10.0.0.0/8", "10.0.0.1/8", "fd00::/64"], ["", "10.0.0.0", "10.0.0.0/33", "/8"]),
    ],
)  # fmt: skip
def test_rules(rule: names.Rule, good: list[str], bad: list[str]) -> None:
    assert [v for v in good if rule(v)] == []
    assert [v for v in bad if not rule(v)] == []


def test_answers_are_the_same_the_second_time_and_for_long_texts() -> None:
    long = "x" * 5000
    assert names.label(long) == names.label(long)
    assert "must be no more than 63 bytes" in names.label(long)
    assert names.subdomain("A") is names.subdomain("A")
