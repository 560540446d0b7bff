"""Frames, JSON lines and HTTP answers, however their bytes are cut."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.runtime.docker_streams import Frames, json_lines
from node.runtime.engine_http import Answer, EngineHttp
from node.runtime.interface import Output, RuntimeFailure

OUTPUTS = st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=50)), max_size=10)


def frame(stderr: bool, data: bytes) -> bytes:
    return bytes([2 if stderr else 1, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


@given(outputs=OUTPUTS, sizes=st.lists(st.integers(min_value=1, max_value=20), max_size=30))
def test_frames_come_out_whole_however_they_are_cut(outputs: list[tuple[bool, bytes]], sizes: list[int]) -> None:
    frames = Frames()
    found: list[Output] = []
    for piece in cut(b"".join(frame(*output) for output in outputs), sizes):
        found += frames.feed(piece)
    for stderr in (False, True):
        wanted = b"".join(data for kind, data in outputs if kind is stderr)
        assert b"".join(output.data for output in found if output.stderr is stderr) == wanted


def test_part_of_a_frame_is_not_held_back() -> None:
    assert Frames().feed(frame(False, b"prompt$ ")[:-2]) == [Output(b"prompt")]


def test_what_is_not_made_of_frames_is_refused() -> None:
    with pytest.raises(RuntimeFailure):
        Frames().feed(b"plain text")


def answer(data: bytes, headers: dict[str, str], sizes: list[int] | None = None, *, ended: bool = True) -> Answer:
    reader = asyncio.StreamReader()
    for piece in cut(data, sizes or []):
        reader.feed_data(piece)
    if ended:
        reader.feed_eof()
    return Answer(200, headers, reader, cast(asyncio.StreamWriter, None))


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (b"hello", {}),
        (b"hello and more", {"content-length": "5"}),
        (b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", {"transfer-encoding": "chunked"}),
        (b"5;extension=1\r\nhello\r\n0\r\n\r\n", {"transfer-encoding": "chunked"}),
    ],
)
async def test_bodies(data: bytes, headers: dict[str, str]) -> None:
    assert await answer(data, headers).read() == b"hello"
    assert await answer(data, headers, [1] * len(data)).read() == b"hello"
    assert await answer(data, headers).read(2) == b"he"


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (b"hel", {"content-length": "5"}),
        (b"5\r\nhel", {"transfer-encoding": "chunked"}),
        (b"5\r\nhello\r\n", {"transfer-encoding": "chunked"}),
    ],
)
async def test_a_body_that_breaks_off_is_a_lost_engine(data: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(RuntimeFailure) as lost:
        await answer(data, headers).read()
    assert lost.value.unavailable


@given(sizes=st.lists(st.integers(min_value=1, max_value=8), max_size=20))
def test_json_values_come_out_whole_however_they_are_cut(sizes: list[int]) -> None:
    async def main() -> None:
        data = b'{"a": 1}\r\n\n{"b": "\\n"}\n{"c": 3}'
        assert [each async for each in json_lines(answer(data, {}, sizes))] == [{"a": 1}, {"b": "\n"}, {"c": 3}]

    asyncio.run(main())


@pytest.mark.parametrize(
    "endpoint", ["", "/var/run/docker.sock", "ssh://host", "unix://", "tcp://host", "tcp://host:x"]
)
def test_endpoints_that_are_none(endpoint: str) -> None:
    with pytest.raises(RuntimeFailure, match="endpoint"):
        EngineHttp(endpoint)
