"""Processes that outlive the command that started them, and signals that can never reach another process.

A process is known by its id and its start time, which the kernel does not give out twice together. Each carries the
lab's name in its environment, so that `down` finds it even when the file that names it is gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lab import network
from lab.names import Names

MARK = "KYBERN_LAB_PROCESS"
# Meant for this process (by systemd, or for its own output), not for those that it starts.
_NOT_INHERITED = (
    "NOTIFY_SOCKET",
    "JOURNAL_STREAM",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "KYBERN_READY_FILE",
    "GRPC_VERBOSITY",
)


class Process(msgspec.Struct, frozen=True):
    """A process. `start` is in the kernel's ticks since it booted."""

    pid: int
    start: int

    @property
    def state(self) -> str:
        """The kernel's letter for its state: R, S, D, T (stopped); empty when it has ended."""
        stat = _stat(self.pid)
        return stat.state if stat is not None and stat.start == self.start and stat.state not in "ZX" else ""

    @property
    def memory(self) -> int:
        """Resident memory in bytes; 0 when it has ended."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            if self.state:
                pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
                return pages * os.sysconf("SC_PAGE_SIZE")
        return 0

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.start / os.sysconf("SC_CLK_TCK")

    def signal(self, number: int) -> bool:
        """Send a signal; False when the process has ended."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # The descriptor holds on to one process: what is true of it now is true of it when the signal arrives.
            if not self.state:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


@dataclass(frozen=True, slots=True)
class _Stat:
    state: str
    start: int


def start(
    names: Names, command: Sequence[str], log: Path, *, host: str = "", environment: Mapping[str, str] | None = None
) -> Process:
    """Start a program in a session of its own, on a host or (by default) on the machine.

    Standard output and error are appended to `log`.
    """
    inherited = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
    line = network.enter(names, host, *command) if host else list(command)
    log.parent.mkdir(parents=True, exist_ok=True)
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawnp(
        line[0],
        line,
        {**inherited, MARK: names.lab, **(environment or {})},
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGQUIT, signal.SIGHUP],
    )
    stat = _stat(pid)
    return Process(pid, stat.start if stat is not None else 0)


def wait_ended(processes: Iterable[Process], seconds: float) -> list[Process]:
    """Wait until all have ended; returns those that have not after `seconds`."""
    left = list(processes)
    wait_for(lambda: not any(p.state for p in left), seconds)
    return [p for p in left if p.state]


def wait_for(condition: Callable[[], bool], seconds: float, interval: float = 0.02) -> bool:
    """Wait until a condition holds; whether it does at the end."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


def of_lab(names: Names) -> list[Process]:
    """Every process of the lab: those that carry its mark, run in its namespaces, or in its containers.

    This process, and those that it was started by, are never among them.
    """
    spaces = set()
    for name in network.namespaces(names):
        with contextlib.suppress(OSError):
            spaces.add((network.NETNS / name).stat().st_ino)
    spared = _ancestors()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (pid := int(entry.name)) not in spared and _belongs(entry, names, spaces):
            stat = _stat(pid)
            if stat is not None and stat.state not in "ZX":
                found.append(Process(pid, stat.start))
    return found


def _belongs(entry: Path, names: Names, spaces: set[int]) -> bool:
    try:
        if (entry / "ns" / "net").stat().st_ino in spaces:
            return True
        if f"{MARK}={names.lab}".encode() in (entry / "environ").read_bytes().split(b"\0"):
            return True
        groups = (entry / "cgroup").read_text().splitlines()
    except OSError:
        return False  # it has ended meanwhile, or is a thread of the kernel
    return any(names.owns(part) for line in groups for part in line.rpartition(":")[2].split("/"))


def _ancestors() -> set[int]:
    found, pid = set(), os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        pid = int(text.rpartition(")")[2].split()[1])
    return found


def _stat(pid: int) -> _Stat | None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # a child of ours that has ended stays in the table until it is asked for
    try:
        # The name in the second field may hold anything, parentheses and spaces included.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return _Stat(fields[0], int(fields[19]))
