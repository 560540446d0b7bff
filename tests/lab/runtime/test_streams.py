"""Logs, exec and attach on a real engine."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from node.runtime.interface import LogOptions, RuntimeFailure
from tests.lab.runtime.pods import PATIENCE, Pods, read, read_log, read_until

pytestmark = pytest.mark.lab


async def test_parts_of_a_log(pods: Pods) -> None:
    container = await pods.start("for i in 1 2 3; do echo line $i; done")
    await pods.ended(container)

    async def log(**options: object) -> bytes:
        return await read_log(pods.runtime, container, LogOptions(**options))  # type: ignore[arg-type]

    assert await log() == b"line 1\nline 2\nline 3\n"
    assert await log(tail_lines=2) == b"line 2\nline 3\n"
    assert await log(tail_lines=0) == b""
    assert await log(limit_bytes=8) == b"line 1\nl"
    assert await log(limit_bytes=0) == b""
    stamped = (await log(timestamps=True)).splitlines()[0]
    at, _, text = stamped.partition(b" ")
    assert text == b"line 1"
    moment = datetime.fromisoformat(at[:26].decode() + "+00:00")
    assert len(at) == len("2026-01-01T00:00:00.000000000Z")
    assert await log(since=moment) != b""
    assert await log(since=datetime.now(UTC)) == b""


async def test_a_log_holds_both_streams(pods: Pods) -> None:
    # They come by two pipes, so their order is not certain.
    container = await pods.start("echo out; echo err >&2")
    await pods.ended(container)
    assert sorted((await read_log(pods.runtime, container, LogOptions())).split()) == [b"err", b"out"]


async def test_a_log_is_followed_to_the_end(pods: Pods) -> None:
    container = await pods.start("echo first; read line; echo second $line", stdin=True)
    lines = aiter(pods.runtime.logs(container, LogOptions(follow=True)))
    async with asyncio.timeout(PATIENCE):
        assert await anext(lines) == b"first\n"
        process = await pods.runtime.attach(container, tty=False, stdin=True)
        await process.write(b"go\n")
        assert await anext(lines) == b"second go\n"
        assert await anext(lines, b"") == b""
    await process.close()


async def test_the_log_of_nothing(pods: Pods) -> None:
    with pytest.raises(RuntimeFailure) as missing:
        await read_log(pods.runtime, "0" * 64, LogOptions())
    assert missing.value.gone


async def test_a_long_line_comes_whole(pods: Pods) -> None:
    container = await pods.start("head -c 200000 /dev/zero | tr '\\0' x; echo; exit 0")
    await pods.ended(container)
    log = await read_log(pods.runtime, container, LogOptions())
    assert log.rstrip(b"\n") == b"x" * 200000


async def test_commands_run_to_their_end(pods: Pods) -> None:
    container = await pods.start("sleep 1000")
    result = await pods.runtime.exec_sync(container, ["sh", "-c", "echo out; echo err >&2; exit 5"], PATIENCE)
    assert result.exit_code == 5
    assert sorted(result.output.split()) == [b"err", b"out"]
    missing = await pods.runtime.exec_sync(container, ["/no/such"], PATIENCE)
    assert missing.exit_code in (126, 127)
    assert b"no such file" in missing.output


async def test_a_command_that_takes_too_long_is_killed(pods: Pods) -> None:
    container = await pods.start("sleep 1000")
    with pytest.raises(RuntimeFailure) as late:
        await pods.runtime.exec_sync(container, ["sleep", "2000"], 1.0)
    assert late.value.reason == "Timeout"
    async with asyncio.timeout(PATIENCE):
        while True:
            if b"2000" not in (await pods.runtime.exec_sync(container, ["ps"], PATIENCE)).output:
                break
            await asyncio.sleep(0.05)


async def test_nothing_runs_in_a_container_that_has_ended(pods: Pods) -> None:
    container = await pods.start("exit 0")
    await pods.ended(container)
    for attempt in (
        pods.runtime.exec_sync(container, ["true"], PATIENCE),
        pods.runtime.exec(container, ["true"], tty=False, stdin=False),
        pods.runtime.attach(container, tty=False, stdin=False),
    ):
        with pytest.raises(RuntimeFailure) as refused:
            await attempt
        assert refused.value.reason == "NotRunning"
    await pods.runtime.remove_container(container)
    with pytest.raises(RuntimeFailure) as gone:
        await pods.runtime.exec_sync(container, ["true"], PATIENCE)
    assert gone.value.gone


async def test_a_command_with_its_three_streams(pods: Pods) -> None:
    container = await pods.start("sleep 1000")
    process = await pods.runtime.exec(container, ["sh", "-c", "cat; echo bye >&2; exit 9"], tty=False, stdin=True)
    data = b"0123456789abcdef" * 20_000
    writing = asyncio.ensure_future(feed(process, data))
    assert await read(process) == (data, b"bye\n", 9)
    await writing


async def feed(process, data: bytes) -> None:  # type: ignore[no-untyped-def]
    await process.write(data)
    await process.close_stdin()


async def test_a_shell_with_a_terminal(pods: Pods) -> None:
    container = await pods.start("sleep 1000")
    process = await pods.runtime.exec(container, ["sh"], tty=True, stdin=True)
    await process.resize(132, 43)
    await process.write(b"echo size $(stty size); tty\n")
    shown = await read_until(process, b"/dev/pts/")
    assert b"size 43 132" in shown
    await process.write(b"exit 4\n")
    output, _, code = await read(process)
    assert code == 4
    assert output is not None


async def test_a_signal_that_ends_a_command_shows_in_its_code(pods: Pods) -> None:
    container = await pods.start("sleep 1000")
    process = await pods.runtime.exec(container, ["sh", "-c", "kill -9 $$"], tty=False, stdin=False)
    assert (await read(process))[2] == 137


async def test_attaching_to_the_main_process(pods: Pods) -> None:
    container = await pods.start("echo up; while read line; do echo got $line; done; exit 6", stdin=True)
    process = await pods.runtime.attach(container, tty=False, stdin=True)
    await process.write(b"one\n")
    await read_until(process, b"got one")
    await process.close()
    # A client that goes leaves the process as it is.
    again = await pods.runtime.attach(container, tty=False, stdin=True)
    await again.write(b"two\n")
    await read_until(again, b"got two")
    await pods.runtime.stop_container(container, 0)
    assert await again.exit_code() == 137
    await again.close()


async def test_a_terminal_of_the_main_process(pods: Pods) -> None:
    container = await pods.start("read line; stty size; exit 0", stdin=True, tty=True)
    process = await pods.runtime.attach(container, tty=True, stdin=True)
    await process.resize(90, 30)
    await process.write(b"\n")
    output, _, code = await read(process)
    assert b"30 90" in output
    assert code == 0


async def test_input_that_comes_once_ends_with_its_client(pods: Pods) -> None:
    container = await pods.start("cat; exit 8", stdin=True, stdin_once=True)
    process = await pods.runtime.attach(container, tty=False, stdin=True)
    await process.write(b"all of it")
    await process.close_stdin()
    assert await read(process) == (b"all of it", b"", 8)
