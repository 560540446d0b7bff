"""Pod.status, case by case."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from node.agent.machine import decide
from node.agent.model import Failure, PodFacts, ProbeState
from tests.unit.node.agent.facts import NOW, SANDBOX, container, created, exited, facts, pod, running

DELETED = {"deletionTimestamp": "2026-01-01T12:00:00Z", "deletionGracePeriodSeconds": 7}


def status(given: PodFacts) -> dict[str, Any]:
    found = decide(given).status
    assert found is not None
    return found


def condition(given: PodFacts, kind: str) -> dict[str, Any]:
    return next(c for c in status(given)["conditions"] if c["type"] == kind)


NEVER = pod(restartPolicy="Never")
INIT = pod(init=(container("i"),))
DEAD = replace(SANDBOX, ready=False)


@pytest.mark.parametrize(
    ("given", "phase"),
    [
        (facts(pod(), sandboxes=()), "Pending"),
        (facts(pod()), "Pending"),
        (facts(pod(), created()), "Pending"),
        (facts(pod(status=decide(facts(pod(), created())).status), created()), "Pending"),
        (facts(pod(), running()), "Running"),
        (facts(pod(container("a"), container("b")), running("a")), "Pending"),
        (facts(pod(), exited(code=1, backoff=10)), "Running"),
        (facts(INIT, running("i")), "Pending"),
        (facts(INIT, exited("i", 1, backoff=10)), "Pending"),
        (facts(INIT, exited("i"), running()), "Running"),
        (facts(NEVER, exited()), "Succeeded"),
        (facts(NEVER, exited(code=3)), "Failed"),
        (facts(pod(container("a"), container("b"), restartPolicy="Never"), exited("a"), exited("b", 1)), "Failed"),
        (facts(pod(container("a"), container("b"), restartPolicy="Never"), exited("a"), running("b")), "Running"),
        # A sidecar still runs: whoever waits for the end must not see it yet.
        (
            facts(pod(init=(container("s", restartPolicy="Always"),), restartPolicy="Never"), running("s"), exited()),
            "Running",
        ),
        (facts(pod(metadata=DELETED), running()), "Running"),
        (facts(pod(metadata=DELETED), exited()), "Succeeded"),
        (facts(pod(metadata=DELETED), exited(code=137)), "Failed"),
        (facts(pod(activeDeadlineSeconds=1, status={"startTime": "2026-01-01T11:00:00Z"}), exited(code=137)), "Failed"),
    ],
)
def test_the_phase(given: PodFacts, phase: str) -> None:
    assert status(given)["phase"] == phase


def test_a_deadline_is_named() -> None:
    found = status(facts(pod(activeDeadlineSeconds=1, status={"startTime": "2026-01-01T11:00:00Z"}), running()))
    assert (found["phase"], found["reason"]) == ("Running", "DeadlineExceeded")


def test_times_of_transitions_stay() -> None:
    since = "2026-01-01T11:30:00Z"
    before = [{"type": "Ready", "status": "True", "lastTransitionTime": since}]
    same = facts(pod(status={"conditions": before}), running())
    assert condition(same, "Ready")["lastTransitionTime"] == since
    other = facts(pod(status={"conditions": before}), running(), probes={"main": ProbeState(ready=False)})
    assert condition(other, "Ready") == {
        "type": "Ready",
        "status": "False",
        "reason": "ContainersNotReady",
        "message": "containers with unready status: [main]",
        "lastTransitionTime": "2026-01-01T12:00:00Z",
    }


def test_readiness_gates() -> None:
    gate = ({"conditionType": "example.com/ok"},)
    missing = condition(facts(pod(readinessGates=gate), running()), "Ready")
    assert (missing["status"], missing["reason"]) == ("False", "ReadinessGatesNotReady")
    closed = {"conditions": [{"type": "example.com/ok", "status": "False"}]}
    assert condition(facts(pod(readinessGates=gate, status=closed), running()), "Ready")["status"] == "False"
    opened = {"conditions": [{"type": "example.com/ok", "status": "True"}]}
    given = facts(pod(readinessGates=gate, status=opened), running())
    assert condition(given, "Ready")["status"] == "True"
    assert condition(given, "ContainersReady")["status"] == "True"


def test_conditions_while_it_starts() -> None:
    given = facts(INIT, running("i"))
    assert condition(given, "Initialized") == {
        "type": "Initialized",
        "status": "False",
        "reason": "ContainersNotInitialized",
        "message": "containers with incomplete status: [i]",
        "lastTransitionTime": "2026-01-01T12:00:00Z",
    }
    assert condition(given, "PodReadyToStartContainers")["status"] == "True"
    assert condition(facts(INIT, sandboxes=(DEAD,)), "PodReadyToStartContainers")["status"] == "False"
    assert condition(facts(NEVER, exited()), "Ready")["reason"] == "PodCompleted"
    assert condition(facts(NEVER, exited(code=1)), "Ready")["reason"] == "PodFailed"


def entry(given: PodFacts, name: str = "main") -> dict[str, Any]:
    found = status(given)
    every = [*found.get("initContainerStatuses", ()), *found["containerStatuses"]]
    return next(e for e in every if e["name"] == name)


def pull_failure(seconds_ago: float) -> dict[str, Failure]:
    at = NOW - timedelta(seconds=seconds_ago)
    return {"container/main": Failure("ErrImagePull", "manifest unknown", at, NOW + timedelta(seconds=9))}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (facts(pod(), sandboxes=()), "ContainerCreating"),
        (facts(INIT, running("i")), "PodInitializing"),
        (facts(pod(), failures=pull_failure(0)), "ErrImagePull"),
        (facts(pod(), failures=pull_failure(2)), "ImagePullBackOff"),
        (facts(pod(), exited(code=1, backoff=20)), "CrashLoopBackOff"),
        (facts(pod(), exited(code=1), failures=pull_failure(0)), "ErrImagePull"),
    ],
)
def test_why_a_container_waits(given: PodFacts, reason: str) -> None:
    assert entry(given)["state"]["waiting"]["reason"] == reason


def test_a_container_that_crashed_shows_how() -> None:
    found = entry(facts(pod(), exited(code=3, attempt=2, backoff=20), messages={"main-2": "ouch"}))
    ended = found["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "ouch")
    assert ended["finishedAt"] == "2026-01-01T12:00:00Z"
    assert (found["restartCount"], found["ready"], found["started"]) == (2, False, False)


def test_a_container_that_was_restarted_shows_what_was_before() -> None:
    found = entry(facts(pod(), exited(code=1, attempt=0, ago=100), running(attempt=1)))
    assert "running" in found["state"]
    assert found["lastState"]["terminated"]["exitCode"] == 1
    assert found["restartCount"] == 1


def test_what_the_runtime_has_forgotten_is_taken_from_the_api() -> None:
    known = {
        "name": "main",
        "image": "image:1",
        "imageID": "sha256:1",
        "containerID": "docker://gone",
        "restartCount": 4,
        "state": {"running": {"startedAt": "2026-01-01T11:00:00Z"}},
    }
    found = entry(facts(pod(status={"containerStatuses": [known]})))
    assert found["state"]["waiting"]["reason"] == "ContainerCreating"
    assert found["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert found["restartCount"] == 4


def test_init_containers_are_ready_when_they_have_ended_well() -> None:
    found = entry(facts(INIT, exited("i"), running()), "i")
    assert found["ready"]
    assert found["state"]["terminated"]["reason"] == "Completed"


def test_a_startup_probe_keeps_a_container_from_having_started() -> None:
    found = entry(facts(pod(), running(), probes={"main": ProbeState(started=False)}))
    assert (found["started"], found["ready"]) == (False, False)


def test_the_end_of_a_pod_is_told_once() -> None:
    """After the containers are gone, what was told stays."""
    told = {"name": "main", "state": {"terminated": {"exitCode": 0}}, "containerID": "docker://x"}
    finished = pod(status={"phase": "Succeeded", "containerStatuses": [told]})
    assert decide(facts(finished, exited(), sandboxes=(DEAD,))).status is None
    assert decide(facts(finished, sandboxes=())).status is None
