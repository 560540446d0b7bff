"""Hosts for whole members on virtual time: processes that die and stop, a network, disks that are slow, full or hang.

Everything of a member is the real thing, down to the bytes on a connection: only the loop's timers, sockets and threads
are simulated, so that a seed is the same run each time. A callback belongs to the process in whose context it was
asked for: of a process that is dead it never runs, of one that is stopped it runs when that goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import fcntl
import gc
import os
import random
import secrets
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from pysyncobj import syncobj as stock

from kybern.clock import VirtualTimeLoop
from kybern.config.models import StoreConfig
from kybern.pki import Identity
from store.raft import connection, core, datadir, failpoints, pacing, segments, snapshotting, transfer, transport
from store.raft.disk import DiskWriter
from store.raft.journal import Batch

_PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
# Tasks of processes that died: to free them would run what stands in their `finally`.
_DEAD: set[asyncio.Task[Any]] = set()
# Bytes that may wait on a connection, and what is left of them when there is room again.
_HIGH, _LOW = connection.MAX_BUFFERED_BYTES, connection.MAX_BUFFERED_BYTES // 4


class Died(BaseException):
    """The process has ended in the midst of what it did."""


@dataclass(eq=False)
class _Call:
    callback: Callable[..., object]
    arguments: tuple[Any, ...]
    context: contextvars.Context
    handle: asyncio.Handle | None = None

    def run(self) -> None:
        if self.handle is None or not self.handle.cancelled():
            self.context.run(self.callback, *self.arguments)


@dataclass(eq=False)
class Process:
    """One life of a member."""

    world: Hosts
    config: StoreConfig
    dead: bool = False
    stopped: bool = False
    # It is to stay stopped for long.
    held: bool = False
    # Its disk takes nothing; or nothing comes back from it.
    disk_full: bool = False
    disk_hangs: bool = False
    slow: float = 0.002
    # The fail point at which it dies, and how often it passes there before.
    dies_at: str = ""
    passes: int = 0
    backlog: list[_Call] = field(default_factory=list)
    ends: dict[End, None] = field(default_factory=dict)
    # What is being written: of this, anything may be there after its death.
    writing: tuple[DiskWriter, Batch] | None = None
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    def __post_init__(self) -> None:
        self.context.run(_PROCESS.set, self)

    @property
    def name(self) -> str:
        return self.config.name

    def spawn(self, work: Any, name: str) -> asyncio.Task[Any]:
        """Run a coroutine in this process."""
        return self.world.loop.create_task(work, name=name, context=self.context.copy())

    def need_room(self) -> None:
        """Fails when its disk is full."""
        if self.disk_full:
            raise OSError(errno.ENOSPC, "no space left")

    def stop(self) -> None:
        """SIGSTOP."""
        self.stopped = True

    def resume(self) -> None:
        """SIGCONT."""
        self.stopped = False
        backlog, self.backlog = self.backlog, []
        for call in backlog:
            self.world.loop.call_soon(self.world.loop._guarded, call, context=contextvars.Context())

    def kill(self) -> None:
        """SIGKILL."""
        self.dead = True
        for address, listening in list(self.world.listening.items()):
            if listening.process is self:
                del self.world.listening[address]
        for end in list(self.ends):
            end.abort()
        if self.writing is not None:
            self._tear(*self.writing)

    def _tear(self, writer: DiskWriter, batch: Batch) -> None:
        rng, journal = self.world.rng, writer._journal
        if batch.header is not None or rng.random() < 0.3:
            return
        data = segments.encode_batch(batch.sequence, [segments.encode_record(*entry) for entry in batch.entries])
        part = data if rng.random() < 0.4 else data[: rng.randrange(len(data))]
        os.pwrite(journal._files[batch.segment], part, batch.offset)


@dataclass(eq=False)
class _Listening:
    process: Process
    factory: Callable[[], connection.Connection]


class _Server:
    def __init__(self, world: Hosts, address: tuple[str, int]) -> None:
        self._world, self._address = world, address

    def close(self) -> None:
        self._world.listening.pop(self._address, None)

    async def wait_closed(self) -> None:
        return


class End(asyncio.Transport):
    """One side of a connection. What is written arrives in order, unless the connection breaks before."""

    def __init__(self, process: Process, protocol: connection.Connection) -> None:
        super().__init__()
        self.process, self.protocol = process, protocol
        self.other: End = self
        self._queue: deque[bytes | None] = deque()
        self._size = 0
        self._closing = self._lost = self._moving = False
        process.ends[self] = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return SimpleNamespace(getpeercert=lambda **_: self.other.process.name.encode())
        return ("10.0.0.1", 1) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return

    def get_write_buffer_size(self) -> int:
        return self._size

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: Any) -> None:
        if not self._closing:
            self._queue.append(bytes(data))
            self._size += len(data)
            self._move()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._queue.append(None)
            self._move()

    def abort(self) -> None:
        if not self._lost:
            self._closing = True
            if not self.process.dead:
                # What the kernel of a dead process has is sent yet.
                self._queue.clear()
            self._queue.append(None)
            self._move()
            self._lose()

    def _move(self) -> None:
        if not self._moving:
            self._moving = True
            world = self.process.world
            extra = world.slow.get((self.process.name, self.other.process.name), 0.0)
            world.later(world.latency() + extra, self._deliver)

    def _deliver(self) -> None:
        world = self.process.world
        if (self.process.name, self.other.process.name) in world.blocked:
            # Sent again and again, as TCP does.
            world.later(0.05, self._deliver)
            return
        self._moving = False
        items, full = list(self._queue), self._size > _HIGH
        self._queue.clear()
        self._size = 0
        receiver = self.other.process
        world.loop.call_soon(self.other._take, items, context=receiver.context.copy())
        if None in items:
            self._lose()
        elif full:
            world.loop.call_soon(self.protocol.resume_writing, context=self.process.context.copy())

    def _take(self, items: list[bytes | None]) -> None:
        data = b"".join(item for item in items if item is not None)
        if self._lost:
            return
        world = self.process.world
        world.heard(world.loop.time(), self.other.process.name, self.process.name, data)
        if data and not self._closing:
            self.protocol.data_received(data)
        if None in items:
            self._closing = True
            self._lose()

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self.process.ends.pop(self, None)
            self.process.world.loop.call_soon(self.protocol.connection_lost, None, context=self.process.context.copy())


class Loop(VirtualTimeLoop):
    """Callbacks of a process run while it does. Threads are timers."""

    world: Hosts

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **options)
        _DEAD.add(task)
        task.add_done_callback(_ended, context=contextvars.Context())
        return task

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        context = context or contextvars.copy_context()
        if context.get(_PROCESS) is None:
            return super().call_soon(callback, *args, context=context)
        call = _Call(callback, args, context)
        call.handle = super().call_soon(self._guarded, call, context=contextvars.Context())
        return call.handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        context = context or contextvars.copy_context()
        if context.get(_PROCESS) is None:
            return super().call_at(when, callback, *args, context=context)
        call = _Call(callback, args, context)
        handle = super().call_at(when, self._guarded, call, context=contextvars.Context())
        call.handle = handle
        return handle

    def _guarded(self, call: _Call) -> None:
        process = call.context.get(_PROCESS)
        assert process is not None
        if process.dead:
            return
        if process.stopped:
            process.backlog.append(call)
        else:
            with contextlib.suppress(Died):
                call.run()

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()
        process = _PROCESS.get()
        assert process is not None
        thread = executor if isinstance(executor, Thread) else Thread()
        thread.add(process, future, func, args)
        return future

    async def create_server(self, factory: Any, host: Any, port: Any, **_: Any) -> Any:  # type: ignore[override]
        process = _PROCESS.get()
        assert process is not None
        if (host, port) in self.world.listening:
            raise OSError(errno.EADDRINUSE, "address in use")
        self.world.listening[host, port] = _Listening(process, factory)
        return _Server(self.world, (host, port))

    async def create_connection(self, factory: Any, host: Any, port: Any, **_: Any) -> Any:  # type: ignore[override]
        process, world = _PROCESS.get(), self.world
        assert process is not None
        await asyncio.sleep(world.latency())
        while True:
            listening = world.listening.get((host, port))
            other = world.addresses.get((host, port), "")
            if {(process.name, other), (other, process.name)} & world.blocked or (
                listening is not None and listening.process.stopped
            ):
                await asyncio.sleep(0.1)
            elif listening is None:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens")
            else:
                break
        context = listening.process.context.copy()
        ours, theirs = End(process, factory()), End(listening.process, context.run(listening.factory))
        ours.other, theirs.other = theirs, ours
        self.call_soon(theirs.protocol.connection_made, theirs, context=context)
        ours.protocol.connection_made(ours)
        return ours, ours.protocol


def _ended(task: asyncio.Task[Any]) -> None:
    _DEAD.discard(task)
    if not task.cancelled() and isinstance(task._exception, Died):
        # Nobody is left to be told.
        task.exception()


class Thread:
    """An executor of one thread: what it is given is done in order, each a moment later."""

    def __init__(self, *_: object, **__: object) -> None:
        self._jobs: deque[tuple[Process, asyncio.Future[Any] | None, Any, tuple[Any, ...]]] = deque()
        self._busy = False

    def submit(self, func: Any, *args: Any) -> None:
        process = _PROCESS.get()
        assert process is not None
        self.add(process, None, func, args)

    def shutdown(self, wait: bool = True) -> None:
        return

    def add(self, process: Process, future: asyncio.Future[Any] | None, func: Any, args: tuple[Any, ...]) -> None:
        self._jobs.append((process, future, func, args))
        if not self._busy:
            self._busy = True
            self._next(process)

    def _next(self, process: Process) -> None:
        process.world.later(process.world.rng.random() * process.slow, self._work)

    def _work(self) -> None:
        process, future, func, args = self._jobs[0]
        if process.dead:
            self._jobs.clear()
            return
        if process.disk_hangs or process.stopped:
            process.world.later(0.05, self._work)
            return
        self._jobs.popleft()
        outcome: Any = None
        error: BaseException | None = None
        context = process.context.copy()
        try:
            if getattr(func, "__name__", "") in ("write", "_write", "finish", "SnapshotWriter"):
                process.need_room()
            outcome = context.run(func, *args)
        except Died:
            return
        except Exception as raised:
            error = raised
        if future is not None:
            process.world.loop.call_soon(_settle, future, outcome, error, context=context)
        self._busy = bool(self._jobs)
        if self._busy:
            self._next(process)


def _settle(future: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
    if not future.done():
        if error is None:
            future.set_result(outcome)
        else:
            future.set_exception(error)


class Hosts:
    """The network, and the time on it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.loop = Loop()
        self.loop.world = self
        self.listening: dict[tuple[str, int], _Listening] = {}
        # Who may be reached where, whether or not it runs.
        self.addresses: dict[tuple[str, int], str] = {}
        # From whom to whom nothing comes through.
        self.blocked: set[tuple[str, str]] = set()
        self.delay = 0.001
        # Is told of all that arrives: when, from whom, to whom and what.
        self.heard: Callable[[float, str, str, bytes], None] = lambda *_: None
        # Seconds that what is sent from one to another takes longer.
        self.slow: dict[tuple[str, str], float] = {}
        # Ends a process that has come to the fail point where it is to die.
        self.end: Callable[[Process], None] = Process.kill

    def latency(self) -> float:
        return self.delay * (0.2 + self.rng.random())

    def hit(self, name: str) -> None:
        """A fail point."""
        process = _PROCESS.get()
        if process is None or process.dies_at != name:
            return
        process.passes -= 1
        if process.passes < 0:
            process.dies_at = ""
            self.end(process)
            raise Died

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it to its end.

        Meanwhile nothing is collected: when that happens depends on all that the process did before, and what a
        generator's end asks for is done in the moment in which it is collected.
        """
        gc.collect()
        gc.disable()
        try:
            self.loop.run_until_complete(work)
        finally:
            gc.enable()

    def later(self, delay: float, callback: Callable[[], object]) -> None:
        """A timer that belongs to no process."""
        self.loop.call_later(delay, callback, context=contextvars.Context())

    def prepare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put everything in the place of the real host's."""
        loop, rng = self.loop, self.rng

        def monotonic() -> float:
            # It goes on within a turn, too.
            loop._jumping.now += 1e-6
            return loop._jumping.now

        virtual = SimpleNamespace(monotonic=loop.time, perf_counter=loop.time)
        monkeypatch.setattr(stock, "monotonicTime", monotonic)
        for module in (snapshotting, pacing):
            monkeypatch.setattr(module, "time", virtual)
        monkeypatch.setattr(snapshotting, "ThreadPoolExecutor", Thread)
        monkeypatch.setattr(DiskWriter, "_write", _write)
        monkeypatch.setattr(transport, "check_files", lambda cert, *_: Identity(cert.name, ("kybern:store",)))
        monkeypatch.setattr(transport, "server_context", lambda *_, **__: None)
        monkeypatch.setattr(transport, "client_context", lambda *_: None)
        monkeypatch.setattr(connection, "identity_of_der", lambda der: Identity(der.decode(), ("kybern:store",)))
        monkeypatch.setattr(fcntl, "flock", lambda *_: None)
        monkeypatch.setattr(datadir, "replace_durably", _replace(datadir.replace_durably))
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, lambda _: None)
        monkeypatch.setattr(os, "RWF_DSYNC", 0)
        monkeypatch.setattr(secrets, "randbits", rng.getrandbits)
        monkeypatch.setattr(failpoints, "hit", self.hit)
        monkeypatch.setattr(failpoints, "armed", lambda: bool((process := _PROCESS.get()) and process.dies_at))
        # Small, so that members are often in the middle of something.
        monkeypatch.setattr(core, "_APPEND_BYTES", 200)
        monkeypatch.setattr(core, "_TURN_BYTES", 600)
        monkeypatch.setattr(pacing, "_PORTION_BYTES", 1000)
        monkeypatch.setattr(transfer, "PART_BYTES", 700)
        monkeypatch.setattr(transfer, "WINDOW_BYTES", 2800)


def _replace(real: Callable[..., None]) -> Callable[..., None]:
    def replace(*arguments: Any) -> None:
        process = _PROCESS.get()
        if process is not None:
            process.need_room()
        real(*arguments)

    return replace


def _write(self: DiskWriter, batch: Batch) -> None:
    """As `DiskWriter._write`, with a timer for its thread."""
    process = _PROCESS.get()
    assert process is not None
    self._in_thread, self._waited = True, 0.0
    process.writing = (self, batch)
    began = process.world.loop.time()

    def work() -> None:
        if process.dead:
            return
        if process.disk_hangs or process.stopped:
            process.world.later(0.05, work)
            return
        error: Exception | None = None
        try:
            process.need_room()
            self._journal.write(batch)
        except Died:
            return
        except Exception as raised:
            error = raised
        process.writing = None
        seconds = process.world.loop.time() - began
        process.world.loop.call_soon(self._written, batch, seconds, error, context=process.context.copy())

    process.world.later(process.world.rng.random() * process.slow, lambda: process.context.copy().run(work))
