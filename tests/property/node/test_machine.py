"""The pod machine against a small world that does what it is asked for, in any order, and in which things go wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from kybern.api.types import Container as ContainerSpec
from kybern.api.types import Pod
from kybern.api.types.pods import PodStatus
from node.agent import failures
from node.agent.failures import ActionError
from node.agent.machine import ORPHAN_GRACE, decide
from node.agent.model import (
    BACKOFF_LABEL,
    HASH_LABEL,
    Action,
    AttachNetwork,
    Decision,
    Failure,
    PodFacts,
    ProbeState,
    RemoveContainer,
    RemoveSandbox,
    ResumeContainer,
    RunSandbox,
    SetUpVolumes,
    StartContainer,
    StopContainer,
    StopSandbox,
    TearDown,
    is_live,
    is_sidecar,
)
from node.agent.restarts import spec_hash
from node.agent.views import replaced
from node.runtime.interface import Container, ContainerState, PodIdentity, Sandbox

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
POD = PodIdentity("default", "p", "uid")
CODES = (0, 0, 1, 137)
# Hypothesis draws the pod and the seed; left to itself it prefers histories in which little happens.
SEEDS = st.integers(0, 2**32)


@dataclass
class World:
    """A runtime, a clock and the agent's memory."""

    pod: Pod
    now: datetime = BEGIN
    sandboxes: dict[str, Sandbox] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    addresses: set[str] = field(default_factory=set)
    volumes: bool = False
    torn_down: bool = False
    gone: bool = False
    failures: dict[str, Failure] = field(default_factory=dict)
    busy: dict[str, Action] = field(default_factory=dict)
    probes: dict[str, ProbeState] = field(default_factory=dict)
    count: int = 0

    def facts(self) -> PodFacts:
        facts = PodFacts(
            pod=self.pod,
            now=self.now,
            sandboxes=tuple(self.sandboxes.values()),
            containers=tuple(self.containers.values()),
            volumes_ready=self.volumes,
            busy=frozenset(self.busy),
            probes=self.probes,
            failures=self.failures,
            torn_down=self.torn_down,
            gone=self.gone,
            host_ip="192.168.7.11",
        )
        sandbox = facts.sandbox
        return replace(facts, address="10.244.0.2" if sandbox and sandbox.id in self.addresses else "")

    def decide(self) -> Decision:
        decision = decide(self.facts())
        if decision.status is not None:
            self.pod = replaced(self.pod, status=msgspec.convert(decision.status, PodStatus))
        for action in decision.actions:
            self.busy.setdefault(action.key, action)
        return decision

    def name(self) -> str:
        self.count += 1
        return f"id{self.count}"

    # --- what happens

    def finish(self, key: str, ok: bool, code: int) -> None:
        """An action that is at work ends."""
        action = self.busy.pop(key)
        if not ok and not isinstance(action, StopContainer | StopSandbox | TearDown):
            self.failures[key] = failures.after(key, ActionError("Oops", ""), self.failures.get(key), self.now)
            return
        self.failures.pop(key, None)
        self._do(action, code)

    def _do(self, action: Action, code: int) -> None:
        match action:
            case RunSandbox():
                assert not any(s.ready for s in self.sandboxes.values()), "two sandboxes"
                made = Sandbox(self.name(), POD, action.attempt, True, self.now, Path("/ns"))
                self.sandboxes[made.id] = made
                self.addresses.add(made.id)
            case AttachNetwork():
                self.addresses.add(action.sandbox.id)
            case SetUpVolumes():
                self.volumes, self.torn_down = True, False
            case TearDown():
                assert not any(is_live(c) for c in self.containers.values()), "volumes taken from a live container"
                self.volumes, self.torn_down = False, True
            case StartContainer():
                self._start(action)
            case ResumeContainer():
                ready = {s.id for s in self.sandboxes.values() if s.ready}
                waiting = self.containers.get(action.container.id)
                if waiting is not None and waiting.sandbox_id in ready:
                    self._run(waiting)
            case StopContainer():
                self.end(action.container.id, code)
            case StopSandbox():
                self.sandbox_dies(action.sandbox.id)
            case RemoveSandbox():
                self.sandboxes.pop(action.sandbox.id, None)
                self.containers = {k: c for k, c in self.containers.items() if c.sandbox_id != action.sandbox.id}
            case RemoveContainer():
                assert not is_live(action.container)
                self.containers.pop(action.container.id, None)

    def _start(self, action: StartContainer) -> None:
        sandbox = self.sandboxes.get(action.sandbox.id)
        if sandbox is None or not sandbox.ready:
            return
        assert self.volumes, "started without its volumes"
        labels = {HASH_LABEL: spec_hash(action.spec), BACKOFF_LABEL: f"{action.backoff:g}"}
        made = Container(
            self.name(), sandbox.id, POD, action.spec.name, action.attempt, ContainerState.CREATED, "image", "sha256:1",
            self.now, labels=labels,
        )  # fmt: skip
        assert not [c for c in self.containers.values() if (c.name, c.attempt) == (made.name, made.attempt)]
        self.check_policy(action.spec)
        self.containers[made.id] = made
        # Made, and not started yet: the action is still at work, or the agent dies now.
        self.busy[action.key] = ResumeContainer(made, action.spec)

    def check_policy(self, spec: ContainerSpec) -> None:
        """What ended for good never runs again."""
        earlier = [c for c in self.containers.values() if c.name == spec.name and c.started_at is not None]
        init = spec in self.pod.spec.init_containers
        if is_sidecar(spec) or not earlier:
            return
        policy = self.pod.spec.restart_policy
        if init:
            present = self.facts().sandbox
            earlier = [c for c in earlier if present is not None and c.sandbox_id == present.id]
            assert not earlier or (policy != "Never" and all(c.exit_code for c in earlier))
        else:
            assert policy != "Never"
            assert policy == "Always" or all(c.exit_code for c in earlier)

    def _run(self, container: Container) -> None:
        twin = [c for c in self.containers.values() if c.name == container.name and is_live(c)]
        assert not twin, "a container runs twice"
        self.containers[container.id] = replace(container, state=ContainerState.RUNNING, started_at=self.now)
        self.check_order(container.name)

    def check_order(self, name: str) -> None:
        """Nothing runs before the init containers ahead of it are done."""
        spec = self.pod.spec
        names = [c.name for c in spec.init_containers]
        ahead = spec.init_containers[: names.index(name)] if name in names else spec.init_containers
        present = self.facts().sandbox
        for init in ahead:
            if is_sidecar(init) or present is None:
                continue
            done = [c for c in self.containers.values() if c.name == init.name and c.exit_code == 0]
            assert [c for c in done if c.sandbox_id == present.id], f"{name} before {init.name}"

    def end(self, key: str, code: int) -> None:
        container = self.containers.get(key)
        if container is not None and is_live(container):
            self.containers[key] = replace(container, state=ContainerState.EXITED, exit_code=code, finished_at=self.now)

    def sandbox_dies(self, key: str) -> None:
        if key in self.sandboxes:
            self.sandboxes[key] = replace(self.sandboxes[key], ready=False)

    def settle(self, *, good: bool = True) -> Decision:
        """Let everything happen that is asked for, until nothing more is."""
        for _ in range(400):
            decision = self.decide()
            if self.busy:
                for key in list(self.busy):
                    self.finish(key, good, 0)
                continue
            waiting = [c for c in self.containers.values() if is_live(c) and c.name.startswith("init")]
            if waiting and not decision.ending:
                self.end(waiting[0].id, 0)
            elif decision.wake_at is not None:
                self.now = max(self.now, decision.wake_at)
            else:
                return decision
        raise AssertionError("it never settles")


