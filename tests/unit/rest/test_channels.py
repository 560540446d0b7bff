from __future__ import annotations

import msgspec
import pytest

from master.rest.answers import warning
from master.rest.channels import Input, InputEnd, Message, Resize, outcome, parse


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", None),
        (b"\0", None),
        (b"\0abc", Input(b"abc")),
        (b"\xff\0", InputEnd()),
        (b"\xff\1", None),
        (b"\xff", None),
        (b'\4{"Width":80,"Height":24}', Resize(80, 24)),
        (b'\4{"Width":-1,"Height":999999}', Resize(0, 65535)),
        (b'\4{"Width":"x","Height":1}', None),
        (b"\4[]", None),
        (b"\4nonsense", None),
        (b"\1out", None),
        (b"\x09what", None),
    ],
)
def test_messages_of_a_websocket(data: bytes, expected: Message | None) -> None:
    assert parse(data) == expected


def test_outcomes() -> None:
    assert msgspec.json.decode(outcome(0)) == {"metadata": {}, "status": "Success"}
    failed = msgspec.json.decode(outcome(137))
    assert failed["reason"] == "NonZeroExitCode"
    assert failed["details"]["causes"] == [{"reason": "ExitCode", "message": "137"}]


def test_warnings_are_one_quoted_line() -> None:
    assert warning('say "hi" \\ \r\nX-Header: 1') == '299 - "say \\"hi\\" \\\\   X-Header: 1"'
