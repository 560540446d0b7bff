"""Facts about this host, read from /proc, /sys and /etc."""

from __future__ import annotations

import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the host has."""

    cpu_milli: int
    memory_bytes: int
    storage_bytes: int


@dataclass(frozen=True, slots=True)
class Pressure:
    """What is left of what the host has."""

    memory_available: int
    disk_available: int
    disk_total: int
    processes: int
    most_processes: int


def capacity(data_dir: Path) -> Capacity:
    """Processors, memory and disk of this host, or of the cgroup that it is."""
    total = meminfo()["MemTotal"]
    for path in _MEMORY_LIMITS:
        limit = _read(path)
        if limit.isdecimal():
            total = min(total, int(limit))
    return Capacity(len(os.sched_getaffinity(0)) * 1000, total, shutil.disk_usage(_existing(data_dir)).total)


def pressure(data_dir: Path) -> Pressure:
    """How much is left."""
    disk = shutil.disk_usage(_existing(data_dir))
    threads = _read(Path("/proc/loadavg")).split()[3].partition("/")[2]
    most = _read(Path("/proc/sys/kernel/pid_max"))
    return Pressure(meminfo()["MemAvailable"], disk.free, disk.total, int(threads), int(most or 0))


def meminfo() -> dict[str, int]:
    """/proc/meminfo, in bytes."""
    values = {}
    for line in _read(Path("/proc/meminfo")).splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()[0]
        values[name] = int(number) * (1024 if rest.endswith("kB") else 1)
    return values


def node_info(runtime: str, version: str) -> dict[str, str]:
    """Node.status.nodeInfo with all its required fields."""
    return {
        "machineID": _read(Path("/etc/machine-id")),
        "systemUUID": _read(Path("/sys/class/dmi/id/product_uuid")) or _read(Path("/etc/machine-id")),
        "bootID": _read(Path("/proc/sys/kernel/random/boot_id")),
        "kernelVersion": platform.release(),
        "osImage": os_image(_read(Path("/etc/os-release"))),
        "containerRuntimeVersion": runtime,
        "kubeletVersion": version,
        "kubeProxyVersion": version,
        "operatingSystem": "linux",
        "architecture": architecture(),
    }


def os_image(release: str) -> str:
    """The name in an os-release file."""
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', release, re.MULTILINE)
    return match[1] if match else "Linux"


def architecture() -> str:
    """The processor's kind in Go's words, as Kubernetes has them."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