def container(name: str, restart: str | None = None) -> dict[str, Any]:
    return {"name": name, "image": "image:1", **({"restartPolicy": restart} if restart else {})}


@st.composite
def pods(draw: st.DrawFn) -> Pod:
    inits = [container(f"init{i}") for i in range(draw(st.integers(0, 2)))]
    for i in range(draw(st.integers(0, 2))):
        inits.insert(draw(st.integers(0, len(inits))), container(f"side{i}", "Always"))
    document = {
        "metadata": {"name": "p", "namespace": "default", "uid": "uid"},
        "spec": {
            "initContainers": inits,
            "containers": [container(f"main{i}") for i in range(draw(st.integers(1, 2)))],
            "restartPolicy": draw(st.sampled_from(["Always", "OnFailure", "Never"])),
        },
    }
    return msgspec.convert(document, Pod)


def wreak(rng: Random, world: World) -> None:
    """One thing happens."""
    what = rng.choice(["finish"] * 6 + ["exit", "exit", "sandbox", "time", "time", "probe", "lose"])
    if what == "finish" and world.busy:
        world.finish(rng.choice(sorted(world.busy)), rng.random() < 0.9, rng.choice(CODES))
    elif what == "exit" and world.containers:
        world.end(rng.choice(sorted(world.containers)), rng.choice(CODES))
    elif what == "sandbox" and world.sandboxes and rng.random() < 0.3:
        world.sandbox_dies(rng.choice(sorted(world.sandboxes)))
    elif what == "time":
        world.now += timedelta(seconds=rng.choice([0.1, 1, 15, 15, 60, 700]))
    elif what == "probe" and rng.random() < 0.3:
        name = rng.choice(world.pod.spec.containers).name
        failed = rng.choice(["", "", "liveness probe"])
        world.probes[name] = ProbeState(rng.random() < 0.7, rng.random() < 0.7, failed)
    elif what == "lose" and rng.random() < 0.3:
        # The agent is killed and starts again: what it remembered is gone, what ran goes on.
        world.busy.clear()
        world.failures.clear()
        world.probes.clear()
        world.volumes = False


