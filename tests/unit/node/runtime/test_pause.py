"""The pause program: its machine code is run where it can be."""

from __future__ import annotations

import io
import os
import platform
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from node.runtime import pause
from node.runtime.interface import RuntimeFailure


@pytest.mark.parametrize(("machine", "number"), [("x86_64", 62), ("aarch64", 183)])
def test_the_file_is_an_elf_for_its_machine_and_fits_its_segment(machine: str, number: int) -> None:
    data = pause.program(machine)
    assert data[:4] == b"\x7fELF"
    assert int.from_bytes(data[18:20], "little") == number
    entry = int.from_bytes(data[24:32], "little")
    start, size = int.from_bytes(data[80:88], "little"), int.from_bytes(data[96:104], "little")
    assert start < entry < start + size
    assert size == len(data)
    # The entry's first bytes are code, and the signal set lies in the file.
    signals = (1 << 1 | 1 << 14).to_bytes(8, "little")
    assert signals in data[entry - start :]


def test_a_machine_that_it_is_not_written_for() -> None:
    with pytest.raises(RuntimeFailure, match="sparc"):
        pause.program("sparc")


def test_the_image_holds_the_program() -> None:
    with tarfile.open(fileobj=io.BytesIO(pause.image_tar("x86_64"))) as tar:
        (entry,) = tar.getmembers()
        assert (entry.name, entry.mode) == ("pause", 0o755)
        content = tar.extractfile(entry)
        assert content is not None
        assert content.read() == pause.program("x86_64")


def test_it_waits_through_an_interruption_and_ends_well_on_sigterm(tmp_path: Path) -> None:
    assert platform.machine() in ("x86_64", "aarch64")
    file = tmp_path / "pause"
    file.write_bytes(pause.program())
    file.chmod(0o755)
    with subprocess.Popen([file]) as process:
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        os.kill(process.pid, signal.SIGCONT)
        os.waitid(os.P_PID, process.pid, os.WCONTINUED)
        assert process.poll() is None
        # Its only wait is the one for a signal; one that comes before it is blocked would end the process itself.
        while state(process.pid) != "S":
            os.sched_yield()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
