"""The pod machine: from what is wanted and what there is to what is to be done and what is to be said.

Pure: no await, no clock, no memory. It is asked again after every change, so it names only the next steps. An action
that is at work already is simply asked for again; `PodFacts.busy` tells what must be waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from kybern.api.types import Container as ContainerSpec
from node.agent.container_status import PULL_SHOWN
from node.agent.model import (
    SANDBOX,
    VOLUMES,
    Action,
    AttachNetwork,
    Decision,
    PodFacts,
    RemoveContainer,
    RemoveSandbox,
    ResumeContainer,
    RunSandbox,
    SetUpVolumes,
    StartContainer,
    StopContainer,
    StopSandbox,
    TearDown,
    container_key,
    is_live,
    is_sidecar,
    spec_of,
)
from node.agent.restarts import has_changed, next_wait, restart_at, wanted_again
from node.agent.stages import effective, init_done, outcome, started
from node.agent.status import Ending, build_status
from node.runtime.interface import Container, ContainerState, Sandbox

# For pods whose object no longer exists: nobody waits for them, and their replacement may run already.
ORPHAN_GRACE = 2.0


def decide(facts: PodFacts) -> Decision:
    """The next steps for a pod, its status now, and when to look again."""
    ending = why_end(facts)
    if ending is not None:
        actions = tuple(_end(facts, ending))
        ended = ending.removes and not actions and not facts.busy
        status = None if facts.gone or _nothing_known(facts) else build_status(facts, ending)
        return Decision(actions, status, _retry(facts), ending=True, ended=ended)
    actions = tuple(_run(facts))
    return Decision(actions, build_status(facts, None), _wake(facts))


def why_end(facts: PodFacts) -> Ending | None:
    """Why all containers of the pod must end; None when they must not."""
    pod = facts.pod
    grace = float(pod.spec.termination_grace_period_seconds)
    if facts.gone:
        return Ending(ORPHAN_GRACE, removes=True)
    if pod.deleting:
        asked = pod.metadata.deletion_grace_period_seconds
        return Ending(float(grace if asked is None else asked), removes=True)
    if pod.finished:
        return Ending(grace, phase=pod.status.phase, reason=pod.status.reason, message=pod.status.message)
    deadline = deadline_of(facts)
    if deadline is not None and facts.now >= deadline:
        text = "Pod was active on the node longer than the specified deadline"
        return Ending(grace, phase="Failed", reason="DeadlineExceeded", message=text)
    phase = outcome(facts)
    return Ending(grace, phase=phase) if phase else None


def deadline_of(facts: PodFacts) -> datetime | None:
    """When the pod's time is over."""
    seconds, since = facts.pod.spec.active_deadline_seconds, facts.pod.status.start_time
    return None if seconds is None or since is None else since + timedelta(seconds=seconds)


# --- ending


def _end(facts: PodFacts, ending: Ending) -> Iterator[Action]:
    live = [c for c in facts.containers if is_live(c)]
    if live:
        yield from _stop(facts, live, ending)
        return
    if any(key != VOLUMES for key in facts.busy):
        # A start may be at work: what comes of it is seen next time.
        return
    if ending.removes:
        yield from _remove(facts)
    else:
        # The containers stay, for their logs.
        yield from (StopSandbox(s) for s in facts.sandboxes if s.ready)
    if not facts.torn_down:
        yield TearDown()


def _stop(facts: PodFacts, live: list[Container], ending: Ending) -> Iterator[Action]:
    """Sidecars outlive the rest, and end in the reverse of the order in which they started."""
    sidecars = [c.name for c in facts.pod.spec.init_containers if is_sidecar(c)]
    chosen = [c for c in live if c.name not in sidecars]
    if not chosen:
        last = max(sidecars.index(c.name) for c in live)
        chosen = [c for c in live if c.name == sidecars[last]]
    for container in chosen:
        spec = spec_of(facts.pod, container.name)
        yield StopContainer(container, spec, ending.grace_seconds, f"Stopping container {container.name}")


def _remove(facts: PodFacts) -> Iterator[Action]:
    known = {s.id for s in facts.sandboxes}
    yield from (RemoveSandbox(s) for s in facts.sandboxes)
    yield from (RemoveContainer(c) for c in facts.containers if c.sandbox_id not in known)


def _nothing_known(facts: PodFacts) -> bool:
    """A pod whose containers are gone, or whose end has been told: its status says more than can be seen here."""
    status = facts.pod.status
    if not facts.containers:
        return bool(status.phase)
    told = (*status.init_container_statuses, *status.container_statuses)
    return facts.pod.finished and bool(told) and not any(s.state.running or s.state.waiting for s in told)


# --- running


def _run(facts: PodFacts) -> Iterator[Action]:
    if not facts.volumes_ready and _may_try(facts, VOLUMES):
        yield SetUpVolumes()
    sandbox = facts.sandbox
    if sandbox is None:
        yield from _new_sandbox(facts)
        return
    # Containers of an earlier sandbox hold on to namespaces that nobody reaches any more.
    yield from _stop_strays(facts, sandbox)
    yield from _clean(facts, sandbox)
    if not facts.pod.spec.host_network and not facts.address:
        if SANDBOX not in facts.busy and _may_try(facts, SANDBOX):
            yield AttachNetwork(sandbox)
        return
    if not init_done(facts):
        yield from _init(facts, sandbox)
        return
    for spec in facts.pod.spec.init_containers:
        if is_sidecar(spec):
            yield from _keep(facts, sandbox, spec, init=True)
    for spec in facts.pod.spec.containers:
        yield from _keep(facts, sandbox, spec, init=False)


