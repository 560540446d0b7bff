"""Three `kybern-store` processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.store.members import command, configure_all, environment
from tests.integration.store.serving import Certificates, Endpoint, etcdctl


async def start(file: Path, ready: Path, log: Path) -> asyncio.subprocess.Process:
    with log.open("ab") as out:
        return await asyncio.create_subprocess_exec(*command(file), env=environment(ready), stdout=out, stderr=out)


@dataclass
class Daemons:
    """Three members as processes."""

    folder: Path
    certificates: Certificates
    clients: dict[str, str]
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def start(self, name: str) -> None:
        """Start a member and wait until it is ready."""
        self.processes[name] = await start(
            self.folder / f"{name}.yaml", self.folder / f"{name}.ready", self.folder / f"{name}.log"
        )

    async def until_ready(self, name: str) -> None:
        async with asyncio.timeout(60):
            while not (self.folder / f"{name}.ready").exists():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.05)

    async def statuses(self) -> dict[str, dict[str, int]]:
        """What each member that runs says of itself."""
        statuses = {}
        for name, process in self.processes.items():
            if process.returncode is not None:
                continue
            result = await etcdctl(
                Endpoint(self.clients[name], self.certificates.master()), "endpoint", "status", "-w", "json"
            )
            if result.code == 0:
                statuses[name] = json.loads(result.out)[0]["Status"]
        return statuses

    async def leader(self) -> str:
        """The name of the leading member."""
        async with asyncio.timeout(60):
            while True:
                for name, status in (await self.statuses()).items():
                    if status.get("leader") == status["header"]["member_id"]:  # type: ignore[index]
                        return name


@contextlib.asynccontextmanager
async def three_daemons(certificates: Certificates, folder: Path) -> AsyncIterator[Daemons]:
    """Three members that run; each has its data in `folder / NAME`, and must end well."""
    configs = configure_all(folder, certificates)
    group = Daemons(folder, certificates, {name: config.client_address for name, config in configs.items()})
    try:
        for name in configs:
            await group.start(name)
        for name in configs:
            await group.until_ready(name)
        yield group
    finally:
        for process in group.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        codes = [await process.wait() for process in group.processes.values()]
    assert codes == [0, 0, 0]
    for name in configs:
        assert "Traceback" not in (folder / f"{name}.log").read_text()
