"""Members as processes: started, spoken to, killed, stopped and woken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from kybern.config.models import StoreConfig

ANSWER_SECONDS = 30.0


class Processes:
    """All members of a group. Leaves no process behind."""

    def __init__(self, directory: Path, configs: list[StoreConfig]) -> None:
        self.directory = directory
        self.names = [config.name for config in configs]
        self.running: dict[str, asyncio.subprocess.Process] = {}
        for config in configs:
            (directory / f"{config.name}.json").write_bytes(msgspec.json.encode(config, enc_hook=str))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self.running):
            await self.kill(name)

    async def start(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.integration.store.raft.member",
                str(self.directory / f"{name}.json"),
                str(self.acked_path(name)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )
        self.running[name] = process
        assert await self._answer(name) == {"ready": True}

    async def kill(self, name: str) -> None:
        process = self.running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if process.stdin is not None:
            process.stdin.close()
        await process.communicate()

    def pause(self, name: str) -> None:
        self.running[name].send_signal(signal.SIGSTOP)

    def wake(self, name: str) -> None:
        self.running[name].send_signal(signal.SIGCONT)

    async def ask(self, name: str, line: str) -> dict[str, Any]:
        process = self.running[name]
        assert process.stdin is not None
        process.stdin.write(line.encode() + b"\n")
        return await self._answer(name)

    async def tell(self, name: str, line: str) -> None:
        """As `ask`, to a member that may end before it answers."""
        stdin = self.running[name].stdin
        assert stdin is not None
        stdin.write(line.encode() + b"\n")

    async def ended(self, count: int) -> dict[str, int]:
        """Wait until so many members have ended by themselves; their exit statuses."""
        found: dict[str, int] = {}
        for _ in range(1500):
            for name, process in list(self.running.items()):
                if process.returncode is not None:
                    found[name] = process.returncode
                    await self.kill(name)
            if len(found) >= count:
                return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"only {found} ended")

    async def progress(self, commands: int) -> None:
        """Wait until so many more commands have been acknowledged."""
        goal = len(self.acked()) + commands
        for _ in range(600):
            if len(self.acked()) >= goal:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"only {len(self.acked())} of {goal} commands were acknowledged")

    async def leader(self) -> str:
        """The name of the leader, once a member that runs has one that runs."""
        for _ in range(400):
            for name in self.running:
                leader = (await self.ask(name, "status"))["leader"]
                if leader in self.running and (await self.ask(leader, "status"))["leader"] == leader:
                    return str(leader)
            await asyncio.sleep(0.05)
        raise AssertionError("no leader")

    def acked_path(self, name: str) -> Path:
        return self.directory / f"{name}.acked"

    def acked(self) -> set[bytes]:
        """Everything that any member acknowledged. A last line that a kill cut short was not acknowledged."""
        found: set[bytes] = set()
        for name in self.names:
            if self.acked_path(name).exists():
                found.update(self.acked_path(name).read_bytes().split(b"\n")[:-1])
        return found

    async def sequences(self) -> dict[str, list[bytes]]:
        """What each member has applied, all of them up to date."""
        found = {}
        for name in self.names:
            assert "error" not in await self.ask(name, "barrier"), name
            await self.ask(name, f"dump {self.directory / name}.dump")
            found[name] = (self.directory / f"{name}.dump").read_bytes().split(b"\n")
        return found

    async def _answer(self, name: str) -> dict[str, Any]:
        process = self.running[name]
        assert process.stdout is not None
        async with asyncio.timeout(ANSWER_SECONDS):
            line = await process.stdout.readline()
        assert line, f"{name} ended: " + (self.directory / f"{name}.log").read_text()[-2000:]
        answer: dict[str, Any] = json.loads(line)
        return answer
