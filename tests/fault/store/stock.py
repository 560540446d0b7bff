"""The same checks on the stock class: three processes are killed at the end of their dumps, and writes are lost.

The dump is written by a child, which renames it; only later does the parent cut its journal. Killed in between, a
member starts with a journal that does not begin where the dump ends, and throws all of it away.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fault.store.history import History
from tests.fault.store.log_check import lost_keys
from tests.integration.store.serving import HOST
from tests.ports import free_port

_PATIENCE = 60.0
_WRITERS = 6
# A healthy group takes a write within a second or two of its start.
_STUCK = 8.0


class StockGroup:
    """Three processes of `stock_member`, by number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._controls = [free_port() for _ in range(3)]
        self._peers = [free_port() for _ in range(3)]
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self) -> None:
        """Start all."""
        for number in range(3):
            with (self._folder / f"out{number}").open("ab") as out:
                self._processes.append(
                    await asyncio.create_subprocess_exec(
                        *(sys.executable, "-m", "tests.fault.store.stock_member", str(number), str(self._folder)),
                        *map(str, (self._controls[number], *self._peers)),
                        stdout=out,
                        stderr=out,
                    )
                )

    async def kill(self, number: int) -> None:
        """SIGKILL one."""
        with contextlib.suppress(ProcessLookupError):
            self._processes[number].kill()
        await self._processes[number].wait()

    async def stop(self) -> None:
        """SIGKILL all that run."""
        for number in range(len(self._processes)):
            await self.kill(number)
        self._processes.clear()

    async def ask(self, number: int, command: str) -> str:
        """What one answers to a command.

        Raises:
            OSError: when it does not answer.
        """
        reader, writer = await asyncio.open_connection(HOST, self._controls[number], limit=1 << 26)
        try:
            writer.write(command.encode() + b"\n")
            answer = await reader.readline()
        finally:
            writer.transport.abort()
        if not answer.endswith(b"\n"):
            raise ConnectionResetError(f"member {number} has gone")
        return answer.decode().strip()

    async def leader(self) -> int:
        """Who leads; waits for it."""
        async with asyncio.timeout(_PATIENCE):
            while True:
                for number in range(3):
                    with contextlib.suppress(OSError):
                        if await self.ask(number, "leader") == "yes":
                            return number
                await asyncio.sleep(0.05)

    async def held(self) -> dict[bytes, bytes]:
        """What any of them holds."""
        held: dict[bytes, bytes] = {}
        for number in range(3):
            for pair in (await self.ask(number, "dump")).split():
                key, _, value = pair.encode().partition(b"=")
                held[key] = value
        return held

    def dumped(self, number: int) -> int:
        """When a member's dump was last put in its place; 0 when there is none."""
        with contextlib.suppress(FileNotFoundError):
            return (self._folder / f"dump{number}").stat().st_mtime_ns
        return 0


async def lost_after_killing_in_compaction(group: StockGroup, *, compact: bool) -> tuple[int, int]:
    """Write, kill all members (with `compact`, each when it has just renamed its dump), start them again.

    Returns how many writes were acknowledged, and how many of them no member has any more.
    """
    history = History()
    stop = asyncio.Event()
    leader = await group.leader()
    writers = [asyncio.create_task(_write(group, leader, history, str(n), stop)) for n in range(_WRITERS)]
    await _acknowledged(history, 30)
    if compact:
        before = [group.dumped(number) for number in range(3)]
        for number in range(3):
            await group.ask(number, "compact")
        await asyncio.gather(*(_kill_when_dumped(group, number, before) for number in range(3)))
    else:
        await group.stop()
    stop.set()
    await asyncio.gather(*writers)
    await group.stop()
    await group.start()
    await _write_once(group)
    present = await group.held()
    acknowledged = [operation for operation in history.operations if operation.known]
    return len(acknowledged), len(lost_keys(history.operations, present))


async def _kill_when_dumped(group: StockGroup, number: int, before: Sequence[int]) -> None:
    async with asyncio.timeout(_PATIENCE):
        while group.dumped(number) == before[number]:  # noqa: ASYNC110 - another process renames it
            await asyncio.sleep(0.0005)
    await group.kill(number)


async def _write(group: StockGroup, leader: int, history: History, name: str, stop: asyncio.Event) -> None:
    count = 0
    while not stop.is_set():
        count += 1
        key = f"{name}-{count}".encode()
        operation = history.begin(name, "put", key, value=key)
        try:
            answer = await group.ask(leader, f"put {key.decode()} {key.decode()}")
        except OSError:
            return
        if answer == "ok":
            history.end(operation, 0)


async def _write_once(group: StockGroup) -> None:
    """A write, before which everything that was committed is applied. Without a leader whose log fits it never is."""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(_STUCK):
            while await group.ask(await group.leader(), "put probe probe") != "ok":
                pass


async def _acknowledged(history: History, count: int) -> None:
    async with asyncio.timeout(_PATIENCE):
        while sum(o.known for o in history.operations) < count:  # noqa: ASYNC110 - the writers fill it
            await asyncio.sleep(0.02)
