"""Labs for tests: named, so that they never touch the one that a user has up."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.labs import LabCommand

# Says that it is ready and waits. In place of Kybern's daemons where only the hosts are tested.
STAND_IN = """\
#!/bin/sh
echo "$0 $*"
echo ready > "$KYBERN_READY_FILE"
exec sleep 100000
"""


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with programs in place of the daemons."""
    folder = tmp_path_factory.mktemp("stand-ins")
    for daemon in ("store", "master", "node"):
        path = folder / f"kybern-{daemon}"
        path.write_text(STAND_IN)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return folder


@pytest.fixture(scope="module")
def hosts(stand_ins: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCommand]:
    """A lab of one master and two nodes, with stand-ins for Kybern's daemons and real Docker engines."""
    home = tmp_path_factory.mktemp("home")
    lab = LabCommand(f"t{os.getpid()}", {"KYBERN_LAB_BIN": str(stand_ins), "KYBERN_HOME": str(home)})
    try:
        lab("up", "--masters", "1", "--nodes", "2")
        yield lab
    finally:
        lab("down")
