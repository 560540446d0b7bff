"""Three real members as processes on loopback, and commands that are run on them to their end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from kybern.config.loading import dump
from kybern.config.models import StoreConfig, Tls
from tests.integration.store import members
from tests.integration.store.serving import Certificates

# Seconds that anything may take; how long it took is no matter here.
PATIENCE = 60.0
# Small enough to be exceeded in a test.
QUOTA = 8_000_000


@dataclass
class Group:
    """The members, and a master's certificate to speak to them with."""

    folder: Path
    certificates: Certificates
    configs: dict[str, StoreConfig]
    tls: Tls
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def clients(self) -> dict[str, str]:
        """Where each member serves clients."""
        return {name: config.client_address for name, config in self.configs.items()}

    def start(self, name: str) -> None:
        """Start a member."""
        with (self.folder / f"{name}.log").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                members.command(self.file(name)),
                env=members.environment(self.folder / f"{name}.ready"),
                stdout=out,
                stderr=out,
            )

    def until_ready(self, name: str) -> None:
        """Wait until a member serves."""
        until((self.folder / f"{name}.ready").exists, f"{name} serves")

    def file(self, name: str) -> Path:
        """A member's configuration."""
        return self.folder / f"{name}.yaml"

    def add(self, name: str, **changes: object) -> None:
        """Another member's configuration, or another one for a member: the first's with some fields changed."""
        config = self.configs.get(name) or next(iter(self.configs.values()))
        self.configs[name] = msgspec.structs.replace(config, **changes)  # type: ignore[type-var] # a struct all the same
        self.file(name).write_text(dump(self.configs[name]))

    def kill(self, *names: str) -> None:
        """End members without a warning."""
        for name in names:
            self.processes[name].kill()
        for name in names:
            self.processes.pop(name).wait()

    def log(self, name: str) -> str:
        """What a member has logged."""
        return (self.folder / f"{name}.log").read_text()

    def stop(self) -> None:
        """End all members; they must end in order."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(PATIENCE) for process in self.processes.values()]
        logs = [self.log(name) for name in self.processes]
        assert codes == [0] * len(codes), logs
        assert not any("Traceback" in log for log in logs), logs

    # --- etcdctl

    def command(self, *words: str, endpoints: Sequence[str] = ()) -> list[str]:
        """A command line of Debian's etcdctl."""
        urls = ",".join(f"https://{e}" for e in endpoints or self.clients.values())
        tls = [f"--cacert={self.tls.ca}", f"--cert={self.tls.cert}", f"--key={self.tls.key}"]
        return ["etcdctl", f"--endpoints={urls}", *tls, "--dial-timeout=5s", "--command-timeout=20s", *words]

    def try_etcdctl(self, *words: str, stdin: str = "", endpoints: Sequence[str] = ()) -> tuple[int, str, str]:
        """Exit code, standard output and errors."""
        done = subprocess.run(
            self.command(*words, endpoints=endpoints),
            env=ETCDCTL,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        return done.returncode, done.stdout, done.stderr

    def etcdctl(self, *words: str, stdin: str = "", endpoints: Sequence[str] = ()) -> str:
        """Standard output of a command that must succeed."""
        code, out, err = self.try_etcdctl(*words, stdin=stdin, endpoints=endpoints)
        assert code == 0, (words, out, err)
        return out.strip()

    def json(self, *words: str, endpoints: Sequence[str] = ()) -> Any:
        """Standard output of a command as JSON."""
        return json.loads(self.etcdctl(*words, "-w", "json", endpoints=endpoints))

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on, ended afterwards."""
        process = subprocess.Popen(
            self.command(*words), env=ETCDCTL, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def leader(self) -> str:
        """The name of the member that leads, once there is one."""
        found: list[str] = []

        def known() -> bool:
            for name, address in self.clients.items():
                code, out, _ = self.try_etcdctl("endpoint", "status", "-w", "json", endpoints=[address])
                if code == 0:
                    status = json.loads(out)[0]["Status"]
                    if status.get("leader") == status["header"]["member_id"]:
                        found.append(name)
            return bool(found)

        until(known, "a member leads")
        return found[-1]

    # --- kybern store

    def kybern_command(self, of: str) -> list[str]:
        """The beginning of a command line of `kybern store`, with a member's configuration."""
        program = "import sys; from kybern.cli.main import main; sys.exit(main())"
        return [sys.executable, "-c", program, "store", f"--config={self.file(of)}"]

    def try_kybern(self, *words: str, of: str = "s1", stdin: str = "") -> subprocess.CompletedProcess[str]:
        """`kybern store`, with a member's configuration."""
        return subprocess.run(
            [*self.kybern_command(of), *words],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def kybern(self, *words: str, of: str = "s1", stdin: str = "") -> str:
        """Standard output of a command that must succeed."""
        done = self.try_kybern(*words, of=of, stdin=stdin)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout.strip()


ETCDCTL = {"PATH": os.environ.get("PATH", ""), "ETCDCTL_API": "3"}


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    """The next lines that a command prints; the test's own time limit ends one that says nothing."""
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < PATIENCE, what
        time.sleep(0.05)


@contextlib.contextmanager
def three_members(folder: Path, quota_bytes: int = QUOTA) -> Iterator[Group]:
    """A group that serves."""
    certificates = Certificates(folder)
    configs = members.configure_all(folder, certificates, quota_bytes=quota_bytes)
    group = Group(folder, certificates, configs, certificates.master())
    try:
        for name in configs:
            group.start(name)
        for name in configs:
            group.until_ready(name)
        yield group
    except BaseException:
        for process in group.processes.values():
            process.kill()
            process.wait()
        raise
    group.stop()
