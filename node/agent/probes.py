"""Probes: when a container has started, is ready, is alive.

`Counter` is the pure part: it counts answers until a threshold is reached. `PodProbes` runs one task per probe of each
running container and tells the pod's worker when a result has changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from kybern.api.types import Container as ContainerSpec
from kybern.api.types import Pod
from kybern.api.types.pods import Probe
from kybern.clock import Clock
from node.agent.model import PodFacts, ProbeState, container_key, spec_of
from node.runtime.interface import Container, ContainerState

log = logging.getLogger(__name__)

STARTUP = "startup"
LIVENESS = "liveness"
READINESS = "readiness"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one probe said."""

    ok: bool
    message: str = ""


class Prober(Protocol):
    """Asks a container once."""

    async def probe(self, probe: Probe, pod: Pod, spec: ContainerSpec, container_id: str, address: str) -> Answer:
        """The answer; never raises, and ends within the probe's time-out."""
        ...


# Tells an event: container name, reason, message.
Report = Callable[[str, str, str], None]


@dataclass
class Counter:
    """Turns answers into a result; None as long as no threshold was reached."""

    success_threshold: int
    failure_threshold: int
    result: bool | None = None
    _last: bool | None = None
    _run: int = 0

    def feed(self, ok: bool) -> bool:
        """Count an answer; returns whether the result is another now."""
        self._run = self._run + 1 if ok == self._last else 1
        self._last = ok
        needed = self.success_threshold if ok else self.failure_threshold
        if self._run < max(1, needed) or self.result == ok:
            return False
        self.result = ok
        return True


@dataclass
class _Watched:
    """The probes of one attempt of a container."""

    container: Container
    spec: ContainerSpec
    tasks: list[asyncio.Task[None]]
    started: bool
    ready: bool
    failed: str = ""
    grace_seconds: int | None = None


class PodProbes:
    """The probes of one pod. `sync` is called after every change; `close` at the end."""

    def __init__(self, prober: Prober, clock: Clock, wake: Callable[[], None], report: Report) -> None:
        self._prober = prober
        self._clock = clock
        self._wake = wake
        self._report = report
        self._watched: dict[str, _Watched] = {}
        self._pod: Pod | None = None
        self._address = ""

    def states(self) -> Mapping[str, ProbeState]:
        """What is known of each running container, by name."""
        return {
            name: ProbeState(w.started, w.ready and w.started, w.failed, w.grace_seconds)
            for name, w in self._watched.items()
        }

    def sync(self, facts: PodFacts) -> bool:
        """Start the probes of containers that run now, end those of the others; returns whether any were started."""
        self._pod, self._address = facts.pod, facts.address
        running: dict[str, Container] = {}
        for container in facts.containers:
            current = facts.current(container.name)
            if current is container and container.state is ContainerState.RUNNING:
                running[container.name] = container
        for name, watched in list(self._watched.items()):
            if name not in running or running[name].id != watched.container.id:
                self._end(self._watched.pop(name))
        begun = False
        for name, container in running.items():
            spec = spec_of(facts.pod, name)
            if name not in self._watched and spec is not None and container_key(name) not in facts.busy:
                self._watched[name] = self._begin(facts.pod, container, spec)
                begun = True
        return begun

    def end_restarts(self) -> None:
        """The pod ends: liveness and startup no longer matter."""
        for watched in self._watched.values():
            watched.failed = ""

    async def close(self) -> None:
        """End all probes."""
        watched = list(self._watched.values())
        self._watched.clear()
        for one in watched:
            self._end(one)
        await asyncio.gather(*(t for one in watched for t in one.tasks), return_exceptions=True)

    # --- within

    def _begin(self, pod: Pod, container: Container, spec: ContainerSpec) -> _Watched:
        known = _known(pod, container)
        started, ready = known if known is not None else (False, False)
        watched = _Watched(
            container,
            spec,
            [],
            started=started or spec.startup_probe is None,
            ready=ready or spec.readiness_probe is None,
        )
        probes = ((STARTUP, spec.startup_probe), (LIVENESS, spec.liveness_probe), (READINESS, spec.readiness_probe))
        for kind, probe in probes:
            if probe is not None and not (kind == STARTUP and watched.started):
                name = f"{kind}-{pod.key}-{spec.name}"
                watched.tasks.append(asyncio.create_task(self._run(watched, kind, probe), name=name))
        return watched

    def _end(self, watched: _Watched) -> None:
        for task in watched.tasks:
            task.cancel()

    async def _run(self, watched: _Watched, kind: str, probe: Probe) -> None:
        counter = Counter(probe.success_threshold, probe.failure_threshold)
        if kind == READINESS:
            counter.result = watched.ready
        await asyncio.sleep(self._first_delay(watched.container.started_at, probe.initial_delay_seconds))
        while True:
            if kind == STARTUP or watched.started:
                answer = await self._ask(watched, probe)
                if not answer.ok:
                    text = f"{kind.capitalize()} probe failed: {answer.message}"
                    self._report(watched.spec.name, "Unhealthy", text)
                if counter.feed(answer.ok) and self._conclude(watched, kind, probe, answer):
                    return
                await asyncio.sleep(max(1, probe.period_seconds))
            else:
                # Until it has started nothing else is asked.
                await asyncio.sleep(1.0)

    async def _ask(self, watched: _Watched, probe: Probe) -> Answer:
        pod = self._pod
        if pod is None:
            return Answer(False, "the pod is not known")
        return await self._prober.probe(probe, pod, watched.spec, watched.container.id, self._address)

    def _first_delay(self, started_at: datetime | None, initial: int) -> float:
        if started_at is None:
            return float(initial)
        return max(0.0, initial - (self._clock.now() - started_at).total_seconds())

    def _conclude(self, watched: _Watched, kind: str, probe: Probe, answer: Answer) -> bool:
        """Note a result; returns whether the probe has done its work."""
        if kind == READINESS:
            watched.ready = answer.ok
        elif answer.ok:
            watched.started = watched.started or kind == STARTUP
        else:
            watched.failed = f"{kind} probe"
            watched.grace_seconds = probe.termination_grace_period_seconds
        self._wake()
        return kind == STARTUP or (kind == LIVENESS and not answer.ok)


def _known(pod: Pod, container: Container) -> tuple[bool, bool] | None:
    """What the API knows of this very attempt: after a restart of the agent a pod that serves goes on serving."""
    for status in (*pod.status.init_container_statuses, *pod.status.container_statuses):
        if status.name == container.name and status.container_id.endswith(f"//{container.id}"):
            return bool(status.started), status.ready
    return None
