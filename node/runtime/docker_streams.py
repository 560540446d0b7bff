"""The streams of a process behind a Docker Engine: frames, exec, attach."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from node.runtime.engine_http import Answer, lost
from node.runtime.interface import Output, RuntimeFailure

# Before each frame: 1 is standard output, 2 standard error; three zero bytes; the frame's length.
_FRAME_HEADER = 8
_STDERR = 2
# An exec's exit code is known a moment after its stream has ended.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.5


class Frames:
    """Takes frames apart as their bytes come in, however these are cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._left = 0
        self._stderr = False

    def feed(self, data: bytes) -> list[Output]:
        """What is in the bytes; part of a frame comes out at once.

        Raises:
            RuntimeFailure: when the bytes are not frames.
        """
        self._buffer += data
        found = []
        while self._buffer:
            if self._left == 0:
                if len(self._buffer) < _FRAME_HEADER:
                    break
                if self._buffer[0] > _STDERR or any(self._buffer[1:4]):
                    raise RuntimeFailure("the engine's stream is not made of frames")
                self._stderr = self._buffer[0] == _STDERR
                self._left = int.from_bytes(self._buffer[4:_FRAME_HEADER], "big")
                del self._buffer[:_FRAME_HEADER]
                continue
            piece = bytes(self._buffer[: self._left])
            del self._buffer[: self._left]
            self._left -= len(piece)
            found.append(Output(piece, self._stderr))
        return found


async def outputs(answer: Answer, *, tty: bool) -> AsyncIterator[Output]:
    """What comes by a stream; with a terminal there is one stream without frames."""
    frames = Frames()
    async for data in answer.body():
        if tty:
            yield Output(data)
        else:
            for output in frames.feed(data):
                yield output


async def json_lines(answer: Answer) -> AsyncIterator[Any]:
    """The JSON values of a stream that holds one per line."""
    buffer = b""
    async for data in answer.body():
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)
    if buffer.strip():
        yield json.loads(buffer)


class EngineProcess:
    """`ProcessStream` over an upgraded connection. `result` is the exit code, or None while the process runs."""

    def __init__(
        self,
        answer: Answer,
        *,
        tty: bool,
        result: Callable[[], Awaitable[int | None]],
        resize: Callable[[int, int], Awaitable[None]],
    ) -> None:
        self._answer = answer
        self._tty = tty
        self._result = result
        self._resize = resize
        self._ended = asyncio.Event()
        self._stdin_open = True

    async def output(self) -> AsyncIterator[Output]:
        """As `ProcessStream.output`."""
        try:
            async for output in outputs(self._answer, tty=self._tty):
                yield output
        finally:
            self._ended.set()

    async def write(self, data: bytes) -> None:
        """As `ProcessStream.write`; what comes after the process's end is dropped."""
        if not self._stdin_open:
            return
        try:
            self._answer.writer.write(data)
            await self._answer.writer.drain()
        except OSError as error:
            self._stdin_open = False
            if not self._ended.is_set() and await self._result() is None:
                raise lost("closed the connection", error) from error

    async def close_stdin(self) -> None:
        """As `ProcessStream.close_stdin`."""
        if self._stdin_open:
            self._stdin_open = False
            if self._answer.writer.can_write_eof() and not self._answer.writer.is_closing():
                self._answer.writer.write_eof()

    async def resize(self, width: int, height: int) -> None:
        """As `ProcessStream.resize`."""
        await self._resize(width, height)

    async def exit_code(self) -> int:
        """As `ProcessStream.exit_code`."""
        pause = _FIRST_PAUSE
        while (code := await self._result()) is None:
            if self._ended.is_set():
                await asyncio.sleep(pause)
            else:
                # Look again when the stream ends, and now and then: a child may hold it open.
                try:
                    async with asyncio.timeout(pause):
                        await self._ended.wait()
                    pause = _FIRST_PAUSE
                    continue
                except TimeoutError:
                    pass
            pause = min(2 * pause, _LONGEST_PAUSE)
        return code

    async def close(self) -> None:
        """As `ProcessStream.close`."""
        self._stdin_open = False
        self._ended.set()
        self._answer.close()
