"""What every daemon does before its own work."""

from __future__ import annotations

import subprocess
import sys

_DAEMON = """
import resource
from kybern import daemon

async def main(process):
    print(resource.getrlimit(resource.RLIMIT_NOFILE))

resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300))
raise SystemExit(daemon.run("test", main, log_level="info", log_format="text"))
"""


def test_a_daemon_has_as_many_files_as_it_may_have() -> None:
    done = subprocess.run([sys.executable, "-c", _DAEMON], capture_output=True, text=True, check=True)
    assert done.stdout == "(300, 300)\n"
