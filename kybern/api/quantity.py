"""Kubernetes quantities: `100m`, `1.5`, `2Gi`, `1e3`."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Context, Decimal
from functools import lru_cache

_SUFFIXES: dict[str, Decimal] = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}  # fmt: skip

_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?))", re.ASCII)


# What a quantity holds at most; Kubernetes cuts larger ones down to it.
_LARGEST = Decimal(2**63 - 1)
# The precision of arithmetic: enough for the largest number in the smallest unit.
_EXACT = Context(prec=40)
_NANO = Decimal("1e-9")


# Longer texts must not fill the cache.
_MOST_CACHED = 64


def parse(text: str) -> Decimal:
    """The number that a quantity stands for; beyond 2^63 - 1 it is that.

    Raises:
        ValueError: when the text is not a quantity.
    """
    return _remembered(text) if len(text) <= _MOST_CACHED else _parse(text)


def _parse(text: str) -> Decimal:
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    number, exponent, suffix = match.groups()
    try:
        value = Decimal(number + exponent) if exponent else _EXACT.multiply(Decimal(number), _SUFFIXES[suffix or ""])
    except ArithmeticError:
        raise ValueError("the exponent of the quantity is out of range") from None
    # Compared by exponents first, so that 1e999999999 costs nothing.
    size = value.copy_abs()
    if size > _LARGEST:
        return _LARGEST if value > 0 else -_LARGEST
    if 0 < size < _NANO:
        return _NANO if value > 0 else -_NANO
    return value


_remembered = lru_cache(maxsize=4096)(_parse)


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
    sign, value = ("-", value.copy_negate()) if value < 0 else ("", value)
    if written.endswith("i") and value >= 1024 and value == value.to_integral_value():
        return sign + _binary(int(value))
    return sign + _decimal(value, _EXPONENTS if _written_with_exponent(text) else _DECIMALS)


def _written_with_exponent(text: str | int | float) -> bool:
    # A JSON number has no family of suffixes: 1e3 is 1k.
    return isinstance(text, str) and ("e" in text or ("E" in text and text[-1].isdigit()))


def _binary(value: int) -> str:
    for suffix in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
        unit = int(_SUFFIXES[suffix])
        if value % unit == 0:
            return f"{value // unit}{suffix}"
    return str(value)


# Suffixes by the power of ten in nanos, the largest first.
_DECIMALS = (("E", 27), ("P", 24), ("T", 21), ("G", 18), ("M", 15), ("k", 12), ("", 9), ("m", 6), ("u", 3), ("n", 0))
_EXPONENTS = tuple((f"e{power - 9}" if power != 9 else "", power) for _, power in _DECIMALS)


def _decimal(value: Decimal, suffixes: tuple[tuple[str, int], ...]) -> str:
    # Nano is the smallest unit that Kubernetes keeps; anything below is rounded up.
    nanos = int(_EXACT.multiply(value, Decimal(10**9)).to_integral_value(ROUND_CEILING))
    suffix, power = next((s, p) for s, p in suffixes if nanos % 10**p == 0)
    return f"{nanos // 10**power}{suffix}"
