"""What the agent needs of a container runtime: an interface shaped like the CRI.

Backends: `node.runtime.docker` (docker-py) and `node.runtime.fake` (in memory, virtual clock); a CRI socket is next.
The runtime is the memory: labels on sandboxes and containers carry the pod's identity, so that an agent that restarts
adopts what runs. Everything but `run_sandbox` and `create_container` is idempotent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class RuntimeFailure(Exception):  # noqa: N818
    """The runtime refused or failed. `reason` is the word for the pod's status (`ErrImagePull`, ...).

    `gone` tells that the thing does not exist (any more); `unavailable` that the runtime itself does not answer.
    """

    def __init__(
        self, message: str, *, reason: str = "RuntimeError", gone: bool = False, unavailable: bool = False
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.gone = gone
        self.unavailable = unavailable


class ContainerState(StrEnum):
    """The CRI's states of a container."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """Which pod something belongs to; kept in labels."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the host that leads into the pod."""

    container_port: int
    host_port: int
    protocol: str = "TCP"
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """A pod's shared surroundings: namespaces, host name, cgroup."""

    pod: PodIdentity
    attempt: int = 0
    hostname: str = ""
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_process_namespace: bool = False
    sysctls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox as the runtime shows it. `ready`: its process runs, so its namespaces exist."""

    id: str
    pod: PodIdentity
    attempt: int
    ready: bool
    created_at: datetime
    # `/proc/PID/ns/net`; None when it is not ready or uses the host's network.
    network_namespace: Path | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """A path of the host in a container."""

    host_path: Path
    container_path: str
    read_only: bool = False
    # `private`, `rslave` or `rshared`.
    propagation: str = "private"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the kernel enforces; zero is no limit."""

    cpu_shares: int = 0
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    memory_bytes: int = 0
    oom_score_adj: int = 0


@dataclass(frozen=True, slots=True)
class Security:
    """Who the container's processes are and what they may do."""

    # `uid`, `uid:gid` or empty for the image's user.
    user: str = ""
    supplemental_groups: tuple[int, ...] = ()
    privileged: bool = False
    read_only_root: bool = False
    allow_privilege_escalation: bool = True
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """One attempt of one container of a pod."""

    name: str
    image: str
    attempt: int = 0
    # Replaces the image's entrypoint and command, as Kubernetes' `command` and `args` do; empty: the image's.
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: Sequence[tuple[str, str]] = ()
    mounts: Sequence[Mount] = ()
    limits: Limits = Limits()
    security: Security = Security()
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    # Signal that ends it; empty for the image's or SIGTERM.
    stop_signal: str = ""
    # Further facts for labels (`kybern.io/hash`: hash of the container's spec, to notice changes).
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the runtime shows it."""

    id: str
    sandbox_id: str
    pod: PodIdentity
    name: str
    attempt: int
    state: ContainerState
    image: str
    # `sha256:...` of what runs.
    image_id: str
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    # `OOMKilled`, `Error`, `Completed`, `ContainerCannotRun`; empty while it runs.
    reason: str = ""
    message: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    """An image on this node. `user` is its default user (`uid`, `name`, or empty for root)."""

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size_bytes: int
    user: str = ""


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """Something happened to a container or sandbox of a pod: look again."""

    pod: PodIdentity


@dataclass(frozen=True, slots=True)
class RuntimeVersion:
    """For Node.status.nodeInfo: `docker://20.10.24`; and the cgroup version that the runtime uses (1 or 2)."""

    name: str
    version: str
    cgroup_version: int = 1


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command that ran to its end left."""

    exit_code: int
    output: bytes


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which part of a container's log."""

    follow: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since: datetime | None = None
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes that a process wrote; `stderr` tells on which stream."""

    data: bytes
    stderr: bool = False


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """What a running container uses."""

    container_id: str
    pod: PodIdentity
    name: str
    cpu_nanoseconds: int
    memory_working_set_bytes: int


class ProcessStream(Protocol):
    """A process with its streams connected (exec, attach)."""

    def output(self) -> AsyncIterator[Output]:
        """What it writes, until it has ended or detached."""
        ...

    async def write(self, data: bytes) -> None:
        """Bytes for its standard input."""
        ...

    async def close_stdin(self) -> None:
        """End of its standard input."""
        ...

    async def resize(self, width: int, height: int) -> None:
        """The terminal's size, in characters."""
        ...

    async def exit_code(self) -> int:
        """Wait for the end; 128 + signal when a signal ended it."""
        ...

    async def close(self) -> None:
        """Give the connection back; the process of an exec whose client has gone gets no more input."""
        ...


class Runtime(Protocol):
    """Every method raises RuntimeFailure."""

    async def version(self) -> RuntimeVersion:
        """Also the health check: raises `unavailable` when the runtime does not answer."""
        ...

    async def prepare(self) -> None:
        """Make sure of what sandboxes need (the pause image, built from a static binary when it cannot be pulled)."""
        ...

    async def sandboxes(self) -> Sequence[Sandbox]:
        """All sandboxes that this agent made, ready or not."""
        ...

    async def containers(self) -> Sequence[Container]:
        """All containers of pods that this agent made, in any state."""
        ...

    def events(self) -> AsyncIterator[RuntimeEvent]:
        """Starts and ends of containers and sandboxes.

        Ends with RuntimeFailure when the runtime is lost; then subscribe again and look at everything.
        """
        ...

    async def run_sandbox(self, config: SandboxConfig) -> Sandbox:
        """Make a sandbox and start it, without a network of its own unless it uses the host's."""
        ...

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """End its process (and so its namespaces). Containers in it must have been stopped before."""
        ...

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Remove it and all its containers."""
        ...

    async def create_container(self, sandbox: Sandbox, config: ContainerConfig) -> str:
        """Make a container in a sandbox's namespaces; returns its id."""
        ...

    async def start_container(self, container_id: str) -> None:
        """Start it."""
        ...

    async def stop_container(self, container_id: str, grace_seconds: float) -> None:
        """Send its stop signal, and SIGKILL when it has not ended after the grace period; returns once it has ended."""
        ...

    async def remove_container(self, container_id: str) -> None:
        """Remove it with its log, running or not."""
        ...

    async def image(self, reference: str) -> Image | None:
        """The image, if it is on this node."""
        ...

    async def images(self) -> Sequence[Image]:
        """All images on this node."""
        ...

    async def pull_image(self, reference: str, auth: Mapping[str, str] | None = None) -> Image:
        """Get an image from its registry (`auth`: username, password)."""
        ...

    async def remove_image(self, image_id: str) -> None:
        """Remove an image that no container uses."""
        ...

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
        """Run a command to its end. Raises RuntimeFailure with reason `Timeout` when that takes too long."""
        ...

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool) -> ProcessStream:
        """Start a command with its streams connected."""
        ...

    async def attach(self, container_id: str, *, tty: bool, stdin: bool) -> ProcessStream:
        """Connect to the main process's streams."""
        ...

    def logs(self, container_id: str, options: LogOptions) -> AsyncIterator[bytes]:
        """The container's log; with `follow` until it has ended."""
        ...

    async def usage(self) -> Sequence[ContainerUsage]:
        """What all running containers use."""
        ...

    async def close(self) -> None:
        """Close connections; containers go on."""
        ...