def _new_sandbox(facts: PodFacts) -> Iterator[Action]:
    live = [c for c in facts.containers if is_live(c)]
    if live:
        yield from _stop_strays(facts, None)
    elif SANDBOX not in facts.busy and _may_try(facts, SANDBOX):
        yield RunSandbox(max((s.attempt + 1 for s in facts.sandboxes), default=0))


def _stop_strays(facts: PodFacts, sandbox: Sandbox | None) -> Iterator[Action]:
    for container in facts.containers:
        if is_live(container) and (sandbox is None or container.sandbox_id != sandbox.id):
            spec = spec_of(facts.pod, container.name)
            grace = float(facts.pod.spec.termination_grace_period_seconds)
            yield StopContainer(container, spec, grace, "Pod sandbox changed, it will be killed and re-created.")


def _clean(facts: PodFacts, sandbox: Sandbox) -> Iterator[Action]:
    """Of each container the newest attempt is kept, and the last one before it that ended, for its log."""
    newest: dict[str, int] = {}
    kept: dict[str, int] = {}
    for container in sorted(facts.containers, key=lambda c: c.attempt, reverse=True):
        if container.name not in newest:
            newest[container.name] = container.attempt
        elif container.state is ContainerState.EXITED:
            if container.name in kept:
                yield RemoveContainer(container)
            kept.setdefault(container.name, container.attempt)
    used = {c.sandbox_id for c in facts.containers}
    yield from (RemoveSandbox(s) for s in facts.sandboxes if s.id != sandbox.id and s.id not in used)


def _init(facts: PodFacts, sandbox: Sandbox) -> Iterator[Action]:
    """One after the other; a sidecar counts as done once it has started."""
    for spec in facts.pod.spec.init_containers:
        container = facts.current(spec.name)
        ended = container is not None and container.state is ContainerState.EXITED
        if ended and container is not None and container.exit_code == 0 and not is_sidecar(spec):
            continue
        yield from _keep(facts, sandbox, spec, init=True)
        if not (is_sidecar(spec) and started(facts, container)):
            return


def _keep(facts: PodFacts, sandbox: Sandbox, spec: ContainerSpec, *, init: bool) -> Iterator[Action]:
    """Bring one container nearer to running."""
    container = facts.current(spec.name) if init else effective(facts, spec)
    key = container_key(spec.name)
    if container is not None and is_live(container):
        why = _why_restart(facts, spec, container)
        if why is not None:
            yield why
        return
    if key in facts.busy or not _may_try(facts, key):
        return
    if container is None:
        if facts.volumes_ready:
            yield _start(facts, sandbox, spec)
    elif container.state is ContainerState.CREATED:
        # An agent that died between making and starting it left it so; one that would not start is made anew.
        anew = key in facts.failures or has_changed(spec, container)
        yield RemoveContainer(container) if anew else ResumeContainer(container, spec)
    elif (
        wanted_again(spec, container, facts.pod.spec.restart_policy, init=init)
        and facts.now >= restart_at(container)
        and facts.volumes_ready
    ):
        yield _start(facts, sandbox, spec)


def _why_restart(facts: PodFacts, spec: ContainerSpec, container: Container) -> StopContainer | None:
    grace = float(facts.pod.spec.termination_grace_period_seconds)
    if container.state is ContainerState.UNKNOWN:
        return StopContainer(container, spec, grace, f"Container {spec.name} is in an unknown state, will be restarted")
    if has_changed(spec, container):
        return StopContainer(container, spec, grace, f"Container {spec.name} definition changed, will be restarted")
    probe = facts.probes.get(spec.name)
    if probe is not None and probe.failed:
        if probe.grace_seconds is not None:
            grace = float(probe.grace_seconds)
        return StopContainer(container, spec, grace, f"Container {spec.name} failed {probe.failed}, will be restarted")
    return None


def _start(facts: PodFacts, sandbox: Sandbox, spec: ContainerSpec) -> StartContainer:
    latest = facts.latest(spec.name)
    if latest is not None:
        # In a new sandbox everything starts at once; what the container did in the last one is not its fault.
        wait = next_wait(latest) if latest.sandbox_id == sandbox.id else 0.0
        return StartContainer(sandbox, spec, latest.attempt + 1, wait)
    statuses = (*facts.pod.status.init_container_statuses, *facts.pod.status.container_statuses)
    known = next((s for s in statuses if s.name == spec.name and s.container_id), None)
    return StartContainer(sandbox, spec, known.restart_count + 1 if known else 0, 0.0)


def _may_try(facts: PodFacts, key: str) -> bool:
    failure = facts.failures.get(key)
    return failure is None or facts.now >= failure.retry_at


# --- when to look again


def _retry(facts: PodFacts) -> datetime | None:
    return min((f.retry_at for f in facts.failures.values() if f.retry_at > facts.now), default=None)


@dataclass(frozen=True, slots=True)
class _Moments:
    now: datetime
    all: list[datetime]

    def add(self, moment: datetime | None) -> None:
        if moment is not None and moment > self.now:
            self.all.append(moment)


def _wake(facts: PodFacts) -> datetime | None:
    moments = _Moments(facts.now, [])
    moments.add(_retry(facts))
    moments.add(deadline_of(facts))
    for failure in facts.failures.values():
        # From then on it is shown as waiting for its back-off.
        moments.add(failure.at + timedelta(seconds=PULL_SHOWN))
    for spec in (*facts.pod.spec.init_containers, *facts.pod.spec.containers):
        container = facts.current(spec.name)
        if container is not None and container.state is ContainerState.EXITED:
            moments.add(restart_at(container))
    return min(moments.all, default=None)
