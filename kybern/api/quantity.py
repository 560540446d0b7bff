"""Kubernetes quantities: `100m`, `1.5`, `2Gi`, `1e3`."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

_SUFFIXES: dict[str, Decimal] = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}  # fmt: skip

_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?))")


@lru_cache(maxsize=4096)
def parse(text: str) -> Decimal:
    """The number that a quantity stands for.

    Raises:
        ValueError: when the text is not a quantity.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    number, exponent, suffix = match.groups()
    return Decimal(number + exponent) if exponent else Decimal(number) * _SUFFIXES[suffix or ""]


def of(value: str | int | float | None) -> Decimal:
    """The number in a quantity field, where JSON may hold a string or a number; absent is 0.

    Raises:
        ValueError: when a string is not a quantity.
    """
    if value is None:
        return Decimal(0)
    return parse(value) if isinstance(value, str) else Decimal(str(value))


def milli(value: str | int | float | None) -> int:
    """Thousandths, rounded up: how CPU is counted.

    Raises:
        ValueError: when a string is not a quantity.
    """
    return int((of(value) * 1000).to_integral_value(ROUND_CEILING))


def whole(value: str | int | float | None) -> int:
    """Units, rounded up: how bytes and counts are counted.

    Raises:
        ValueError: when a string is not a quantity.
    """
    return int(of(value).to_integral_value(ROUND_CEILING))


def canonical(text: str | int | float) -> str:
    """The form in which Kubernetes writes a quantity back: no fraction, the largest suffix of the same family.

    Raises:
        ValueError: when a string is not a quantity.
    """
    written = str(text)
    value = parse(written)
    if value == 0:
        return "0"
    binary = written.rstrip().endswith("i")
    sign, value = ("-", -value) if value < 0 else ("", value)
    if binary and value >= 1024 and value == value.to_integral_value():
        return sign + _binary(int(value))
    return sign + _decimal(value)


def _binary(value: int) -> str:
    for suffix in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
        unit = int(_SUFFIXES[suffix])
        if value % unit == 0:
            return f"{value // unit}{suffix}"
    return str(value)


def _decimal(value: Decimal) -> str:
    # Nano is the smallest unit that Kubernetes keeps; anything below is rounded up.
    nanos = int((value * 10**9).to_integral_value(ROUND_CEILING))
    for suffix, power in (
        ("E", 27),
        ("P", 24),
        ("T", 21),
        ("G", 18),
        ("M", 15),
        ("k", 12),
        ("", 9),
        ("m", 6),
        ("u", 3),
    ):
        if nanos % 10**power == 0:
            return f"{nanos // 10**power}{suffix}"
    return f"{nanos}n"
