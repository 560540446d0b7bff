"""What the pod machine sees of a pod, and what it can ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from kybern.api.types import Container as ContainerSpec
from kybern.api.types import Pod
from node.runtime.interface import Container, ContainerState, Sandbox

# Labels of containers beyond the pod's identity.
HASH_LABEL = "kybern.io/hash"
# Seconds that the next attempt waits for after this one has ended: the back-off survives restarts of the agent.
BACKOFF_LABEL = "kybern.io/backoff"


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that could not be done, and when it is tried again. `reason` is the word for the pod's status."""

    reason: str
    message: str
    at: datetime
    retry_at: datetime
    count: int = 1


@dataclass(frozen=True, slots=True)
class ProbeState:
    """What the probes of one running container say. Without a probe of a kind its answer is yes."""

    started: bool = True
    ready: bool = True
    # Why it must be restarted: which probe failed, and how; empty while it is alive.
    failed: str = ""
    # Grace period of the probe that failed, where it has one of its own.
    grace_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class PodFacts:
    """Everything that a decision about a pod depends on."""

    pod: Pod
    now: datetime
    sandboxes: tuple[Sandbox, ...] = ()
    containers: tuple[Container, ...] = ()
    # The pod's address; empty while its network is not attached.
    address: str = ""
    host_ip: str = ""
    runtime_name: str = "docker"
    # Whether the object no longer exists in the API.
    gone: bool = False
    volumes_ready: bool = False
    # Keys of the actions that are at work.
    busy: frozenset[str] = frozenset()
    probes: Mapping[str, ProbeState] = field(default_factory=dict)
    # Failures by the key of the action.
    failures: Mapping[str, Failure] = field(default_factory=dict)
    # Termination messages by container id.
    messages: Mapping[str, str] = field(default_factory=dict)
    # Whether nothing of the pod is left on the node but containers in the runtime.
    torn_down: bool = False

    @property
    def last_sandbox(self) -> Sandbox | None:
        """The sandbox that the pod runs or ran in."""
        return max(self.sandboxes, key=lambda s: s.attempt, default=None)

    @property
    def sandbox(self) -> Sandbox | None:
        """The sandbox that the pod runs in; None when it must have a new one."""
        last = self.last_sandbox
        return last if last is not None and last.ready else None

    def current(self, name: str) -> Container | None:
        """The newest attempt of a container in the last sandbox."""
        sandbox = self.last_sandbox
        if sandbox is None:
            return None
        return newest(c for c in self.containers if c.name == name and c.sandbox_id == sandbox.id)

    def latest(self, name: str) -> Container | None:
        """The newest attempt of a container in any sandbox."""
        return newest(c for c in self.containers if c.name == name)


@dataclass(frozen=True, slots=True)
class RunSandbox:
    """Make the pod's sandbox and attach its network."""

    attempt: int

    @property
    def key(self) -> str:
        """What must not be done twice at once."""
        return SANDBOX


@dataclass(frozen=True, slots=True)
class AttachNetwork:
    """Give an existing sandbox its network."""

    sandbox: Sandbox

    @property
    def key(self) -> str:
        """What must not be done twice at once."""
        return SANDBOX


@dataclass(frozen=True, slots=True)
class SetUpVolumes:
    """Make the pod's volumes."""

    @property
    def key(self) -> str:
        """What must not be done twice at once."""
        return VOLUMES


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Pull the image, make one attempt of a container and start it. `backoff`: what BACKOFF_LABEL says."""

    sandbox: Sandbox
    spec: ContainerSpec
    attempt: int
    backoff: float

    @property
    def key(self) -> str:
        """What must not be done twice at once."""
        return container_key(self.spec.name)


@dataclass(frozen=True, slots=True)
class ResumeContainer:
    """Start a container that was made and not started."""

    container: Container
    spec: ContainerSpec

    @property
    def key(self) -> str:
        """What must not be done twice at once."""
        return container_key(self.container.name)


@dataclass(frozen=True, slots=True)
class StopContainer:
    """Run the preStop hook and stop a container, all within the grace period. `message` is for the event."""

    container: Container
    spec: ContainerSpec | None
    grace_seconds: float
    message: str

    @property
    def key(self) -> str:
        """What must not be done twice at once."""
        return f"stop/{self.container.id}"


@dataclass(frozen=True, slots=True)
class StopSandbox:
    """Detach the network and end a sandbox."""

    sandbox: Sandbox

    @property
    def key(self) -> str:
        """What must not be done twice at once."""
        return f"sandbox/{self.sandbox.id}"


@dataclass(frozen=True, slots=True)
class RemoveSandbox:
    """Remove a sandbox with its containers."""

    sandbox: Sandbox

    @property
    def key(self) -> str:
        """What must not be done twice at once."""
        return f"sandbox/{self.sandbox.id}"


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Remove a container."""

    container: Container

    @property
    def key(self) -> str:
        """What must not be done twice at once."""
        return f"remove/{self.container.id}"


@dataclass(frozen=True, slots=True)
class TearDown:
    """Remove what the pod has on the node outside the runtime: volumes, files."""

    @property
    def key(self) -> str:
        """What must not be done twice at once."""
        return VOLUMES


Action: TypeAlias = (
    RunSandbox
    | AttachNetwork
    | SetUpVolumes
    | StartContainer
    | ResumeContainer
    | StopContainer
    | StopSandbox
    | RemoveSandbox
    | RemoveContainer
    | TearDown
)

SANDBOX = "sandbox"
VOLUMES = "volumes"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now; all actions may run at once. Asking for an action that is at work changes nothing."""

    actions: tuple[Action, ...]
    # Pod.status as it should be now, or None when there is nothing better to say than what was said.
    status: dict[str, Any] | None
    # When to decide again though nothing has changed.
    wake_at: datetime | None = None
    # Whether the pod is to end: work on starting it may be given up.
    ending: bool = False
    # Whether nothing of the pod is left on the node, so that its object may go.
    ended: bool = False


def container_key(name: str) -> str:
    """The key under which a container is started."""
    return f"container/{name}"


def newest(containers: Any) -> Container | None:
    """The one with the highest attempt, and of those the youngest."""
    return max(containers, key=lambda c: (c.attempt, c.created_at), default=None)


def is_live(container: Container) -> bool:
    """Whether processes of it may run."""
    return container.state in (ContainerState.RUNNING, ContainerState.UNKNOWN)


def is_sidecar(spec: ContainerSpec) -> bool:
    """Whether an init container goes on beside the others."""
    return spec.restart_policy == "Always"


def spec_of(pod: Pod, name: str) -> ContainerSpec | None:
    """The container of that name."""
    return next((c for c in (*pod.spec.init_containers, *pod.spec.containers) if c.name == name), None)
