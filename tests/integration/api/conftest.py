"""kubectl, run against the small server."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.api.serving import SmallServer

ROOT = Path(__file__).parents[3]


def find_kubectl() -> str | None:
    """The kubectl to test with: KYBERN_KUBECTL, the one that `make up` installs, or that of the system."""
    installed = ROOT / ".kybern" / "bin" / "kubectl"
    named = os.environ.get("KYBERN_KUBECTL")
    return named or (str(installed) if installed.exists() else shutil.which("kubectl"))


@dataclass
class Result:
    """What a command said."""

    code: int
    out: str
    err: str


@dataclass
class Kubectl:
    """Runs kubectl against a server."""

    program: str
    server: SmallServer
    address: str
    home: Path

    async def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Standard output; the command must succeed."""
        result = await self.run(*arguments, stdin=stdin)
        assert result.code == 0, result.err
        return result.out

    async def run(self, *arguments: str, stdin: str = "") -> Result:
        """Run a command to its end."""
        process = await asyncio.create_subprocess_exec(
            self.program,
            f"--server={self.address}",
            f"--cache-dir={self.home / 'cache'}",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"HOME": str(self.home), "PATH": os.environ["PATH"], "KUBECONFIG": "/dev/null"},
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Result(process.returncode, out.decode(), err.decode())


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    """kubectl against a server of its own."""
    program = find_kubectl()
    if program is None:
        pytest.fail("no kubectl: set KYBERN_KUBECTL, or run `python -m lab.kubectl`, as `make test` does")
    server = SmallServer()
    async with server.serve() as address:
        yield Kubectl(program, server, address, tmp_path)
