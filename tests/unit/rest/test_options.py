from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from multidict import MultiDict

from kybern.api.errors import StatusError
from master.apiserver.interface import Body, DeleteOptions, ListOptions, WatchOptions, WriteOptions
from master.rest import options
from master.rest.logs import log_request
from master.rest.shells import streams_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_write_options() -> None:
    query = {"dryRun": "All", "fieldManager": "me", "fieldValidation": "Strict"}
    assert options.write_options(query, "kubectl/v1.37") == WriteOptions(True, "me", "Strict")


@pytest.mark.parametrize(
    ("agent", "manager"),
    [
        ("kubectl/v1.37.1 (linux)", "kubectl"),
        ("OpenAPI-Generator/37/python", "OpenAPI-Generator"),
        ("", ""),
        ("a\x07b", "ab"),
    ],
)
def test_the_user_agent_names_the_manager(agent: str, manager: str) -> None:
    assert options.write_options({}, agent).field_manager == manager


def test_apply_needs_a_manager() -> None:
    with pytest.raises(StatusError, match="fieldManager: Required value") as caught:
        options.apply_options({})
    assert caught.value.code == 422
    assert options.apply_options({"fieldManager": "m", "force": "true"}) == (WriteOptions(field_manager="m"), True)


def test_list_options() -> None:
    query = {
        "labelSelector": "a=b",
        "fieldSelector": "metadata.name=x",
        "resourceVersion": "12",
        "resourceVersionMatch": "Exact",
        "limit": "5",
        "continue": "abc",
    }
    assert options.list_options(query) == ListOptions("a=b", "metadata.name=x", "12", "Exact", 5, "abc")


def test_watch_options() -> None:
    query = {"allowWatchBookmarks": "true", "sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    assert options.watch_options(query) == WatchOptions(bookmarks=True, send_initial_events=True)
    assert options.watch_seconds({"timeoutSeconds": "7"}) == 7
    assert options.watch_seconds({}) is None


@pytest.mark.parametrize(
    "query",
    [
        {"sendInitialEvents": "true"},
        {"resourceVersionMatch": "NotOlderThan"},
        {"sendInitialEvents": "true", "resourceVersionMatch": "Exact"},
    ],
)
def test_watch_options_that_mean_nothing_are_invalid(query: dict[str, str]) -> None:
    with pytest.raises(StatusError) as caught:
        options.watch_options(query)
    assert (caught.value.code, caught.value.causes[0].field) == (422, "resourceVersionMatch")


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        ({}, Body(b""), DeleteOptions()),
        ({"gracePeriodSeconds": "0", "propagationPolicy": "Orphan"}, Body(b""), DeleteOptions(0, "Orphan")),
        ({}, Body(b'{"gracePeriodSeconds":5,"propagationPolicy":"Background"}'), DeleteOptions(5, "Background")),
        ({}, Body(b'{"gracePeriodSeconds":-1}'), DeleteOptions(1)),
        ({}, Body(b'{"orphanDependents":true}'), DeleteOptions(None, "Orphan")),
        ({"orphanDependents": "false"}, Body(b""), DeleteOptions(None, "Background")),
        (
            {"gracePeriodSeconds": "9"},
            Body(b'{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":3}'),
            DeleteOptions(3),
        ),
        (
            {},
            Body(b'{"preconditions":{"uid":"u","resourceVersion":"7"}}'),
            DeleteOptions(uid="u", resource_version="7"),
        ),
        ({}, Body(b'{"dryRun":["All"]}'), DeleteOptions(write=WriteOptions(dry_run=True))),
        ({"dryRun": "All"}, Body(b""), DeleteOptions(write=WriteOptions(dry_run=True))),
        ({}, Body(b"gracePeriodSeconds: 4", "application/yaml"), DeleteOptions(4)),
    ],
)
def test_delete_options(query: dict[str, str], body: Body, expected: DeleteOptions) -> None:
    assert options.delete_options(query, body) == expected


@pytest.mark.parametrize(
    "body",
    [
        b'{"kind":"Pod"}',
        b"[]",
        b"{",
        b'{"preconditions":1}',
        b'{"dryRun":"All"}',
        b'{"gracePeriodSeconds":"1"}',
        b'{"propagationPolicy":"Later"}',
        b'{"orphanDependents":true,"propagationPolicy":"Orphan"}',
    ],
)
def test_bad_delete_options_are_a_400(body: bytes) -> None:
    with pytest.raises(StatusError) as caught:
        options.delete_options({}, Body(body))
    assert caught.value.code == 400


