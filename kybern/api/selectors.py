"""Label and field selectors: their text, their JSON form, and what they match."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from kybern.api import names


class Operator(StrEnum):
    """What a requirement asks of a value."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    DOES_NOT_EXIST = "!"
    GREATER = "gt"
    LESS = "lt"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one key."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a set of labels (or fields) meets the condition."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None
            case Operator.GREATER | Operator.LESS:
                return self._compares(value)

    def _compares(self, value: str | None) -> bool:
        (bound,) = self.values
        try:
            left, right = int(value or ""), int(bound)
        except ValueError:
            return False
        return left > right if self.operator is Operator.GREATER else left < right


@dataclass(frozen=True, slots=True)
class Selector:
    """All of its requirements must be met; without any it matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a set of labels (or fields) meets every requirement."""
        return all(r.matches(labels) for r in self.requirements)

    @property
    def empty(self) -> bool:
        """Whether it matches everything."""
        return not self.requirements


EVERYTHING = Selector()

_TOKEN = re.compile(r"\s*(?:(?P<word>[A-Za-z0-9_./\-]+)|(?P<sign>==|!=|=|!|>|<|\(|\)|,))\s*")


def parse_labels(text: str) -> Selector:
    """A selector in Kubernetes' syntax: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.

    Raises:
        ValueError: when the text does not follow the syntax, or a key or value cannot be one; the message says where.
    """
    return Selector(tuple(_parse_requirements(_tokens(text), text))) if text.strip() else EVERYTHING


def parse_fields(text: str, supported: Iterable[str] | None = None) -> Selector:
    """A field selector: terms `path=value`, `path==value` or `path!=value` with commas between.

    Raises:
        ValueError: when a term is not of that form, or names a path that is not in `supported`.
    """
    requirements = []
    for term in _split_terms(text):
        match = re.fullmatch(r"\s*([^=!]+?)\s*(==|=|!=)(.*)", term, re.DOTALL)
        if match is None:
            raise ValueError(f"invalid selector: {text!r}; can't understand {term!r}")
        path, sign, value = match.groups()
        if supported is not None and path not in supported:
            raise ValueError(f"field label not supported: {path}")
        operator = Operator.NOT_IN if sign == "!=" else Operator.IN
        requirements.append(Requirement(path, operator, frozenset((_unescape(value),))))
    return Selector(tuple(requirements))


_EXPRESSIONS: Mapping[str, Operator] = {
    "In": Operator.IN,
    "NotIn": Operator.NOT_IN,
    "Exists": Operator.EXISTS,
    "DoesNotExist": Operator.DOES_NOT_EXIST,
    "Gt": Operator.GREATER,
    "Lt": Operator.LESS,
}


def from_label_selector(document: Mapping[str, Any] | None) -> Selector | None:
    """The selector of a `LabelSelector` object (matchLabels and matchExpressions); None selects nothing.

    Raises:
        ValueError: when an expression's operator is not known.
    """
    if document is None:
        return None
    requirements = [
        Requirement(key, Operator.IN, frozenset((value,)))
        for key, value in sorted((document.get("matchLabels") or {}).items())
    ]
    requirements += from_expressions(document.get("matchExpressions") or ())
    return Selector(tuple(requirements))


def from_expressions(expressions: Sequence[Mapping[str, Any]]) -> list[Requirement]:
    """The requirements of a list of `key`, `operator`, `values` objects.

    Raises:
        ValueError: when an expression's operator is not known.
    """
    result = []
    for expression in expressions:
        operator = _EXPRESSIONS.get(expression.get("operator") or "")
        if operator is None:
            raise ValueError(f'"{expression.get("operator") or ""}" is not a valid label selector operator')
        result.append(Requirement(expression.get("key") or "", operator, frozenset(expression.get("values") or ())))
    return result


def from_mapping(labels: Mapping[str, str] | None) -> Selector | None:
    """The selector of a plain map (a Service's); None or an empty map selects nothing."""
    if not labels:
        return None
    return Selector(tuple(Requirement(k, Operator.IN, frozenset((v,))) for k, v in sorted(labels.items())))


