"""The fake runtime, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from kybern.clock import LoopClock, run_virtual
from node.runtime.fake import KILLED, TERMINATED, FakeRuntime
from node.runtime.interface import (
    Container,
    ContainerConfig,
    ContainerState,
    ExecResult,
    LogOptions,
    PodIdentity,
    Runtime,
    RuntimeFailure,
    Sandbox,
    SandboxConfig,
)

POD = PodIdentity("default", "web", "u1")
Scenario = Callable[[FakeRuntime], Coroutine[Any, Any, None]]


def play(scenario: Scenario, **arguments: Any) -> None:
    async def main() -> None:
        runtime = FakeRuntime(LoopClock(), images=["busybox"], **arguments)
        checked: Runtime = runtime
        await checked.prepare()
        await scenario(runtime)

    run_virtual(main())


async def start(runtime: FakeRuntime, *args: str, name: str = "c", sandbox: Sandbox | None = None) -> str:
    sandbox = sandbox or await runtime.run_sandbox(SandboxConfig(POD))
    made = await runtime.create_container(sandbox, ContainerConfig(name, "busybox", args=args))
    await runtime.start_container(made)
    return made


async def seen(runtime: FakeRuntime, container: str) -> Container:
    return next(c for c in await runtime.containers() if c.id == container)


def test_a_container_starts_after_its_time_and_ends_with_its_code() -> None:
    async def scenario(runtime: FakeRuntime) -> None:
        loop = asyncio.get_running_loop()
        made = await start(runtime, "sh", "-c", "echo hello; sleep 60; exit 3")
        assert loop.time() == pytest.approx(2.0)
        assert (await seen(runtime, made)).state is ContainerState.RUNNING
        await asyncio.sleep(59.9)
        assert (await seen(runtime, made)).state is ContainerState.RUNNING
        await asyncio.sleep(0.2)
        ended = await seen(runtime, made)
        assert (ended.state, ended.exit_code, ended.reason) == (ContainerState.EXITED, 3, "Error")
        assert ended.started_at and ended.finished_at
        assert (ended.finished_at - ended.started_at).total_seconds() == pytest.approx(60)

    play(scenario, start_seconds=2.0)


@pytest.mark.parametrize(("args", "code", "seconds"), [(["nginx"], TERMINATED, 0), (["trap"], KILLED, 30)])
def test_stopping(args: list[str], code: int, seconds: float) -> None:
    async def scenario(runtime: FakeRuntime) -> None:
        made = await start(runtime, "sh", "-c", "; ".join([*args, "sleep forever"]))
        before = asyncio.get_running_loop().time()
        await runtime.stop_container(made, 30)
        assert asyncio.get_running_loop().time() - before == pytest.approx(seconds)
        assert (await seen(runtime, made)).exit_code == code
        await runtime.stop_container(made, 30)
        await runtime.remove_container(made)
        await runtime.remove_container(made)
        await runtime.stop_container(made, 30)
        assert await runtime.containers() == []

    play(scenario)


def test_events_tell_which_pod_and_end_with_the_engine() -> None:
    async def scenario(runtime: FakeRuntime) -> None:
        events = runtime.events()
        made = await start(runtime)
        assert (await anext(events)).pod == POD
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(1)
        assert not waiting.done()
        runtime.finish(made, 1)
        assert (await waiting).pod == POD
        runtime.lose()
        with pytest.raises(RuntimeFailure) as lost:
            await anext(events)
        assert lost.value.unavailable
        with pytest.raises(RuntimeFailure):
            await runtime.version()
        with pytest.raises(RuntimeFailure):
            await anext(runtime.events())
        runtime.restore(kill=True)
        assert [s.ready for s in await runtime.sandboxes()] == [False]

    play(scenario)


def test_scripted_failures_come_once_and_pulls_fail_until_healed() -> None:
    async def scenario(runtime: FakeRuntime) -> None:
        runtime.fail("run_sandbox", RuntimeFailure("no", reason="CreatePodSandboxError"))
        with pytest.raises(RuntimeFailure, match="no"):
            await runtime.run_sandbox(SandboxConfig(POD))
        sandbox = await runtime.run_sandbox(SandboxConfig(POD))
        with pytest.raises(RuntimeFailure, match="no such image"):
            await runtime.create_container(sandbox, ContainerConfig("c", "absent"))
        runtime.fail_pull("absent")
        with pytest.raises(RuntimeFailure) as refused:
            await runtime.pull_image("absent")
        assert refused.value.reason == "ErrImagePull"
        runtime.fail_pull("absent", heal=True)
        image = await runtime.pull_image("absent")
        assert await runtime.image("absent") == image
        await runtime.create_container(sandbox, ContainerConfig("c", "absent"))
        with pytest.raises(RuntimeFailure):
            await runtime.remove_image(image.id)

    play(scenario)


def test_exec_follows_the_words_or_the_script() -> None:
    def answer(container: Container, command: Sequence[str]) -> ExecResult | None:
        return ExecResult(7, container.name.encode()) if command == ["ask"] else None

    async def scenario(runtime: FakeRuntime) -> None:
        made = await start(runtime)
        assert await runtime.exec_sync(made, ["ask"], 1) == ExecResult(7, b"c")
        assert await runtime.exec_sync(made, ["sh", "-c", "echo a; exit 2"], 1) == ExecResult(2, b"a\n")
        with pytest.raises(RuntimeFailure) as late:
            await runtime.exec_sync(made, ["sleep", "9"], 1)
        assert late.value.reason == "Timeout"
        process = await runtime.exec(made, ["cat"], tty=True, stdin=True)
        await process.write(b"typed")
        await process.close_stdin()
        assert [o.data async for o in process.output()] == [b"typed"]
        assert await process.exit_code() == 0
        runtime.finish(made)
        with pytest.raises(RuntimeFailure) as ended:
            await runtime.exec_sync(made, ["true"], 1)
        assert ended.value.reason == "NotRunning"

    play(scenario, on_exec=answer)


def test_logs_follow_until_the_end() -> None:
    async def scenario(runtime: FakeRuntime) -> None:
        made = await start(runtime, "sh", "-c", "echo one; echo two; server")
        read = [line async for line in runtime.logs(made, LogOptions(tail_lines=1))]
        assert read == [b"two\n"]
        following = asyncio.ensure_future(collect(runtime, made, LogOptions(follow=True, timestamps=True)))
        await asyncio.sleep(5)
        runtime.write(made, "three")
        await asyncio.sleep(5)
        assert not following.done()
        runtime.finish(made)
        lines = await following
        assert [line.split()[1] for line in lines] == [b"one", b"two", b"three"]
        assert lines[2].startswith(b"2026-01-01T00:00:05.1")
        assert await collect(runtime, made, LogOptions(limit_bytes=5)) == [b"one\n", b"t"]

    play(scenario)


async def collect(runtime: FakeRuntime, container: str, options: LogOptions) -> list[bytes]:
    return [line async for line in runtime.logs(container, options)]


def test_a_sandbox_takes_its_containers_with_it() -> None:
    async def scenario(runtime: FakeRuntime) -> None:
        sandbox = await runtime.run_sandbox(SandboxConfig(POD))
        await start(runtime, sandbox=sandbox)
        with pytest.raises(RuntimeFailure):
            await runtime.run_sandbox(SandboxConfig(POD))
        await runtime.stop_sandbox(sandbox.id)
        assert not (await runtime.sandboxes())[0].ready
        await runtime.remove_sandbox(sandbox.id)
        await runtime.remove_sandbox(sandbox.id)
        assert not await runtime.sandboxes()
        assert not await runtime.containers()

    play(scenario)
