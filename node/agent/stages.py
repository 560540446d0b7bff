"""How far a pod has come: which containers have started, whether its init containers are done."""

from __future__ import annotations

from kybern.api.types import Container as ContainerSpec
from node.agent.model import PodFacts, container_key, is_sidecar
from node.agent.restarts import wanted_again
from node.runtime.interface import Container, ContainerState


def started(facts: PodFacts, container: Container | None) -> bool:
    """Whether a container runs, its postStart hook has ended and its startup probe has succeeded."""
    if container is None or container.state is not ContainerState.RUNNING:
        return False
    if container_key(container.name) in facts.busy:
        return False
    probe = facts.probes.get(container.name)
    return probe is None or probe.started


def effective(facts: PodFacts, spec: ContainerSpec) -> Container | None:
    """The attempt that counts for a container of the pod.

    An end that the restart policy takes for final stays so, also when it came in an earlier sandbox.
    """
    current = facts.current(spec.name)
    if current is not None:
        return current
    latest = facts.latest(spec.name)
    if latest is None or latest.state is not ContainerState.EXITED:
        return None
    return None if wanted_again(spec, latest, facts.pod.spec.restart_policy, init=False) else latest


def outcome(facts: PodFacts) -> str:
    """The phase of a pod whose containers have all ended for good; empty while that is not so."""
    policy = facts.pod.spec.restart_policy
    if any(key.startswith("container/") for key in facts.busy):
        return ""
    for spec in facts.pod.spec.init_containers:
        container = facts.current(spec.name)
        if is_sidecar(spec) or container is None or container.state is not ContainerState.EXITED:
            continue
        if container.exit_code != 0 and not wanted_again(spec, container, policy, init=True):
            return "Failed"
    good = True
    for spec in facts.pod.spec.containers:
        container = effective(facts, spec)
        if container is None or container.state is not ContainerState.EXITED:
            return ""
        if wanted_again(spec, container, policy, init=False):
            return ""
        good = good and container.exit_code == 0
    return "Succeeded" if good else "Failed"


def init_done(facts: PodFacts) -> bool:
    """Whether the pod's other containers may run.

    Once one of them exists in the present sandbox, they may: an init container whose remains were cleaned up does not
    run again.
    """
    return not incomplete_init(facts)


def incomplete_init(facts: PodFacts) -> list[str]:
    """Names of the init containers that are still to be waited for."""
    if any(facts.current(spec.name) is not None for spec in facts.pod.spec.containers):
        return []
    waiting = []
    for spec in facts.pod.spec.init_containers:
        container = facts.current(spec.name)
        if is_sidecar(spec):
            done = started(facts, container)
        else:
            done = container is not None and container.state is ContainerState.EXITED and container.exit_code == 0
        if not done:
            waiting.append(spec.name)
    return waiting