def to_text(selector: Selector) -> str:
    """The selector in the syntax that `parse_labels` reads."""
    return ",".join(_WRITERS[r.operator](r) for r in selector.requirements)


def _in_text(requirement: Requirement) -> str:
    if len(requirement.values) == 1:
        return f"{requirement.key}={next(iter(requirement.values))}"
    return f"{requirement.key} in ({','.join(sorted(requirement.values))})"


_WRITERS: Mapping[Operator, Callable[[Requirement], str]] = {
    Operator.IN: _in_text,
    Operator.NOT_IN: lambda r: f"{r.key} notin ({','.join(sorted(r.values))})",
    Operator.EXISTS: lambda r: r.key,
    Operator.DOES_NOT_EXIST: lambda r: f"!{r.key}",
    Operator.GREATER: lambda r: f"{r.key}>{next(iter(r.values))}",
    Operator.LESS: lambda r: f"{r.key}<{next(iter(r.values))}",
}


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"unable to parse requirement: unexpected {text[at]!r} in {text!r}")
        tokens.append(match.group("word") or match.group("sign"))
        at = match.end()
    return tokens


class _Cursor:
    def __init__(self, tokens: list[str], text: str) -> None:
        self._tokens = tokens
        self._text = text
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self._at += 1
        return token

    def word(self, *, empty: bool = False) -> str:
        token = self.peek()
        if not token or not _is_word(token):
            if empty:
                return ""
            raise ValueError(f"unable to parse requirement: found {token!r}, expected an identifier in {self._text!r}")
        return self.take()

    def expect(self, sign: str) -> None:
        token = self.take()
        if token != sign:
            raise ValueError(f"unable to parse requirement: found {token!r}, expected {sign!r} in {self._text!r}")


def _is_word(token: str) -> bool:
    return token[0].isalnum() or token[0] in "_./-"


def _parse_requirements(tokens: list[str], text: str) -> list[Requirement]:
    cursor = _Cursor(tokens, text)
    result = [_checked(_parse_requirement(cursor))]
    while cursor.peek():
        cursor.expect(",")
        result.append(_checked(_parse_requirement(cursor)))
    return result


def _checked(requirement: Requirement) -> Requirement:
    for wrong in names.qualified(requirement.key):
        raise ValueError(f'unable to parse requirement: key: Invalid value: "{requirement.key}": {wrong}')
    for value in sorted(requirement.values):
        for wrong in names.label_value(value):
            raise ValueError(f'unable to parse requirement: values: Invalid value: "{value}": {wrong}')
    return requirement


def _parse_requirement(cursor: _Cursor) -> Requirement:
    if cursor.peek() == "!":
        cursor.take()
        return Requirement(cursor.word(), Operator.DOES_NOT_EXIST)
    key = cursor.word()
    match cursor.peek():
        case "=" | "==":
            cursor.take()
            return Requirement(key, Operator.IN, frozenset((cursor.word(empty=True),)))
        case "!=":
            cursor.take()
            return Requirement(key, Operator.NOT_IN, frozenset((cursor.word(empty=True),)))
        case ">" | "<" as sign:
            cursor.take()
            bound = cursor.word()
            if not bound.lstrip("-").isdigit():
                raise ValueError(f"unable to parse requirement: {bound!r} must be an integer for {sign!r}")
            return Requirement(key, Operator.GREATER if sign == ">" else Operator.LESS, frozenset((bound,)))
        case "in" | "notin" as name:
            cursor.take()
            return Requirement(key, Operator(name), _parse_values(cursor))
        case _:
            return Requirement(key, Operator.EXISTS)


def _parse_values(cursor: _Cursor) -> frozenset[str]:
    cursor.expect("(")
    values = [cursor.word(empty=True)]
    while cursor.peek() == ",":
        cursor.take()
        values.append(cursor.word(empty=True))
    cursor.expect(")")
    return frozenset(values)


def _split_terms(text: str) -> list[str]:
    r"""Split at commas that no backslash escapes."""
    return [t for t in re.findall(r"(?:\\.|[^\\,])+", text, re.DOTALL) if t.strip()]


def _unescape(value: str) -> str:
    return re.sub(r"\\([\\,=])", r"\1", value)
