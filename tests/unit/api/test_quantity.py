"""Quantities."""

from __future__ import annotations

from decimal import Decimal

import pytest

from kybern.api import quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0), ("1", 1), ("+1", 1), ("-1", -1), ("100m", Decimal("0.1")), ("1.5", Decimal("1.5")), (".5", Decimal("0.5")),
        ("5.", 5), ("1k", 1000), ("1Ki", 1024), ("1Mi", 2**20), ("2Gi", 2**31), ("1e3", 1000), ("1E3", 1000), ("1E", 10**18),
        ("2e-3", Decimal("0.002")), ("1n", Decimal("1e-9")), ("1u", Decimal("1e-6")), ("3T", 3 * 10**12), ("1Pi", 2**50),
    ],
)  # fmt: skip
def test_what_quantities_stand_for(text: str, number: int | Decimal) -> None:
    assert quantity.parse(text) == number


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "1 Gi", "Gi", "1e", "1e3k", "0x10", "1,5", "1.2.3", "--1", "1kk", "1ki", "1K", "1mi", "١", "1e99999999999999999999"]
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="quantit"):
        quantity.parse(text)
    with pytest.raises(ValueError, match="quantit"):
        quantity.canonical(text)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("0", "0"), ("0Gi", "0"), ("-0", "0"), ("0.5", "500m"), ("1.5Gi", "1536Mi"), ("1.1Gi", "1181116006400m"), ("1024", "1024"),
        ("1024Ki", "1Mi"), ("1000Ki", "1000Ki"), ("0.5Ki", "512"), ("1000", "1k"), ("1000m", "1"), ("1500m", "1500m"),
        ("-1500m", "-1500m"), ("-1Gi", "-1Gi"), ("1e3", "1e3"), ("12e2", "1200"), ("1e-3", "1e-3"), ("1E", "1E"), ("1E3", "1e3"),
        ("0.0000000001", "1n"), ("1.00000000001", "1000000001n"), (5, "5"), (0.5, "500m"), (1000.0, "1k"), (10**22, "9223372036854775807"),
    ],
)  # fmt: skip
def test_how_they_are_written_back(given: str | float, written: str) -> None:
    assert quantity.canonical(given) == written


def test_numbers_without_end_cost_nothing() -> None:
    assert quantity.canonical("1e999999999") == "9223372036854775807"
    assert quantity.canonical("-1e999999999") == "-9223372036854775807"
    assert quantity.parse("1e-999999999") == Decimal("1e-9")
    assert quantity.whole("9" * 10_000) == 2**63 - 1


def test_counting_rounds_up() -> None:
    assert (quantity.milli("100m"), quantity.milli("1"), quantity.milli("0.1m"), quantity.milli(None)) == (
        100,
        1000,
        1,
        0,
    )
    assert (quantity.whole("1Ki"), quantity.whole("1500m"), quantity.whole(2.5), quantity.whole(None)) == (
        1024,
        2,
        3,
        0,
    )
    assert quantity.of("2Gi") == 2**31
