"""One pod's worker: looks, decides, lets work be done, looks again.

Level-triggered: whatever happens only wakes it. Decisions are made one at a time; the actions that they ask for run
beside each other, each under a key that keeps it from being done twice at once. A key is given back only after the
runtime has been read again, so that no decision rests on what was there before.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import msgspec

from kybern.api.types import Pod
from kybern.api.types.pods import PodStatus
from kybern.clock import seconds_until
from node.agent import failures
from node.agent.context import NodeContext
from node.agent.machine import decide
from node.agent.model import (
    SANDBOX,
    VOLUMES,
    Action,
    Decision,
    Failure,
    PodFacts,
    SetUpVolumes,
    StopContainer,
    spec_of,
)
from node.agent.operator import PodOperator
from node.agent.probes import PodProbes
from node.agent.status import OWN
from node.agent.views import replaced
from node.agent.waiting import newly_waiting
from node.runtime.interface import ContainerState, RuntimeFailure

log = logging.getLogger(__name__)

# ConfigMaps, Secrets and tokens in volumes are compared with the API so often.
REFRESH_INTERVAL = 45.0
# A shorter grace period than the one that is running takes its place.
_SHORTER = 0.5


class PodWorker:
    """Runs one pod, known by its uid, until nothing of it is left on the node (`ended`)."""

    def __init__(self, node: NodeContext, pod: Pod, *, gone: bool = False) -> None:
        self._node = node
        self._pod = pod
        self._gone = gone
        self._said: dict[str, Any] | None = None
        self._woken = asyncio.Event()
        self._woken.set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._given_up: set[str] = set()
        self._deadlines: dict[str, float] = {}
        self._failures: dict[str, Failure] = {}
        self._messages: dict[str, str] = {}
        self._refresh_at = 0.0
        self._refreshed_for: tuple[Any, ...] = ()
        self._operator = PodOperator(node, lambda: self._pod)
        self._probes = PodProbes(node.prober, node.clock, self.wake, self._probe_failed)
        # Set once nothing of the pod is left here.
        self.ended = asyncio.Event()

    @property
    def pod(self) -> Pod:
        """The newest view of the object."""
        return self._pod

    def update(self, pod: Pod) -> None:
        """The object has changed."""
        if pod.revision >= self._pod.revision:
            self._pod = pod
            self.wake()

    def object_gone(self) -> None:
        """The object no longer exists: whatever runs must end."""
        self._gone = True
        self._node.statuses.forget(self._pod.uid)
        self.wake()

    def wake(self) -> None:
        """Look again."""
        self._woken.set()

    async def run(self) -> None:
        """Work until the pod has ended here."""
        try:
            async with asyncio.TaskGroup() as group:
                while not self.ended.is_set():
                    wait = await self._step(group)
                    await self._sleep(wait)
        finally:
            await self._probes.close()

    async def _sleep(self, seconds: float | None) -> None:
        if self.ended.is_set():
            return
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _step(self, group: asyncio.TaskGroup) -> float | None:
        self._woken.clear()
        await self._read_messages()
        facts = self._facts()
        if self._probes.sync(facts):
            facts = self._facts()
        decision = decide(facts)
        if decision.status is not None and not self._gone:
            where = f"{self._pod.name}_{self._pod.namespace}({self._pod.uid})"
            for name, text in newly_waiting(self._said, decision.status, where):
                self._operator.report("BackOff", text, warning=True, container=name)
            self._said = decision.status
            self._node.statuses.set(self._pod, decision.status)
        if decision.ending:
            self._give_up_starts()
        for action in decision.actions:
            self._begin(group, action)
        if not decision.ending and self._refresh_due():
            self._tasks[VOLUMES] = group.create_task(self._refresh(), name=f"{self._pod.key}-refresh")
        if decision.ended:
            self._end()
            return None
        return self._wait(decision)

    def _wait(self, decision: Decision) -> float | None:
        waits = []
        if decision.wake_at is not None:
            # A little later than that moment: a timer that fires early must not find nothing to do.
            waits.append(max(0.0, seconds_until(decision.wake_at, self._node.clock)) + 0.001)
        if not decision.ending and self._operator.volumes:
            waits.append(max(0.1, self._refresh_at - self._node.clock.monotonic()))
        return min(waits, default=None)

    def _end(self) -> None:
        if not self._gone:
            self._node.statuses.finish(self._pod)
        self.ended.set()

    # --- what there is

    def _facts(self) -> PodFacts:
        seen = self._node.observer.seen(self._pod.uid)
        pod = self._view()
        facts = PodFacts(
            pod=pod,
            now=self._node.clock.now(),
            sandboxes=seen.sandboxes,
            containers=seen.containers,
            host_ip=self._node.host.address,
            runtime_name=self._node.runtime_name,
            gone=self._gone,
            volumes_ready=self._operator.volumes is not None,
            busy=frozenset(self._tasks),
            probes=self._probes.states(),
            failures=dict(self._failures),
            messages=self._messages,
            torn_down=self._operator.torn_down,
        )
        sandbox = facts.sandbox
        if sandbox is None:
            return facts
        address = self._node.host.address if pod.spec.host_network else self._node.observer.address(sandbox.id)
        return replace(facts, address=address)

    def _view(self) -> Pod:
        """The pod with what this agent said last as its status: the API may not have it yet.

        Conditions of others, and an end that somebody else has declared, are the API's.
        """
        if self._said is None or self._pod.finished:
            return self._pod
        status = msgspec.convert(self._said, PodStatus)
        foreign = tuple(c for c in self._pod.status.conditions if c.type not in OWN)
        status = replaced(status, conditions=(*status.conditions, *foreign))
        return replaced(self._pod, status=status)

    async def _read_messages(self) -> None:
        containers = self._node.observer.seen(self._pod.uid).containers
        self._messages = {c.id: self._messages[c.id] for c in containers if c.id in self._messages}
        for container in containers:
            if container.state is ContainerState.EXITED and container.id not in self._messages:
                spec = spec_of(self._pod, container.name)
                self._messages[container.id] = await self._operator.termination_message(container, spec)

    def _probe_failed(self, container: str, reason: str, message: str) -> None:
        self._operator.report(reason, message, warning=True, container=container)

    # --- what is done

    def _begin(self, group: asyncio.TaskGroup, action: Action) -> None:
        if action.key in self._tasks:
            if isinstance(action, StopContainer):
                self._shorten(action)
            return
        if isinstance(action, StopContainer):
            self._deadlines[action.key] = self._node.clock.monotonic() + action.grace_seconds
        self._tasks[action.key] = group.create_task(self._execute(action), name=f"{self._pod.key}-{action.key}")

    def _shorten(self, action: StopContainer) -> None:
        deadline = self._node.clock.monotonic() + action.grace_seconds
        if deadline < self._deadlines.get(action.key, deadline) - _SHORTER:
            self._deadlines[action.key] = deadline
            self._give_up(action.key)

    def _give_up_starts(self) -> None:
        for key in self._operator.interruptible & self._tasks.keys():
            self._give_up(key)

    def _give_up(self, key: str) -> None:
        if key not in self._given_up:
            self._given_up.add(key)
            self._tasks[key].cancel()

    async def _execute(self, action: Action) -> None:
        key = action.key
        try:
            try:
                await self._operator.do(action)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if key not in self._given_up or task is None:
                    raise
                task.uncancel()
            except RuntimeFailure as failure:
                if not failure.unavailable:
                    self._failed(action, failure)
            except Exception as error:
                self._failed(action, error)
            else:
                self._succeeded(action)
            await self._node.observer.fresh()
        finally:
            self._tasks.pop(key, None)
            self._given_up.discard(key)
            self.wake()

    def _succeeded(self, action: Action) -> None:
        self._failures.pop(action.key, None)
        if isinstance(action, SetUpVolumes):
            self._refreshed_for = _fields(self._pod)
            self._refresh_at = self._node.clock.monotonic() + REFRESH_INTERVAL

    def _failed(self, action: Action, error: Exception) -> None:
        key = action.key
        failure = failures.after(key, error, self._failures.get(key), self._node.clock.now())
        self._failures[key] = failure
        if failure.reason == "InternalError":
            log.error("pod %s: %s failed", self._pod.key, key, exc_info=error)
        else:
            log.info("pod %s: %s failed: %s: %s", self._pod.key, key, failure.reason, error)
        if key == SANDBOX:
            self._operator.report("FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}", warning=True)
        elif key == VOLUMES:
            self._operator.report("FailedMount", str(error), warning=True)

    # --- volumes

    def _refresh_due(self) -> bool:
        """Whether the volumes' files are to be compared with the API again, or the pod's own fields have changed."""
        if self._operator.volumes is None or VOLUMES in self._tasks:
            return False
        return self._node.clock.monotonic() >= self._refresh_at or self._refreshed_for != _fields(self._pod)

    async def _refresh(self) -> None:
        self._refreshed_for = _fields(self._pod)
        self._refresh_at = self._node.clock.monotonic() + REFRESH_INTERVAL
        try:
            await self._node.volumes.refresh(self._pod)
        except Exception:
            log.exception("pod %s: its volumes could not be brought up to date", self._pod.key)
        finally:
            self._tasks.pop(VOLUMES, None)
            self.wake()


def _fields(pod: Pod) -> tuple[Any, ...]:
    """What of a pod can change and be seen in a downwardAPI volume."""
    return (sorted(pod.metadata.labels.items()), sorted(pod.metadata.annotations.items()))
