"""The `kybern-lab` command, run as people run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import names, state, teardown

ROOT = Path(__file__).parents[2]


@dataclass
class LabCommand:
    """Runs `kybern-lab` on the lab called `name`."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *words: str, timeout: float = 240) -> str:
        """Standard output; the command must succeed."""
        done = self.run(*words, timeout=timeout)
        assert done.returncode == 0, f"kybern-lab {' '.join(words)}: {done.stderr}"
        return done.stdout

    def run(self, *words: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; options come before the words of `exec`'s own command."""
        program = "import sys; from lab.main import main; sys.exit(main())"
        command = [sys.executable, "-c", program, words[0], "--name", self.name, *words[1:]]
        environment = {**os.environ, **self.environment, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=timeout
        )

    def status(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Daemons by host and name."""
        found = json.loads(self.run("status", "--output", "json").stdout)
        return {(one["host"], one["daemon"]): one for one in found}

    def folder(self) -> Path:
        """The lab's files."""
        home = self.environment.get("KYBERN_HOME")
        return Path(home) / "labs" / self.name if home else state.folder_of(self.name)

    def leftovers(self) -> list[str]:
        """What is there of the lab, in words."""
        return teardown.leftovers(names.Names(self.name), self.folder())
