"""`kybern-lab down`: removes everything of a lab, whatever state it is in.

What there is to remove is read from the kernel and from the lab's folders, not from what `up` remembers: `up` may have
been killed half-way. Doing it again is harmless.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lab import network, processes, state
from lab.engine import Engine
from lab.errors import LabError
from lab.names import Names
from lab.processes import Process

CGROUPS = Path("/sys/fs/cgroup")
SHIM_SOCKETS = "/run/containerd/s/"


@dataclass
class Removed:
    """What `down` found and removed, for people to read."""

    containers: int = 0
    processes: int = 0
    mounts: int = 0
    cgroups: int = 0
    network: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        """Whether there was nothing."""
        return not (self.containers or self.processes or self.mounts or self.cgroups or self.network)


def remove(names: Names, folder: Path, say: Callable[[str], None]) -> Removed:
    """Remove the lab. `say` is told what is being done.

    Raises:
        LabError: when something cannot be removed; doing it again goes on from there.
    """
    removed = Removed()
    run = state.run_folder(names)
    members = processes.of_lab(names)
    if members:
        say("stopping Kybern's daemons")
        _end([p for p in members if _is_ours(p)], 3.0)
        say("removing containers")
        removed.containers = _remove_containers(run)
        say("stopping Docker engines")
    sockets = _shim_sockets(names, members)
    removed.processes = len(members)
    # Engines before their containerds, which they would miss; then whatever is left.
    for name in ("dockerd", "containerd"):
        _end([p for p in members if _program(p) == name], 5.0)
    _kill_all(names)
    for path in sockets:
        path.unlink(missing_ok=True)
    removed.mounts = _unmount([folder, run])
    removed.cgroups = _remove_cgroups(names)
    say("removing namespaces")
    removed.network = list(network.remove(names))
    for path in (run, folder):
        _delete(path)
    return removed


def leftovers(names: Names, folder: Path) -> list[str]:
    """What is there of a lab, in words; empty when it is all gone."""
    run = state.run_folder(names)
    found = [f"process {p.pid}" for p in processes.of_lab(names)]
    found += [f"mount {m}" for m in _mounts([folder, run])]
    found += [f"cgroup {c}" for c in _cgroups(names)]
    found += [f"namespace {n}" for n in network.namespaces(names)] + [f"link {n}" for n in network.links(names)]
    return found + [f"folder {p}" for p in (folder, run) if p.exists()]


def _remove_containers(run: Path) -> int:
    """Through the engines, which also take their shims and mounts away. Those that do not answer are passed over."""

    def one(path: Path) -> int:
        count = 0
        with contextlib.suppress(LabError):
            engine = Engine(path, timeout=20)
            for container in engine.containers():
                engine.remove(container)
                count += 1
        return count

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(one, run.glob("*/docker.sock")))


def _end(members: list[Process], patience: float) -> None:
    for process in members:
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGCONT)  # a stopped process would not see it
    for process in processes.wait_ended(members, patience):
        process.signal(signal.SIGKILL)
    processes.wait_ended(members, patience)


def _kill_all(names: Names) -> None:
    """Until there are none: what dies may have started others meanwhile."""
    for _ in range(20):
        members = processes.of_lab(names)
        if not members:
            return
        for process in members:
            process.signal(signal.SIGKILL)
        processes.wait_ended(members, 1.0)
    raise LabError(f"process {members[0].pid} of the lab cannot be ended", "run `kybern-lab down` again")


def _is_ours(process: Process) -> bool:
    # Scripts go by their own names or by their interpreter's: what is neither engine nor container is ours.
    return _program(process) not in ("dockerd", "containerd", "containerd-shim") and _marked(process)


def _marked(process: Process) -> bool:
    try:
        return processes.MARK.encode() in Path(f"/proc/{process.pid}/environ").read_bytes()
    except OSError:
        return False


def _program(process: Process) -> str:
    """The kernel keeps 15 characters of a process's name: `containerd-shim-runc-v2` is `containerd-shim`."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process.pid}/comm").read_text().strip()
    return ""


def _shim_sockets(names: Names, members: Iterable[Process]) -> set[Path]:
    """Sockets that shims keep outside of our folders; they stay when a shim is killed.

    The kernel lists sockets by network namespace, so all that is listed for a process on a host is the lab's.
    """
    spaces = {(network.NETNS / n).stat().st_ino for n in network.namespaces(names)}
    found: set[Path] = set()
    for process in members:
        proc = Path(f"/proc/{process.pid}")
        with contextlib.suppress(OSError):
            if (proc / "ns" / "net").stat().st_ino in spaces:
                paths = (line.split()[-1] for line in (proc / "net" / "unix").read_text().splitlines()[1:])
                found |= {Path(p) for p in paths if p.startswith(SHIM_SOCKETS)}
    return found


def _mounts(folders: Iterable[Path]) -> list[str]:
    """Mounts below the folders, the innermost first."""
    roots = [str(f.resolve()) + "/" for f in folders]
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        path = line.split()[4].encode().decode("unicode_escape")
        if any(path.startswith(root) for root in roots):
            found.append(path)
    return found[::-1]


def _unmount(folders: list[Path]) -> int:
    found = _mounts(folders)
    for path in found:
        # Lazily: a file that someone outside of the lab has open must not keep the lab up.
        subprocess.run(["umount", "--lazy", path], check=False, capture_output=True)
    if left := _mounts(folders):
        raise LabError(f"{left[0]} cannot be unmounted")
    return len(found)


def _cgroups(names: Names) -> list[Path]:
    """The lab's cgroups at the top of every hierarchy (version 1 has many, version 2 one)."""
    tops = [CGROUPS, *(p for p in CGROUPS.iterdir() if p.is_dir() and not p.is_symlink())] if CGROUPS.is_dir() else []
    return [p for top in tops for p in top.iterdir() if p.is_dir() and names.owns(p.name)]


def _remove_cgroups(names: Names) -> int:
    def gone() -> bool:
        for top in _cgroups(names):
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        return not _cgroups(names)

    count = len(_cgroups(names))
    # The kernel takes a moment to see that a cgroup's last process has ended.
    if not processes.wait_for(gone, 10.0):
        raise LabError(f"the cgroup {_cgroups(names)[0]} cannot be removed", "run `kybern-lab down` again")
    return count


def _delete(folder: Path) -> None:
    if folder.exists():
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise LabError(f"cannot remove {error.filename}: {error.strerror}") from error
