"""A Docker engine of a test's own: its own data, its own containerd, no bridge, no packet filter rules.

    with engine() as made:
        made.load_busybox()
        ... made.endpoint ...

It can be killed, stopped and started again. Afterwards all is gone: containers, mounts, control groups, files.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.lab.network.hosts import eventually

CGROUPS = Path("/sys/fs/cgroup")
BUSYBOX = Path("/bin/busybox")
# A loaded machine takes its time; the figure bounds a failure, it is no expectation.
_START_SECONDS = 60.0


class Engine:
    """A dockerd in a folder, optionally in a network namespace (a path such as /run/netns/n1)."""

    def __init__(self, folder: Path, cgroup: str, namespace: str = "") -> None:
        self.folder = folder
        self.cgroup_parent = f"/{cgroup}"
        self.socket = folder / "docker.sock"
        self.endpoint = f"unix://{self.socket}"
        self._namespace = namespace
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it (again), and wait until it answers."""
        enter = ["nsenter", f"--net={self._namespace}"] if self._namespace else []
        (self.folder / "pid").unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *enter,
                    "dockerd",
                    f"--data-root={self.folder}/data",
                    f"--exec-root={self.folder}/exec",
                    f"--pidfile={self.folder}/pid",
                    f"--host={self.endpoint}",
                    f"--cgroup-parent={self.cgroup_parent}",
                    "--bridge=none",
                    "--iptables=false",
                    "--ip-masq=false",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually(self._answers, _START_SECONDS)

    def request(self, method: str, path: str, body: Any = None, *, seconds: float = 60.0) -> Any:
        """The decoded answer of the engine's API."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        connection = _UnixConnection(self.socket, seconds)
        try:
            connection.request(method, path, data, {"Content-Type": kind})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        assert answer.status < 400, f"{method} {path}: {text.decode()}"
        return json.loads(text.split(b"\n")[0]) if text.strip() else None

    def import_image(self, name: str, files: Sequence[tuple[tarfile.TarInfo, bytes]], *changes: str) -> None:
        """Make an image of files; `changes` are Dockerfile instructions."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for entry, data in files:
                tar.addfile(entry, io.BytesIO(data))
        repository, _, tag = name.partition(":")
        query = "".join(f"&changes={change.replace(' ', '%20')}" for change in changes)
        path = f"/images/create?fromSrc=-&repo={repository}&tag={tag or 'latest'}{query}"
        self.request("POST", path, buffer.getvalue())

    def load_busybox(self, name: str = "busybox:latest", *changes: str) -> None:
        """Make an image of Debian's static busybox, with all its names in /bin."""
        binary = BUSYBOX.read_bytes()
        files = [(_entry("bin/busybox", tarfile.REGTYPE, len(binary)), binary)]
        files += [(_entry(name, tarfile.DIRTYPE), b"") for name in ("dev", "etc", "proc", "root", "sys")]
        files.append((_entry("tmp", tarfile.DIRTYPE, mode=0o1777), b""))
        listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
        files += [(_entry(f"bin/{name}", tarfile.SYMTYPE, link="busybox"), b"") for name in listed if name != "busybox"]
        self.import_image(name, files, 'CMD ["sh"]', *changes)

    def signal(self, number: signal.Signals) -> None:
        """Send the engine a signal; its containerd and the containers get none."""
        os.kill(self._pid(), number)

    def kill(self) -> None:
        """End the engine without a warning, and wait for its end and that of its containerd.

        The kernel ends the containerd with it. An engine that is started while that one still dies takes it for alive,
        and gives up after 15 s of waiting for its answer.
        """
        pid = int((self.folder / "exec/containerd/containerd.pid").read_text())
        self.signal(signal.SIGKILL)
        self._wait()
        eventually(lambda: not Path(f"/proc/{pid}").exists(), _START_SECONDS)

    def close(self) -> None:
        """Remove all that it made. Containers first: an engine that is ended before leaves their shims behind."""
        if self._process is None:
            with contextlib.suppress(AssertionError, OSError):
                self.start()
        with contextlib.suppress(OSError, AssertionError):
            self.signal(signal.SIGCONT)
            for container in self.request("GET", "/containers/json?all=1"):
                self.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGTERM)
            self._wait()
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            mounted = line.split()[1]
            if mounted.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "-l", mounted], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        for group in [*CGROUPS.glob(f"*{self.cgroup_parent}"), CGROUPS / self.cgroup_parent.lstrip("/")]:
            for folder in sorted(group.rglob("*"), key=lambda path: len(path.parts), reverse=True):
                if folder.is_dir():
                    folder.rmdir()
            if group.is_dir():
                group.rmdir()

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            self._process = None
            raise RuntimeError((self.folder / "log").read_text()[-2000:])
        connection = _UnixConnection(self.socket, 5)
        try:
            connection.request("GET", "/_ping")
            return connection.getresponse().read() == b"OK"
        finally:
            connection.close()

    def _pid(self) -> int:
        # nsenter replaces itself, so the process is dockerd itself in both cases.
        assert self._process is not None, "the engine is not running"
        return self._process.pid

    def _wait(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(_START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("engine", timeout=seconds)
        self._unix = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._unix)


def _entry(name: str, kind: bytes, size: int = 0, *, mode: int = 0o755, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size, entry.mode, entry.linkname = kind, size, mode, link
    entry.mtime = int(time.time())
    return entry


@contextlib.contextmanager
def engine(namespace: str = "") -> Iterator[Engine]:
    """An engine that answers, and is gone without a trace afterwards."""
    # Not pytest's folder: the path of a Unix socket has 108 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="kybeng"))
    made = Engine(folder, folder.name, namespace)
    try:
        made.start()
        yield made
    finally:
        made.close()
