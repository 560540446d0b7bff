"""What a process's control group uses, from the kernel's files: some microseconds, where the engine takes a second.

Both versions of control groups, also side by side. The group is found through /proc/PID/cgroup, so that no naming
scheme of a runtime need be known.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def groups(text: str) -> dict[str, str]:
    """Path of each controller's group, out of a /proc/PID/cgroup; version 2 has the name of none."""
    found = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            found[controller] = path
    return found


def numbers(text: str) -> dict[str, int]:
    """The fields of a file of the form `name number`."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def usage(pid: int, container_id: str, *, root: Path = CGROUPS, proc: Path = PROC) -> tuple[int, int] | None:
    """CPU time in nanoseconds and working set in bytes of the container whose main process has that PID.

    None when the files tell nothing, or the number is another process's by now.
    """
    try:
        where = groups((proc / str(pid) / "cgroup").read_text())
        if not any(container_id in path for path in where.values()):
            return None
        return _version1(where, root) if "memory" in where and "cpuacct" in where else _version2(where, root)
    except (OSError, KeyError, ValueError):
        return None


def _version1(where: dict[str, str], root: Path) -> tuple[int, int] | None:
    for cpu in _folders(root, "cpuacct", where["cpuacct"]):
        for memory in _folders(root, "memory", where["memory"]):
            used = int((memory / "memory.usage_in_bytes").read_text())
            inactive = numbers((memory / "memory.stat").read_text()).get("total_inactive_file", 0)
            return int((cpu / "cpuacct.usage").read_text()), max(0, used - inactive)
    return None


def _version2(where: dict[str, str], root: Path) -> tuple[int, int] | None:
    for base in (root, root / "unified"):
        folder = base / where[""].lstrip("/")
        if (folder / "memory.current").exists():
            used = int((folder / "memory.current").read_text())
            inactive = numbers((folder / "memory.stat").read_text()).get("inactive_file", 0)
            return numbers((folder / "cpu.stat").read_text())["usage_usec"] * 1000, max(0, used - inactive)
    return None


def _folders(root: Path, controller: str, path: str) -> Iterator[Path]:
    """Where the group may be: controllers that are mounted together have a common folder."""
    for name in (controller, "cpu,cpuacct", "cpuacct,cpu"):
        folder = root / name / path.lstrip("/")
        if folder.is_dir():
            yield folder


def host_usage(*, ticks_per_second: int, proc: Path = PROC) -> tuple[int, int]:
    """CPU time in nanoseconds that all of this host's CPUs have spent working, and bytes of memory in use.

    Raises:
        OSError: when /proc cannot be read.
    """
    # user nice system idle iowait irq softirq steal; guest time is part of user's.
    fields = [int(field) for field in (proc / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    busy = sum(fields) - fields[3] - fields[4]
    memory = {}
    for line in (proc / "meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        memory[name] = int(rest.split()[0]) * 1024
    return busy * 1_000_000_000 // ticks_per_second, memory["MemTotal"] - memory["MemAvailable"]
