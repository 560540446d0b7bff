"""What the pod machine decides, case by case."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from kybern.api.types import Pod
from node.agent.machine import ORPHAN_GRACE, decide
from node.agent.model import HASH_LABEL, Action, Failure, PodFacts, ProbeState, StartContainer, StopContainer
from node.runtime.interface import ContainerState
from tests.unit.node.agent.facts import NOW, SANDBOX, container, created, exited, facts, pod, running

DELETED = {"deletionTimestamp": "2026-01-01T12:00:00Z", "deletionGracePeriodSeconds": 7}
DEAD = replace(SANDBOX, ready=False)


def short(action: Action) -> str:
    """An action in a word or three."""
    match action:
        case StartContainer():
            return f"start {action.spec.name} {action.attempt} {action.backoff:g}"
        case StopContainer():
            return f"stop {action.container.name} {action.grace_seconds:g}"
        case _:
            return type(action).__name__


def failure(seconds: float) -> Failure:
    return Failure("Oops", "no", NOW, NOW + timedelta(seconds=seconds))


TWO = pod(container("a"), container("b"))
INIT = pod(init=(container("i1"), container("i2")))
SIDE = pod(init=(container("side", restartPolicy="Always"), container("i")))
NEVER = pod(restartPolicy="Never")
ON_FAILURE = pod(restartPolicy="OnFailure")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # Sandbox, network, volumes
        (facts(pod(), sandboxes=(), volumes_ready=False), ["SetUpVolumes", "RunSandbox"]),
        (facts(pod(), sandboxes=(DEAD,)), ["RunSandbox"]),
        (facts(pod(), sandboxes=(), busy=frozenset({"sandbox"})), []),
        (facts(pod(), sandboxes=(), failures={"sandbox": failure(5)}), []),
        (facts(pod(), sandboxes=(), failures={"sandbox": failure(0)}), ["RunSandbox"]),
        (facts(pod(), address=""), ["AttachNetwork"]),
        (facts(pod(hostNetwork=True), address=""), ["start main 0 0"]),
        (facts(pod(), volumes_ready=False), ["SetUpVolumes"]),
        (facts(pod(), running(), volumes_ready=False), ["SetUpVolumes"]),
        (facts(pod(), running(), sandboxes=(DEAD,)), ["stop main 30"]),
        (facts(pod(), exited(code=137), sandboxes=(DEAD,)), ["RunSandbox"]),
        (facts(pod(), exited(code=137), sandboxes=(DEAD, replace(SANDBOX, id="s2", attempt=1))), ["start main 1 0"]),
        # Containers
        (facts(TWO), ["start a 0 0", "start b 0 0"]),
        (facts(TWO, running("a")), ["start b 0 0"]),
        (facts(TWO, running("a"), busy=frozenset({"container/b"})), []),
        (facts(TWO, running("a"), failures={"container/b": failure(3)}), []),
        (facts(pod(), created()), ["ResumeContainer"]),
        (facts(pod(), created(), busy=frozenset({"container/main"})), []),
        (facts(pod(), created(), failures={"container/main": failure(0)}), ["RemoveContainer"]),
        (facts(pod(), replace(running(), state=ContainerState.UNKNOWN)), ["stop main 30"]),
        # Restarts
        (facts(pod(), exited(code=1)), ["start main 1 10"]),
        (facts(pod(), exited(code=0)), ["start main 1 10"]),
        (facts(pod(), exited(code=1, attempt=1, backoff=10)), []),
        (facts(pod(), exited(code=1, attempt=1, backoff=10, ago=9.9)), []),
        (facts(pod(), exited(code=1, attempt=1, backoff=10, ago=10)), ["start main 2 20"]),
        (facts(pod(), exited(code=1, attempt=9, backoff=300, ago=301)), ["start main 10 300"]),
        (facts(pod(), exited(code=1, attempt=9, backoff=300, ran=601)), ["start main 10 10"]),
        (facts(ON_FAILURE, exited(code=1)), ["start main 1 10"]),
        (facts(ON_FAILURE, exited(code=0)), ["StopSandbox", "TearDown"]),
        (facts(NEVER, exited(code=1)), ["StopSandbox", "TearDown"]),
        (facts(NEVER, exited(code=1), torn_down=True, sandboxes=(DEAD,)), []),
        # Init containers
        (facts(INIT), ["start i1 0 0"]),
        (facts(INIT, running("i1")), []),
        (facts(INIT, exited("i1")), ["start i2 0 0"]),
        (facts(INIT, exited("i1", code=1)), ["start i1 1 10"]),
        (facts(INIT, exited("i1"), exited("i2")), ["start main 0 0"]),
        (facts(INIT, running()), []),
        (facts(pod(init=(container("i"),), restartPolicy="Never"), exited("i", 1)), ["StopSandbox", "TearDown"]),
        # Sidecars
        (facts(SIDE), ["start side 0 0"]),
        (facts(SIDE, running("side"), probes={"side": ProbeState(started=False)}), []),
        (facts(SIDE, running("side")), ["start i 0 0"]),
        (facts(SIDE, exited("side"), exited("i")), ["start side 1 10"]),
        (facts(SIDE, running("side"), exited("i")), ["start main 0 0"]),
        (facts(SIDE, exited("side"), exited("i"), running()), ["start side 1 10"]),
        # Probes and changes
        (facts(pod(), running(), probes={"main": ProbeState(failed="liveness probe")}), ["stop main 30"]),
        (facts(pod(), running(), probes={"main": ProbeState(failed="x", grace_seconds=4)}), ["stop main 4"]),
        (facts(pod(), running(labels={HASH_LABEL: "another"})), ["stop main 30"]),
        (facts(pod(), running(labels={})), []),
        # Cleaning
        (facts(pod(), running(attempt=2), exited(attempt=1), exited(attempt=0)), ["RemoveContainer"]),
        (facts(pod(), running(), sandboxes=(replace(DEAD, id="s0", attempt=-1), SANDBOX)), ["RemoveSandbox"]),
        (facts(pod(), running(), running(sandbox="s0", id="x", attempt=-1)), ["stop main 30"]),
        # Ends
        (facts(pod(metadata=DELETED), running()), ["stop main 7"]),
        (facts(pod(metadata=DELETED), exited()), ["RemoveSandbox", "TearDown"]),
        (facts(pod(metadata=DELETED), sandboxes=(), torn_down=True), []),
        (facts(pod(metadata=DELETED), busy=frozenset({"container/main"})), []),
        (facts(pod(), running(), gone=True), [f"stop main {ORPHAN_GRACE:g}"]),
        (facts(pod(status={"phase": "Failed"}), running()), ["stop main 30"]),
        (
            facts(pod(activeDeadlineSeconds=60, status={"startTime": "2026-01-01T11:59:00Z"}), running()),
            ["stop main 30"],
        ),
        (facts(pod(activeDeadlineSeconds=61, status={"startTime": "2026-01-01T11:59:00Z"}), running()), []),
    ],
)
def test_the_next_steps(given: PodFacts, expected: list[str]) -> None:
    assert [short(a) for a in decide(given).actions] == expected


def test_sidecars_end_after_the_rest_and_in_reverse() -> None:
    wanted = pod(
        init=(container("s1", restartPolicy="Always"), container("s2", restartPolicy="Always")), metadata=DELETED
    )
    live = [running(), running("s1"), running("s2")]
    order = []
    while live:
        actions = decide(facts(wanted, *live)).actions
        order.append([short(a) for a in actions])
        stopped = {a.container.id for a in actions if isinstance(a, StopContainer)}
        live = [c for c in live if c.id not in stopped]
    assert order == [["stop main 7"], ["stop s2 7"], ["stop s1 7"]]


def test_it_looks_again_when_a_wait_is_over() -> None:
    waiting = facts(pod(), exited(code=1, backoff=40, ago=15))
    assert decide(waiting).wake_at == NOW + timedelta(seconds=25)
    failed = facts(pod(), failures={"container/main": failure(3)})
    assert decide(failed).wake_at == NOW + timedelta(seconds=1)
    assert decide(replace(failed, now=NOW + timedelta(seconds=2))).wake_at == NOW + timedelta(seconds=3)
    assert decide(facts(pod(), running())).wake_at is None


def test_a_deleted_pod_has_ended_when_nothing_is_left() -> None:
    wanted: Pod = pod(metadata=DELETED)
    assert not decide(facts(wanted, running())).ended
    assert not decide(facts(wanted, exited())).ended
    assert not decide(facts(wanted, sandboxes=())).ended
    assert not decide(facts(wanted, sandboxes=(), torn_down=True, busy=frozenset({"sandbox"}))).ended
    assert decide(facts(wanted, sandboxes=(), torn_down=True)).ended
    assert not decide(facts(pod(status={"phase": "Succeeded"}), sandboxes=(), torn_down=True)).ended
