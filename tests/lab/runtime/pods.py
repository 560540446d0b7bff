"""Pods on a runtime, removed after the test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from node.runtime.interface import (
    Container,
    ContainerConfig,
    ContainerState,
    LogOptions,
    Output,
    PodIdentity,
    ProcessStream,
    Runtime,
    Sandbox,
    SandboxConfig,
)

# How long a test waits for what must come; a loaded machine takes its time.
PATIENCE = 30.0


class Pods:
    """Makes sandboxes and containers."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._numbers = itertools.count(1)
        self._sandboxes: list[Sandbox] = []

    async def sandbox(self, **fields: Any) -> Sandbox:
        number = next(self._numbers)
        pod = fields.pop("pod", PodIdentity("default", f"pod-{number}", f"uid-{number}"))
        made = await self.runtime.run_sandbox(SandboxConfig(pod, **fields))
        self._sandboxes.append(made)
        return made

    async def create(self, script: str, *, sandbox: Sandbox | None = None, **fields: Any) -> str:
        """A container that runs a script in a shell, in a sandbox of its own unless one is given."""
        sandbox = sandbox or await self.sandbox()
        config = ContainerConfig("main", "busybox", command=("sh", "-c"), args=(script,))
        return await self.runtime.create_container(sandbox, replace(config, **fields))

    async def start(self, script: str, **fields: Any) -> str:
        made = await self.create(script, **fields)
        await self.runtime.start_container(made)
        return made

    async def show(self, container: str) -> Container:
        return next(c for c in await self.runtime.containers() if c.id == container)

    async def ended(self, container: str) -> Container:
        """The container, once it has ended."""
        return await self.until(container, lambda shown: shown.state is ContainerState.EXITED)

    async def until(self, container: str, condition: Callable[[Container], bool]) -> Container:
        async with asyncio.timeout(PATIENCE):
            while True:
                if condition(shown := await self.show(container)):
                    return shown
                await asyncio.sleep(0.02)

    async def says(self, script: str, **fields: Any) -> str:
        """What a script writes in a container of its own."""
        made = await self.start(script, **fields)
        return (await read_log(self.runtime, made, LogOptions(follow=True))).decode()

    async def close(self) -> None:
        for sandbox in self._sandboxes:
            await self.runtime.remove_sandbox(sandbox.id)


async def read_log(runtime: Runtime, container: str, options: LogOptions) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return b"".join([data async for data in runtime.logs(container, options)])


async def read(process: ProcessStream) -> tuple[bytes, bytes, int]:
    """What a process writes on both streams, and how it ends."""
    written: list[Output] = []
    async with asyncio.timeout(PATIENCE):
        async for output in process.output():
            written.append(output)
        code = await process.exit_code()
    await process.close()
    return joined(written, stderr=False), joined(written, stderr=True), code


async def read_until(process: ProcessStream, text: bytes) -> bytes:
    """What a process writes until that text is among it."""
    data = b""
    async with asyncio.timeout(PATIENCE):
        async for output in process.output():
            data += output.data
            if text in data:
                return data
    raise AssertionError(f"the process ended without {text!r}: {data!r}")


def joined(written: list[Output], *, stderr: bool) -> bytes:
    return b"".join(output.data for output in written if output.stderr is stderr)
