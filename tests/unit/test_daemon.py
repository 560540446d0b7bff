"""What every daemon does before its own work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_DAEMON = """
import resource
from kybern import daemon

async def main(process):
    print(resource.getrlimit(resource.RLIMIT_NOFILE))

resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300))
raise SystemExit(daemon.run("test", main, log_level="info", log_format="text"))
"""


_FIRST_OF_GRPC = """
import importlib, os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            print(os.environ.get("GRPC_VERBOSITY"))

sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
"""


@pytest.mark.parametrize("module", ["store.main", "master.main", "node.main"])
def test_grpc_is_quiet_when_a_daemon_loads_it(module: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    command = [sys.executable, "-c", _FIRST_OF_GRPC, module]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "ERROR\n"


def test_a_daemon_has_as_many_files_as_it_may_have() -> None:
    done = subprocess.run([sys.executable, "-c", _DAEMON], capture_output=True, text=True, check=True)
    assert done.stdout == "(300, 300)\n"
