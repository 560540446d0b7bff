"""One entry of containerStatuses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kybern.api.types import Container as ContainerSpec
from kybern.api.types import ContainerStatus
from kybern.clock import rfc3339
from node.agent.model import (
    SANDBOX,
    VOLUMES,
    Failure,
    PodFacts,
    container_key,
    is_sidecar,
)
from node.agent.restarts import restart_at, wait_after, wanted_again
from node.agent.stages import started
from node.runtime.interface import Container, ContainerState

# After so many seconds a failed pull is shown as waiting for the next one.
PULL_SHOWN = 1.0
_PULL_REASONS = frozenset({"ErrImagePull", "RegistryUnavailable", "SignatureValidationFailed"})


def container_status(
    facts: PodFacts,
    spec: ContainerSpec,
    known: ContainerStatus | None,
    *,
    init: bool,
    initializing: bool,
    ending: bool,
) -> dict[str, Any]:
    """What became of one container. `known` is what the API has about it."""
    latest = facts.latest(spec.name)
    if latest is None and known is not None and known.container_id:
        return _lost(facts, spec, known, ending=ending)
    failure = None if ending else facts.failures.get(container_key(spec.name))
    state = _state(facts, spec, latest, failure, init=init, initializing=initializing, ending=ending)
    running = "running" in state
    status: dict[str, Any] = {
        "name": spec.name,
        "image": spec.image,
        "imageID": latest.image_id if latest is not None else "",
        "restartCount": _restarts(latest, known, facts),
        "state": state,
        "ready": _ready(facts, spec, latest, init=init) and (running or init),
        "started": running and started(facts, latest),
    }
    if latest is not None and latest.state is not ContainerState.CREATED:
        status["containerID"] = f"{facts.runtime_name}://{latest.id}"
        if latest.image:
            status["image"] = latest.image
    last = _last_state(facts, spec, latest, known, state)
    if last:
        status["lastState"] = last
    return status


def _restarts(latest: Container | None, known: ContainerStatus | None, facts: PodFacts) -> int:
    counted = latest.attempt if latest is not None else 0
    return max(counted, known.restart_count) if known is not None else counted


def _ready(facts: PodFacts, spec: ContainerSpec, latest: Container | None, *, init: bool) -> bool:
    if latest is None:
        return False
    if init and not is_sidecar(spec):
        return latest.state is ContainerState.EXITED and latest.exit_code == 0
    if not started(facts, latest):
        return False
    probe = facts.probes.get(spec.name)
    return probe is None or probe.ready


def _state(
    facts: PodFacts,
    spec: ContainerSpec,
    latest: Container | None,
    failure: Failure | None,
    *,
    init: bool,
    initializing: bool,
    ending: bool,
) -> dict[str, Any]:
    if latest is not None and latest.state in (ContainerState.RUNNING, ContainerState.UNKNOWN):
        since = latest.started_at or latest.created_at
        return {"running": {"startedAt": rfc3339(since)}}
    if failure is not None:
        return {"waiting": _failed(spec, failure, facts.now)}
    if latest is None or latest.state is ContainerState.CREATED:
        if ending:
            return {"waiting": {"reason": "ContainerCreating"}}
        return {"waiting": _not_yet(facts, init=init, initializing=initializing)}
    policy = facts.pod.spec.restart_policy
    if not ending and wanted_again(spec, latest, policy, init=init) and facts.now < restart_at(latest):
        return {"waiting": _crash_loop(facts, spec, latest)}
    return {"terminated": terminated(facts, latest)}


def _failed(spec: ContainerSpec, failure: Failure, now: datetime) -> dict[str, Any]:
    if failure.reason in _PULL_REASONS and (now - failure.at).total_seconds() >= PULL_SHOWN:
        return {
            "reason": "ImagePullBackOff",
            "message": f'Back-off pulling image "{spec.image}": {failure.reason}: {failure.message}',
        }
    return {"reason": failure.reason, "message": failure.message}


def _not_yet(facts: PodFacts, *, init: bool, initializing: bool) -> dict[str, Any]:
    waits_for_init = initializing and (not init or facts.sandbox is not None)
    reason = "PodInitializing" if waits_for_init else "ContainerCreating"
    trouble = facts.failures.get(VOLUMES) or facts.failures.get(SANDBOX)
    return {"reason": reason, "message": trouble.message} if trouble is not None else {"reason": reason}


def _crash_loop(facts: PodFacts, spec: ContainerSpec, latest: Container) -> dict[str, Any]:
    pod = facts.pod
    wait = int(wait_after(latest))
    shown = f"{wait}s" if wait < 60 else f"{wait // 60}m{wait % 60}s"
    where = f"container={spec.name} pod={pod.name}_{pod.namespace}({pod.uid})"
    return {"reason": "CrashLoopBackOff", "message": f"back-off {shown} restarting failed {where}"}


def terminated(facts: PodFacts, container: Container) -> dict[str, Any]:
    """The state of a container that has ended."""
    code = container.exit_code if container.exit_code is not None else 137
    state: dict[str, Any] = {
        "exitCode": code,
        "reason": container.reason or ("Completed" if code == 0 else "Error"),
        "containerID": f"{facts.runtime_name}://{container.id}",
    }
    message = facts.messages.get(container.id) or container.message
    if message:
        state["message"] = message
    if container.started_at is not None:
        state["startedAt"] = rfc3339(container.started_at)
    if container.finished_at is not None:
        state["finishedAt"] = rfc3339(container.finished_at)
    return state


def _last_state(
    facts: PodFacts,
    spec: ContainerSpec,
    latest: Container | None,
    known: ContainerStatus | None,
    state: dict[str, Any],
) -> dict[str, Any]:
    if latest is not None and latest.state is ContainerState.EXITED and "terminated" not in state:
        return {"terminated": terminated(facts, latest)}
    ended = [
        c
        for c in facts.containers
        if c.name == spec.name and c.state is ContainerState.EXITED and (latest is None or c.attempt < latest.attempt)
    ]
    if ended:
        return {"terminated": terminated(facts, max(ended, key=lambda c: c.attempt))}
    return _known_last(known)


def _known_last(known: ContainerStatus | None) -> dict[str, Any]:
    if known is None or known.last_state.terminated is None:
        return {}
    return {"terminated": _written(known.last_state.terminated)}


def _lost(facts: PodFacts, spec: ContainerSpec, known: ContainerStatus, *, ending: bool) -> dict[str, Any]:
    """The runtime has forgotten a container that the API knows of."""
    status: dict[str, Any] = {
        "name": spec.name,
        "image": known.image or spec.image,
        "imageID": known.image_id,
        "containerID": known.container_id,
        "restartCount": known.restart_count,
        "ready": known.ready and known.state.terminated is not None,
        "started": False,
    }
    if known.state.terminated is not None:
        ended = _written(known.state.terminated)
    elif known.last_state.terminated is not None and known.state.running is None:
        ended = _written(known.last_state.terminated)
    else:
        ended = {
            "exitCode": 137,
            "reason": "ContainerStatusUnknown",
            "message": "The container could not be located when the pod was looked at",
            "containerID": known.container_id,
        }
    if ending:
        status["state"] = {"terminated": ended}
        return status
    failure = facts.failures.get(container_key(spec.name))
    waiting = _failed(spec, failure, facts.now) if failure is not None else {"reason": "ContainerCreating"}
    return {**status, "state": {"waiting": waiting}, "lastState": {"terminated": ended}}


def _written(state: Any) -> dict[str, Any]:
    document: dict[str, Any] = {"exitCode": state.exit_code}
    for name, value in (("signal", state.signal), ("reason", state.reason), ("message", state.message)):
        if value:
            document[name] = value
    if state.container_id:
        document["containerID"] = state.container_id
    for name, moment in (("startedAt", state.started_at), ("finishedAt", state.finished_at)):
        if moment is not None:
            document[name] = rfc3339(moment)
    return document