@pytest.mark.parametrize(
    ("read", "query", "name"),
    [
        (lambda q: options.write_options(q, ""), {"dryRun": "Some"}, "dryRun"),
        (lambda q: options.write_options(q, ""), {"fieldValidation": "Hard"}, "fieldValidation"),
        (lambda q: options.write_options(q, ""), {"fieldManager": "x" * 129}, "fieldManager"),
        (options.apply_options, {"fieldManager": "m", "force": "maybe"}, "force"),
        (options.list_options, {"limit": "many"}, "limit"),
        (options.list_options, {"limit": "-1"}, "limit"),
        (options.list_options, {"resourceVersion": "x"}, "resourceVersion"),
        (options.list_options, {"resourceVersion": "-1"}, "resourceVersion"),
        (options.list_options, {"resourceVersionMatch": "Near"}, "resourceVersionMatch"),
        (options.watch_options, {"allowWatchBookmarks": "2"}, "allowWatchBookmarks"),
        (options.watch_seconds, {"timeoutSeconds": "1.5"}, "timeoutSeconds"),
        (options.watch_seconds, {"timeoutSeconds": "--1"}, "timeoutSeconds"),
        (lambda q: options.delete_options(q, Body(b"")), {"gracePeriodSeconds": "soon"}, "gracePeriodSeconds"),
        (lambda q: options.delete_options(q, Body(b"")), {"propagationPolicy": "Later"}, "propagationPolicy"),
        (lambda q: log_request(q, NOW), {"tailLines": "-1"}, "tailLines"),
        (lambda q: log_request(q, NOW), {"sinceSeconds": "0"}, "sinceSeconds"),
        (lambda q: log_request(q, NOW), {"sinceTime": "yesterday"}, "sinceTime"),
        (lambda q: log_request(q, NOW), {"sinceTime": "2026-01-01T00:00:00"}, "sinceTime"),
        (lambda q: log_request(q, NOW), {"limitBytes": "0"}, "limitBytes"),
        (lambda q: log_request(q, NOW), {"stream": "Stdout"}, "stream"),
        (streams_of, {"stdout": "perhaps"}, "stdout"),
        (streams_of, {}, "stdin, stdout and stderr"),
    ],
)
def test_a_bad_value_is_a_400_that_names_the_parameter(
    read: Callable[[Any], Any], query: dict[str, str], name: str
) -> None:
    with pytest.raises(StatusError) as caught:
        read(MultiDict(query))
    assert caught.value.code == 400
    assert name in caught.value.message


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("1", True), ("", True), ("false", False), ("0", False)]
)
def test_switches(value: str, expected: bool) -> None:
    assert options.boolean({"watch": value}, "watch") is expected
    assert options.boolean({}, "watch") is False


def test_log_requests() -> None:
    wanted = log_request({"follow": "true", "tailLines": "0", "sinceSeconds": "5", "timestamps": "1"}, NOW)
    assert (wanted.follow, wanted.timestamps, wanted.previous) == (True, True, False)
    assert wanted.HasField("tail_lines")
    assert wanted.tail_lines == 0
    assert wanted.since.ToJsonString() == "2026-01-02T03:04:00Z"
    assert not wanted.HasField("limit_bytes")
    assert log_request({"sinceTime": "2026-01-02T03:00:00+01:00"}, NOW).since.ToJsonString() == "2026-01-02T02:00:00Z"
    with pytest.raises(StatusError):
        log_request({"sinceTime": "2026-01-02T03:00:00Z", "sinceSeconds": "1"}, NOW)


def test_shell_options() -> None:
    query = MultiDict(
        [("command", "sh"), ("command", "-c"), ("stdin", "1"), ("stdout", "1"), ("stderr", "1"), ("tty", "1")]
    )
    wanted = streams_of(query)
    assert wanted.command == ("sh", "-c")
    # A terminal has one output.
    assert not wanted.stderr
    assert wanted.streams() == {"error", "stdin", "stdout", "resize"}
