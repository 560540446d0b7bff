"""Pods: `kubectl get pods` shows in one word what goes on in all containers; that word is found here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from kybern.api.types.base import decode
from kybern.api.types.pods import ContainerState, ContainerStatus, Pod, PodStatus
from master.rest.printers.base import AGE, NAME, NONE, Cell, Column, Printer, Row, age, wide

_COLUMNS = (
    NAME,
    Column("Ready", description="How many containers are ready, of how many."),
    Column("Status", description="What goes on in the pod, in one word."),
    Column("Restarts", description="How often containers were started again, and when last."),
    AGE,
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
)

_ENDED: Mapping[str, tuple[Mapping[str, str], ...]] = {
    "Succeeded": ({"type": "Completed", "status": "True", "reason": "Succeeded", "message": "The pod has ended."},),
    "Failed": ({"type": "Completed", "status": "True", "reason": "Failed", "message": "The pod has failed."},),
}


class _Status(PodStatus):
    nominated_node_name: str = ""


class _Pod(Pod):
    status: _Status = msgspec.field(default_factory=_Status)


@dataclass(slots=True)
class Summary:
    """What the columns Ready, Status and Restarts say."""

    reason: str
    ready: int = 0
    total: int = 0
    restarts: int = 0
    last_restart: datetime | None = None

    def count(self, status: ContainerStatus) -> None:
        """Count a container's restarts."""
        self.restarts += status.restart_count
        ended = status.last_state.terminated
        if ended and ended.finished_at and (self.last_restart is None or ended.finished_at > self.last_restart):
            self.last_restart = ended.finished_at


def summarize(pod: Pod) -> Summary:
    """One word, and counts, for a pod."""
    sidecars = {c.name for c in pod.spec.init_containers if c.restart_policy == "Always"}
    found = Summary(_first_reason(pod.status), total=len(pod.spec.containers) + len(sidecars))
    of_sidecars = Summary("")
    initializing = _init_containers(pod, sidecars, found, of_sidecars)
    if not initializing or _condition(pod, "Initialized"):
        # Init containers are history by now: only sidecars go on counting.
        found.restarts, found.last_restart = of_sidecars.restarts, of_sidecars.last_restart
        _containers(pod, found)
    if pod.deleting and pod.status.reason == "NodeLost":
        found.reason = "Unknown"
    elif pod.deleting and not pod.finished:
        found.reason = "Terminating"
    return found


def _first_reason(status: PodStatus) -> str:
    gated = any(c.type == "PodScheduled" and c.reason == "SchedulingGated" for c in status.conditions)
    return "SchedulingGated" if gated else status.reason or status.phase


def _init_containers(pod: Pod, sidecars: set[str], found: Summary, of_sidecars: Summary) -> bool:
    """Whether one of them is not through yet; says in `found` which and why."""
    for at, status in enumerate(pod.status.init_container_statuses):
        found.count(status)
        sidecar = status.name in sidecars
        if sidecar:
            of_sidecars.count(status)
        ended = status.state.terminated
        if ended is not None and ended.exit_code == 0:
            continue
        if sidecar and status.started:
            found.ready += status.ready
            continue
        waiting = status.state.waiting
        if ended is not None:
            found.reason = f"Init:{_end(status.state)}"
        elif waiting is not None and waiting.reason not in ("", "PodInitializing"):
            found.reason = f"Init:{waiting.reason}"
        else:
            found.reason = f"Init:{at}/{len(pod.spec.init_containers)}"
        return True
    return False


def _containers(pod: Pod, found: Summary) -> None:
    running = False
    for status in reversed(pod.status.container_statuses):
        found.count(status)
        state = status.state
        if state.waiting is not None and state.waiting.reason:
            found.reason = state.waiting.reason
        elif state.terminated is not None:
            found.reason = _end(state)
        elif status.ready and state.running is not None:
            running = True
            found.ready += 1
    # One container has completed, another serves: the pod as a whole runs.
    if found.reason == "Completed" and running:
        found.reason = "Running" if _condition(pod, "Ready") else "NotReady"


def _end(state: ContainerState) -> str:
    ended = state.terminated
    assert ended is not None  # noqa: S101 - callers have looked
    if ended.reason:
        return ended.reason
    return f"Signal:{ended.signal}" if ended.signal else f"ExitCode:{ended.exit_code}"


def _condition(pod: Pod, kind: str) -> bool:
    found = pod.condition(kind)
    return found is not None and found.true


def _row(data: bytes, now: datetime) -> Row:
    pod = decode(data, _Pod)
    found = summarize(pod)
    restarts: Cell = str(found.restarts)
    if found.restarts and found.last_restart is not None:
        restarts = f"{found.restarts} ({age(found.last_restart, now)} ago)"
    status = pod.status
    address = status.pod_ips[0].ip if status.pod_ips else status.pod_ip
    gates = pod.spec.readiness_gates
    met = sum(_condition(pod, gate.condition_type) for gate in gates)
    cells = (
        pod.name,
        f"{found.ready}/{found.total}",
        found.reason,
        restarts,
        age(pod.metadata.creation_timestamp, now),
        address or NONE,
        pod.spec.node_name or NONE,
        status.nominated_node_name or NONE,
        f"{met}/{len(gates)}" if gates else NONE,
    )
    return Row(cells, _ENDED.get(status.phase, ()))


PODS = Printer(_COLUMNS, _row)
