"""Containers in memory: for tests of the agent, and for simulated clusters of thousands of nodes.

Time is the event loop's, so a whole scenario runs on virtual time (`kybern.clock.run_virtual`). What a container does
follows from its command (`node.runtime.fake_program`); tests add failures, exits and an engine that is gone. The fake
outlives an agent: a second agent on the same object adopts what runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from kybern.clock import Clock
from node.runtime.changes import Changes
from node.runtime.fake_program import Program, program
from node.runtime.interface import (
    Container,
    ContainerConfig,
    ContainerState,
    ContainerUsage,
    ExecResult,
    Image,
    LogOptions,
    Output,
    ProcessStream,
    RuntimeEvent,
    RuntimeFailure,
    RuntimeVersion,
    Sandbox,
    SandboxConfig,
)
from node.runtime.loglines import LogLine, select

# Exit codes of a process that a signal ended: 128 and the signal's number.
TERMINATED = 143
KILLED = 137

OnExec = Callable[[Container, Sequence[str]], ExecResult | None]


@dataclass
class _Running:
    """A container with what the fake knows beyond the interface."""

    seen: Container
    config: ContainerConfig
    program: Program
    log: list[LogLine] = field(default_factory=list)
    usage: tuple[int, int] = (0, 0)
    timer: asyncio.TimerHandle | None = None
    # Replaced at every change, so that any number of waiters see each.
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def touch(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class FakeRuntime:
    """`node.runtime.interface.Runtime` in memory.

    `start_seconds` is how long a container takes to start, `pull_seconds` an image to arrive. Every image can be
    pulled unless `fail_pull` says otherwise; `images` are there from the beginning. `on_exec` answers commands that are
    run in containers (None: the command's own words decide).
    """

    def __init__(
        self,
        clock: Clock,
        start_seconds: float = 0.1,
        *,
        pull_seconds: float = 0.0,
        images: Sequence[str] = (),
        on_exec: OnExec | None = None,
        name: str = "fake",
    ) -> None:
        self._clock = clock
        self._start_seconds = start_seconds
        self._pull_seconds = pull_seconds
        self._name = name
        self._numbers = 0
        self._sandboxes: dict[str, Sandbox] = {}
        self._containers: dict[str, _Running] = {}
        self._images: dict[str, Image] = {}
        self._pull_failures: dict[str, RuntimeFailure] = {}
        self._failures: defaultdict[str, list[RuntimeFailure]] = defaultdict(list)
        self._lost: RuntimeFailure | None = None
        self._changes = Changes()
        self.on_exec = on_exec
        # What was asked for, in order: (method, what it was about).
        self.calls: list[tuple[str, str]] = []
        for reference in images:
            self.add_image(reference)

    # What tests do to it.

    def add_image(self, reference: str, user: str = "", size_bytes: int = 1_000_000) -> Image:
        """Put an image on the node."""
        digest = "sha256:" + hashlib.sha256(reference.encode()).hexdigest()
        self._images[reference] = Image(digest, (reference,), (f"{reference}@{digest}",), size_bytes, user)
        return self._images[reference]

    def fail(self, method: str, failure: RuntimeFailure, times: int = 1) -> None:
        """Make the next calls of a method fail, as in `fail("start_container", RuntimeFailure("no"))`."""
        self._failures[method] += [failure] * times

    def fail_pull(self, reference: str, message: str = "manifest unknown", *, heal: bool = False) -> None:
        """Make an image impossible to pull; `heal` takes that back."""
        if heal:
            self._pull_failures.pop(reference, None)
        else:
            self._pull_failures[reference] = RuntimeFailure(message, reason="ErrImagePull")

    def finish(self, container_id: str, exit_code: int = 0, reason: str = "", message: str = "") -> None:
        """Let a running container end by itself."""
        self._end(self._containers[container_id], exit_code, reason, message)

    def write(self, container_id: str, text: str) -> None:
        """Let a container write a line."""
        running = self._containers[container_id]
        running.log.append(LogLine(self._clock.now(), text.encode() + b"\n"))
        running.touch()

    def set_usage(self, container_id: str, cpu_nanoseconds: int, memory_working_set_bytes: int) -> None:
        """What a container uses from now on."""
        self._containers[container_id].usage = (cpu_nanoseconds, memory_working_set_bytes)

    def kill_sandbox(self, sandbox_id: str) -> None:
        """Let a sandbox's process die."""
        self._sandbox_down(sandbox_id)

    def lose(self) -> None:
        """The engine is gone: every call fails as unavailable, events end. Containers go on."""
        self._lost = RuntimeFailure("the runtime does not answer", unavailable=True)
        self._changes.end(self._lost)

    def restore(self, *, kill: bool = False) -> None:
        """The engine is back; with `kill` everything that ran has died with it."""
        self._lost = None
        if kill:
            for running in self._containers.values():
                if running.seen.state is ContainerState.RUNNING:
                    self._end(running, KILLED)
            for sandbox in self._sandboxes:
                self._sandbox_down(sandbox)

    def config(self, container_id: str) -> ContainerConfig:
        """What a container was made from."""
        return self._containers[container_id].config

    # node.runtime.interface.Runtime

    async def version(self) -> RuntimeVersion:
        """As `Runtime.version`."""
        self._enter("version")
        return RuntimeVersion(self._name, "1.0", 2)

    async def prepare(self) -> None:
        """As `Runtime.prepare`."""
        self._enter("prepare")

    async def sandboxes(self) -> Sequence[Sandbox]:
        """As `Runtime.sandboxes`."""
        self._enter("sandboxes")
        return list(self._sandboxes.values())

    async def containers(self) -> Sequence[Container]:
        """As `Runtime.containers`."""
        self._enter("containers")
        return [running.seen for running in self._containers.values()]

    def events(self) -> AsyncIterator[RuntimeEvent]:
        """As `Runtime.events`."""
        changes = self._changes.subscribe()
        if self._lost is not None:
            self._changes.end(self._lost)
        return changes

    async def run_sandbox(self, config: SandboxConfig) -> Sandbox:
        """As `Runtime.run_sandbox`."""
        self._enter("run_sandbox", config.pod.name)
        for other in self._sandboxes.values():
            if (other.pod, other.attempt) == (config.pod, config.attempt):
                raise RuntimeFailure(f"sandbox of {config.pod.name} exists", reason="CreatePodSandboxError")
        made = self._id("sandbox")
        path = None if config.host_network else Path("/fake/netns") / made[:12]
        sandbox = Sandbox(made, config.pod, config.attempt, True, self._clock.now(), path)
        self._sandboxes[made] = sandbox
        self._changes.publish(config.pod)
        return sandbox

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """As `Runtime.stop_sandbox`."""
        self._enter("stop_sandbox", sandbox_id)
        self._sandbox_down(sandbox_id)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """As `Runtime.remove_sandbox`."""
        self._enter("remove_sandbox", sandbox_id)
        for running in [r for r in self._containers.values() if r.seen.sandbox_id == sandbox_id]:
            self._remove(running)
        sandbox = self._sandboxes.pop(sandbox_id, None)
        if sandbox is not None:
            self._changes.publish(sandbox.pod)

    async def create_container(self, sandbox: Sandbox, config: ContainerConfig) -> str:
        """As `Runtime.create_container`."""
        self._enter("create_container", config.name)
        if not (found := self._sandboxes.get(sandbox.id)) or not found.ready:
            raise RuntimeFailure("the sandbox is not running", reason="CreateContainerError", gone=found is None)
        if (image := self._find(config.image)) is None:
            raise RuntimeFailure(f"no such image: {config.image}", reason="CreateContainerError")
        made = self._id("container")
        seen = Container(
            id=made,
            sandbox_id=sandbox.id,
            pod=sandbox.pod,
            name=config.name,
            attempt=config.attempt,
            state=ContainerState.CREATED,
            image=config.image,
            image_id=image.id,
            created_at=self._clock.now(),
            labels=dict(config.labels),
        )
        self._containers[made] = _Running(seen, config, program((*config.command, *config.args)))
        return made

    async def start_container(self, container_id: str) -> None:
        """As `Runtime.start_container`."""
        self._enter("start_container", container_id)
        running = self._get(container_id)
        if running.seen.state is ContainerState.RUNNING:
            return
        if running.seen.state is not ContainerState.CREATED:
            raise RuntimeFailure("the container has ended", reason="RunContainerError")
        await asyncio.sleep(self._start_seconds)
        self._enter("start_container.late", container_id)
        running = self._get(container_id)
        self._set(running, state=ContainerState.RUNNING, started_at=self._clock.now())
        now = self._clock.now()
        running.log += [LogLine(now, line.encode() + b"\n") for line in running.program.output]
        waits = running.program.echoes and running.config.stdin
        if not waits and not math.isinf(running.program.seconds):
            loop = asyncio.get_running_loop()
            code = running.program.exit_code
            running.timer = loop.call_later(running.program.seconds, self._end, running, code)

    async def stop_container(self, container_id: str, grace_seconds: float) -> None:
        """As `Runtime.stop_container`."""
        self._enter("stop_container", container_id)
        running = self._containers.get(container_id)
        if running is None or running.seen.state is not ContainerState.RUNNING:
            return
        if not running.program.deaf and grace_seconds > 0:
            self._end(running, TERMINATED)
            return
        await asyncio.sleep(grace_seconds)
        self._end(running, KILLED)

    async def remove_container(self, container_id: str) -> None:
        """As `Runtime.remove_container`."""
        self._enter("remove_container", container_id)
        if container_id in self._containers:
            self._remove(self._containers[container_id])

    async def image(self, reference: str) -> Image | None:
        """As `Runtime.image`."""
        self._enter("image", reference)
        return self._find(reference)

    async def images(self) -> Sequence[Image]:
        """As `Runtime.images`."""
        self._enter("images")
        return list(self._images.values())

    async def pull_image(self, reference: str, auth: Mapping[str, str] | None = None) -> Image:
        """As `Runtime.pull_image`."""
        self._enter("pull_image", reference)
        await asyncio.sleep(self._pull_seconds)
        if (failure := self._pull_failures.get(reference)) is not None:
            raise failure
        return self._find(reference) or self.add_image(reference)

    async def remove_image(self, image_id: str) -> None:
        """As `Runtime.remove_image`."""
        self._enter("remove_image", image_id)
        if any(running.seen.image_id == image_id for running in self._containers.values()):
            raise RuntimeFailure(f"image {image_id} is in use")
        self._images = {name: image for name, image in self._images.items() if image.id != image_id}

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
        """As `Runtime.exec_sync`."""
        self._enter("exec_sync", container_id)
        running = self._get(container_id, running=True)
        if self.on_exec is not None and (answer := self.on_exec(running.seen, command)) is not None:
            return answer
        process = program(command)
        await asyncio.sleep(min(process.seconds, timeout))
        if process.seconds > timeout:
            raise RuntimeFailure(f"the command has not ended after {timeout:g} s", reason="Timeout")
        return ExecResult(process.exit_code, _text(process))

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool) -> ProcessStream:
        """As `Runtime.exec`."""
        self._enter("exec", container_id)
        running = self._get(container_id, running=True)
        process = program(command)
        if self.on_exec is not None and (answer := self.on_exec(running.seen, command)) is not None:
            process = Program(0, answer.exit_code, tuple(answer.output.decode().splitlines()))
        return FakeProcess(process, stdin=stdin)

    async def attach(self, container_id: str, *, tty: bool, stdin: bool) -> ProcessStream:
        """As `Runtime.attach`."""
        self._enter("attach", container_id)
        running = self._get(container_id, running=True)
        return FakeProcess(running.program, stdin=stdin)

    async def logs(self, container_id: str, options: LogOptions) -> AsyncIterator[bytes]:
        """As `Runtime.logs`."""
        self._enter("logs", container_id)
        running = self._get(container_id)
        left = options.limit_bytes
        chunk, given = select(running.log, options), len(running.log)
        while True:
            for line in chunk:
                data = line.render(options.timestamps)[:left]
                if left is not None:
                    left -= len(data)
                if data:
                    yield data
                if left == 0:
                    return
            while given == len(running.log):
                if not options.follow or running.seen.state is not ContainerState.RUNNING:
                    return
                await running.changed.wait()
            chunk, given = running.log[given:], len(running.log)

    async def usage(self) -> Sequence[ContainerUsage]:
        """As `Runtime.usage`."""
        self._enter("usage")
        return [
            ContainerUsage(r.seen.id, r.seen.pod, r.seen.name, *r.usage)
            for r in self._containers.values()
            if r.seen.state is ContainerState.RUNNING
        ]

    async def close(self) -> None:
        """As `Runtime.close`."""
        self._changes.end(RuntimeFailure("the runtime was closed", unavailable=True))

    # Inside.

    def _enter(self, method: str, about: str = "") -> None:
        self.calls.append((method, about))
        if self._lost is not None:
            raise self._lost
        if self._failures[method]:
            raise self._failures[method].pop(0)

    def _id(self, kind: str) -> str:
        self._numbers += 1
        return hashlib.sha256(f"{self._name} {kind} {self._numbers}".encode()).hexdigest()

    def _get(self, container_id: str, *, running: bool = False) -> _Running:
        found = self._containers.get(container_id)
        if found is None:
            raise RuntimeFailure(f"no such container: {container_id}", gone=True)
        if running and found.seen.state is not ContainerState.RUNNING:
            raise RuntimeFailure(f"container {found.seen.name} is not running", reason="NotRunning")
        return found

    def _find(self, reference: str) -> Image | None:
        for name, image in self._images.items():
            if reference in (name, image.id, *image.digests):
                return image
        return None

    def _set(
        self,
        running: _Running,
        *,
        state: ContainerState,
        started_at: datetime | None = None,
        exit_code: int | None = None,
        reason: str = "",
        message: str = "",
    ) -> None:
        finished = self._clock.now() if state is ContainerState.EXITED else None
        running.seen = replace(
            running.seen,
            state=state,
            started_at=started_at or running.seen.started_at,
            finished_at=finished,
            exit_code=exit_code,
            reason=reason,
            message=message,
        )
        running.touch()
        self._changes.publish(running.seen.pod)

    def _end(self, running: _Running, code: int, reason: str = "", message: str = "") -> None:
        if running.timer is not None:
            running.timer.cancel()
            running.timer = None
        if running.seen.state is ContainerState.RUNNING:
            reason = reason or ("Completed" if code == 0 else "Error")
            self._set(running, state=ContainerState.EXITED, exit_code=code, reason=reason, message=message)

    def _remove(self, running: _Running) -> None:
        self._end(running, KILLED)
        self._containers.pop(running.seen.id, None)
        running.touch()
        self._changes.publish(running.seen.pod)

    def _sandbox_down(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is not None and sandbox.ready:
            self._sandboxes[sandbox_id] = replace(sandbox, ready=False, network_namespace=None)
            self._changes.publish(sandbox.pod)


def _text(process: Program) -> bytes:
    return "".join(line + "\n" for line in process.output).encode()


class FakeProcess:
    """A process whose streams are connected: writes its lines, gives back its input if it is a `cat`."""

    def __init__(self, process: Program, *, stdin: bool) -> None:
        self._program = process
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._ended = asyncio.Event()
        self.sizes: list[tuple[int, int]] = []
        if not stdin:
            self._input.put_nowait(None)

    async def output(self) -> AsyncIterator[Output]:
        """As `ProcessStream.output`."""
        if text := _text(self._program):
            yield Output(text)
        if self._program.echoes:
            while (data := await self._input.get()) is not None:
                yield Output(data)
        elif not math.isinf(self._program.seconds):
            await asyncio.sleep(self._program.seconds)
        else:
            await self._ended.wait()
        self._ended.set()

    async def write(self, data: bytes) -> None:
        """As `ProcessStream.write`."""
        self._input.put_nowait(data)

    async def close_stdin(self) -> None:
        """As `ProcessStream.close_stdin`."""
        self._input.put_nowait(None)

    async def resize(self, width: int, height: int) -> None:
        """As `ProcessStream.resize`."""
        self.sizes.append((width, height))

    async def exit_code(self) -> int:
        """As `ProcessStream.exit_code`."""
        await self._ended.wait()
        return self._program.exit_code

    async def close(self) -> None:
        """As `ProcessStream.close`."""
        self._input.put_nowait(None)
        self._ended.set()
