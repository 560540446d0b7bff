"""Reads request bodies: JSON and YAML, with the fields that occur twice.

Parsers silently take the last of two equal keys; clients that ask for strict validation want to be told. Looking for
them costs a slower parser, so that is used only when writing the document again does not give the same text.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from typing import Any

import msgspec
import yaml

from kybern.api.errors import bad_request


def decode_json(body: bytes) -> tuple[dict[str, Any], list[str]]:
    """The object in a JSON body, and the paths of the fields that occur more than once (the last one counts).

    Raises:
        StatusError: 400 when the body is not JSON, or not an object.
    """
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the body of the request is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise bad_request(f"the body of the request must be a JSON object, not {_json_type(document)}")
    try:
        return document, _duplicates(body, document)
    except RecursionError:
        raise bad_request("the body of the request is nested too deep") from None


def decode_json_value(body: bytes) -> Any:
    """Any JSON value, such as the list of operations of a JSON patch.

    Raises:
        StatusError: 400 when the body is not JSON.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the body of the request is not valid JSON: {error}") from None


def decode_yaml(body: bytes) -> tuple[dict[str, Any], list[str]]:
    """The object in a YAML body (JSON is YAML too), and the paths of the fields that occur more than once.

    Raises:
        StatusError: 400 when the body is not YAML, holds more than one document, or is not an object.
    """
    if body[:1] == b"{":
        return decode_json(body)
    try:
        loader = _Loader(body)
        document = loader.get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise bad_request(f"the body of the request is not valid YAML: {error}") from None
    if not isinstance(document, dict):
        raise bad_request(f"the body of the request must be a YAML mapping, not {_json_type(document)}")
    return document, loader.duplicates


def _json_type(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


# --- keys that occur twice


def _duplicates(body: bytes, document: dict[str, Any]) -> list[str]:
    if msgspec.json.format(body, indent=-1) == msgspec.json.encode(document):
        return []
    # Escapes and numbers may be written in other ways than ours, so this says nothing yet.
    found = _PairReader()
    tree = json.loads(body, object_pairs_hook=found.read)
    return list(_paths(tree, "")) if found.any else []


class _Repeated(dict[str, Any]):
    """An object in which keys occur more than once."""

    keys_twice: tuple[str, ...] = ()


class _PairReader:
    def __init__(self) -> None:
        self.any = False

    def read(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) == len(pairs):
            return result
        self.any = True
        seen: set[str] = set()
        # A key that occurs three times is reported once.
        twice = dict.fromkeys(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        repeated = _Repeated(result)
        repeated.keys_twice = tuple(twice)
        return repeated


def _paths(value: Any, path: str) -> Iterable[str]:
    if isinstance(value, _Repeated):
        yield from (f"{path}.{key}" if path else key for key in value.keys_twice)
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, f"{path}[{index}]")


# --- YAML


class _Loader(yaml.SafeLoader):
    """YAML as JSON sees it: text keys, and dates stay text."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.duplicates: list[str] = []
        self._path: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping; remembers keys that occur twice."""
        self.flatten_mapping(node)
        result: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = _text(self.construct_object(key_node, deep=True))
            self._path.append(key)
            if key in result:
                self.duplicates.append(".".join(self._path))
            result[key] = self.construct_object(value_node, deep=True)
            self._path.pop()
        return result


def _text(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, str | int | float):
        return str(key)
    raise ValueError(f"keys must be text, not {key!r}")
