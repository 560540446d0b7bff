"""What a run leaves behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_PATIENCE = 60.0


def begin(temporary: Path) -> subprocess.Popen[bytes]:
    """A run that goes on for long."""
    command = [sys.executable, "-m", "tests.fault.store", "--rounds=1000", "--single", "--nemesis=kill-all"]
    return subprocess.Popen(
        command, env={**os.environ, "TMPDIR": str(temporary)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def folder_of(process: subprocess.Popen[bytes], temporary: Path) -> Path:
    """The folder that a run has made, once its members have begun."""
    end = time.monotonic() + _PATIENCE
    while True:
        for path in temporary.glob("kybern-fault-*/owner"):
            if path.read_text() == f"{process.pid}\n" and (path.parent / "s3.out").exists():
                return path.parent
        assert process.poll() is None, process.returncode
        assert time.monotonic() < end, list(temporary.iterdir())
        time.sleep(0.05)


def test_the_next_run_removes_what_one_left_that_was_killed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "kybern-fault-of-nobody").mkdir()
    killed, goes_on = begin(tmp_path), begin(tmp_path)
    try:
        left, kept = folder_of(killed, tmp_path), folder_of(goes_on, tmp_path)
        killed.kill()
        killed.wait()
        assert left.exists()
        later = begin(tmp_path)
        try:
            own = folder_of(later, tmp_path)
            assert not left.exists()
            assert (kept / "s3.yaml").exists()
        finally:
            later.send_signal(signal.SIGTERM)
            later.wait(_PATIENCE)
        assert not own.exists()
    finally:
        for process in (killed, goes_on):
            process.send_signal(signal.SIGTERM)
            process.wait(_PATIENCE)
    assert [path.name for path in tmp_path.iterdir()] == ["kybern-fault-of-nobody"]
