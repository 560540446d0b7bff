"""Pod.status as Kubernetes' clients expect it: phase, conditions, one entry per container.

Pure. Times of transitions are taken from the status that is known, so that saying the same again changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kybern.clock import rfc3339
from node.agent.container_status import container_status
from node.agent.model import PodFacts, is_live, is_sidecar
from node.agent.qos import qos_class
from node.agent.stages import incomplete_init
from node.runtime.interface import ContainerState

# The conditions that this agent writes; all others in the list belong to others.
OWN = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


@dataclass(frozen=True, slots=True)
class Ending:
    """All containers of a pod are to end. `removes`: and then nothing of it must be left on the node."""

    grace_seconds: float
    removes: bool = False
    phase: str = ""
    reason: str = ""
    message: str = ""


def build_status(facts: PodFacts, ending: Ending | None) -> dict[str, Any]:
    """The whole status of a pod, conditions of others included."""
    pod = facts.pod
    known = {s.name: s for s in (*pod.status.init_container_statuses, *pod.status.container_statuses)}
    initializing = bool(incomplete_init(facts)) and not pod.finished
    status: dict[str, Any] = {
        "phase": _phase(facts, ending),
        "startTime": rfc3339(pod.status.start_time or facts.now),
        "qosClass": pod.status.qos_class or qos_class(pod.spec),
        "hostIP": facts.host_ip,
        "hostIPs": [{"ip": facts.host_ip}],
    }
    if pod.metadata.generation:
        status["observedGeneration"] = pod.metadata.generation
    if ending is not None and ending.reason:
        status["reason"] = ending.reason
        status["message"] = ending.message
    address = facts.address or (pod.status.pod_ip if ending is not None else "")
    if address:
        status["podIP"] = address
        status["podIPs"] = [{"ip": address}]
    if pod.spec.init_containers:
        status["initContainerStatuses"] = [
            container_status(
                facts, spec, known.get(spec.name), init=True, initializing=initializing, ending=ending is not None
            )
            for spec in pod.spec.init_containers
        ]
    status["containerStatuses"] = [
        container_status(
            facts, spec, known.get(spec.name), init=False, initializing=initializing, ending=ending is not None
        )
        for spec in pod.spec.containers
    ]
    status["conditions"] = _conditions(facts, status)
    return status


# --- phase


def _phase(facts: PodFacts, ending: Ending | None) -> str:
    if ending is None:
        return _running_phase(facts)
    if facts.pod.finished:
        return facts.pod.status.phase
    if any(is_live(c) for c in facts.containers) or any(k.startswith("container/") for k in facts.busy):
        # Whoever waits for the end must not believe in it before the last process has gone.
        return _running_phase(facts)
    if ending.phase:
        return ending.phase
    return "Succeeded" if _all_succeeded(facts) else "Failed"


def _running_phase(facts: PodFacts) -> str:
    if incomplete_init(facts):
        return "Pending"
    known = {s.name: s for s in facts.pod.status.container_statuses}
    for spec in facts.pod.spec.containers:
        latest = facts.latest(spec.name)
        if latest is None or latest.state is ContainerState.CREATED:
            before = known.get(spec.name)
            ran_before = before is not None and bool(before.container_id)
            if not ran_before and not (latest is not None and latest.attempt > 0):
                return "Pending"
    return "Running"


def _all_succeeded(facts: PodFacts) -> bool:
    if not facts.containers:
        return False
    latest = [facts.latest(spec.name) for spec in facts.pod.spec.containers]
    return all(c is not None and c.exit_code == 0 for c in latest)


# --- conditions


def _conditions(facts: PodFacts, status: dict[str, Any]) -> list[dict[str, Any]]:
    phase = status["phase"]
    ready, reason, message = _containers_ready(facts, status, phase)
    own = {
        "PodReadyToStartContainers": _plain(facts.sandbox is not None and bool(facts.address)),
        "Initialized": _initialized(facts, phase),
        "ContainersReady": _condition(ready, reason, message),
        "Ready": _ready(facts, ready, reason, message),
        "PodScheduled": _plain(True),
    }
    result = []
    for kind in OWN:
        fresh = {"type": kind, **own[kind]}
        before = facts.pod.condition(kind)
        if kind == "PodScheduled" and before is not None and before.true:
            fresh = {"type": kind, "status": "True"}
        same = before is not None and before.status == fresh["status"] and before.last_transition_time is not None
        since = before.last_transition_time if before is not None and same else None
        fresh["lastTransitionTime"] = rfc3339(since or facts.now)
        result.append(fresh)
    return result


def _condition(holds: bool, reason: str = "", message: str = "") -> dict[str, Any]:
    condition = {"status": "True" if holds else "False"}
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition


def _plain(holds: bool) -> dict[str, Any]:
    return _condition(holds)


def _initialized(facts: PodFacts, phase: str) -> dict[str, Any]:
    if phase == "Succeeded":
        return _condition(True, "PodCompleted")
    waiting = [] if facts.pod.finished else incomplete_init(facts)
    if not waiting:
        return _condition(True)
    return _condition(False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(waiting)}]")


def _containers_ready(facts: PodFacts, status: dict[str, Any], phase: str) -> tuple[bool, str, str]:
    if phase == "Succeeded":
        return False, "PodCompleted", ""
    if phase == "Failed":
        return False, "PodFailed", ""
    sidecars = {c.name for c in facts.pod.spec.init_containers if is_sidecar(c)}
    entries = [s for s in status.get("initContainerStatuses", ()) if s["name"] in sidecars]
    unready = [s["name"] for s in (*entries, *status["containerStatuses"]) if not s["ready"]]
    if unready:
        return False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    return True, "", ""


def _ready(facts: PodFacts, ready: bool, reason: str, message: str) -> dict[str, Any]:
    if not ready:
        return _condition(False, reason, message)
    missing = []
    for gate in facts.pod.spec.readiness_gates:
        condition = facts.pod.condition(gate.condition_type)
        if condition is None:
            missing.append(f'corresponding condition of pod readiness gate "{gate.condition_type}" does not exist.')
        elif not condition.true:
            missing.append(
                f'the status of pod readiness gate "{gate.condition_type}" is not "True", but {condition.status}'
            )
    if missing:
        return _condition(False, "ReadinessGatesNotReady", ", ".join(missing))
    return _condition(True)
