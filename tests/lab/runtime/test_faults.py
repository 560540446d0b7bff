"""An engine that is killed, stopped, and comes back."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from kybern.config.models import DockerRuntime as DockerConfig
from node.runtime.docker import DockerRuntime
from node.runtime.interface import ContainerState, PodIdentity, RuntimeFailure, SandboxConfig
from tests.lab.engine import Engine, engine
from tests.lab.runtime.pods import PATIENCE, Pods

pytestmark = pytest.mark.lab


@pytest.fixture
def fragile() -> Iterator[Engine]:
    with engine() as made:
        made.load_busybox()
        yield made


@pytest.fixture
async def survivor(fragile: Engine) -> AsyncIterator[DockerRuntime]:
    made = DockerRuntime(DockerConfig(endpoint=fragile.endpoint))
    await made.prepare()
    yield made
    await made.close()


async def test_an_engine_that_is_killed_and_comes_back(fragile: Engine, survivor: DockerRuntime) -> None:
    pods = Pods(survivor)
    # An engine that comes back ends what it finds, and waits 10 s for what does not listen.
    container = await pods.start("trap 'exit 3' TERM; sleep 1000 & wait")
    events = survivor.events()
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    await asyncio.to_thread(fragile.kill)
    with pytest.raises(RuntimeFailure) as ended:
        async with asyncio.timeout(PATIENCE):
            await waiting
    assert ended.value.unavailable
    for attempt in (
        survivor.version(),
        survivor.containers(),
        survivor.stop_container(container, 1),
        survivor.exec_sync(container, ["true"], 1),
        survivor.run_sandbox(SandboxConfig(PodIdentity("a", "b", "c"))),
    ):
        with pytest.raises(RuntimeFailure) as lost:
            await attempt
        assert lost.value.unavailable
    with pytest.raises(RuntimeFailure):
        await anext(survivor.events())
    await asyncio.to_thread(fragile.start)
    # What ran has died with the engine, and the same runtime object sees it.
    assert (await pods.ended(container)).state is ContainerState.EXITED
    assert [sandbox.ready for sandbox in await survivor.sandboxes()] == [False]
    await pods.close()
    assert await pods.says("echo again") == "again\n"
    await pods.close()


async def test_an_engine_that_hangs(fragile: Engine, survivor: DockerRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    pods = Pods(survivor)
    container = await pods.start("sleep 1000")
    for name, seconds in (("_HEALTH", 0.5), ("_QUICK", 1.0), ("_EVENTS_SILENCE", 0.2)):
        monkeypatch.setattr(f"node.runtime.docker.{name}", seconds)
    events = survivor.events()
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    fragile.signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(RuntimeFailure) as silent:
                await waiting
            assert silent.value.unavailable
            with pytest.raises(RuntimeFailure) as lost:
                await survivor.version()
            assert lost.value.unavailable
            with pytest.raises(RuntimeFailure) as late:
                await survivor.containers()
            assert late.value.unavailable
    finally:
        fragile.signal(signal.SIGCONT)
    monkeypatch.undo()
    assert (await pods.show(container)).state is ContainerState.RUNNING
    await pods.close()