@settings(max_examples=100, deadline=None)
@given(pods(), SEEDS)
def test_whatever_happens_it_ends_well(pod: Pod, seed: int) -> None:
    world, rng = World(pod), Random(seed)
    for _ in range(rng.randint(0, 250)):
        before = {c.name: c.attempt for c in world.containers.values()}
        world.decide()
        for name, attempt in before.items():
            latest = world.facts().latest(name)
            assert latest is None or latest.attempt >= attempt
        wreak(rng, world)
    world.probes.clear()
    world.settle()
    check_settled(world)


def check_settled(world: World) -> None:
    facts = world.facts()
    status = world.pod.status
    live = sorted(c.name for c in world.containers.values() if is_live(c))
    if status.phase in ("Succeeded", "Failed"):
        assert world.pod.spec.restart_policy != "Always"
        assert not live
        assert world.torn_down
        assert not any(s.ready for s in world.sandboxes.values())
    else:
        sidecars = [c.name for c in world.pod.spec.init_containers if is_sidecar(c)]
        ended = [
            c.name
            for c in world.pod.spec.containers
            if (latest := facts.latest(c.name)) is not None and latest.exit_code is not None
        ]
        assert live == sorted([*(c.name for c in world.pod.spec.containers if c.name not in ended), *sidecars])
        assert status.phase == "Running"
        assert not ended or world.pod.spec.restart_policy != "Always"


@settings(max_examples=100, deadline=None)
@given(pods(), SEEDS, st.booleans())
def test_a_pod_that_must_go_goes_for_good(pod: Pod, seed: int, gone: bool) -> None:
    world, rng = World(pod), Random(seed)
    for _ in range(rng.randint(0, 60)):
        world.decide()
        wreak(rng, world)
    metadata = replaced(world.pod.metadata, deletion_timestamp=world.now, deletion_grace_period_seconds=3)
    world.pod = replaced(world.pod, metadata=metadata)
    world.gone = gone
    grace = ORPHAN_GRACE if gone else 3
    for _ in range(rng.randint(0, 10)):
        decision = world.decide()
        assert not any(isinstance(a, RunSandbox | StartContainer | SetUpVolumes) for a in decision.actions)
        assert all(a.grace_seconds == grace for a in decision.actions if isinstance(a, StopContainer))
        wreak(rng, world)
    decision = world.settle()
    assert decision.ended
    assert not world.containers
    assert not world.sandboxes


@settings(max_examples=100, deadline=None)
@given(pods(), SEEDS)
def test_deciding_twice_says_the_same(pod: Pod, seed: int) -> None:
    world, rng = World(pod), Random(seed)
    for _ in range(rng.randint(0, 60)):
        world.decide()
        first = decide(world.facts())
        if first.status is not None:
            world.pod = replaced(world.pod, status=msgspec.convert(first.status, PodStatus))
        second = decide(world.facts())
        assert first.actions == second.actions
        assert first.status is None or second.status in (None, first.status)
        wreak(rng, world)
