"""When a container that has ended is started again.

The first restart is immediate; the next waits 10 s, and each further one twice as long, up to five minutes. A container
that ran for ten minutes begins anew. Each attempt carries the wait that follows it in a label, so that nothing of this
is lost with the agent.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from kybern.api.types import Container as ContainerSpec
from node.agent.model import BACKOFF_LABEL, HASH_LABEL, is_sidecar
from node.runtime.interface import Container

FIRST = 10.0
LONGEST = 300.0
# A container that ran for so long is no longer taken for one that crashes in a loop.
FORGIVEN_AFTER = 600.0


def wanted_again(spec: ContainerSpec, ended: Container, policy: str, *, init: bool) -> bool:
    """Whether a container that ended is to be started again."""
    if init and is_sidecar(spec):
        return True
    failed = ended.exit_code != 0
    if init:
        return failed and policy != "Never"
    return policy == "Always" or (policy == "OnFailure" and failed)


def wait_after(ended: Container) -> float:
    """Seconds between the end of this attempt and the next one."""
    if (
        ended.started_at
        and ended.finished_at
        and (ended.finished_at - ended.started_at).total_seconds() >= FORGIVEN_AFTER
    ):
        return 0.0
    try:
        return min(LONGEST, max(0.0, float(ended.labels.get(BACKOFF_LABEL, "0"))))
    except ValueError:
        return 0.0


def restart_at(ended: Container) -> datetime:
    """When the next attempt may start."""
    return (ended.finished_at or ended.created_at) + timedelta(seconds=wait_after(ended))


def next_wait(ended: Container | None) -> float:
    """What the attempt after `ended` carries as its own wait; 0 for the first attempt of all."""
    if ended is None:
        return 0.0
    wait = wait_after(ended)
    return min(LONGEST, wait * 2) if wait else FIRST


def spec_hash(spec: ContainerSpec) -> str:
    """Hash of what can be changed in a running pod and needs a new container: the image."""
    return hashlib.sha256(f"{spec.name}\0{spec.image}".encode()).hexdigest()[:16]


def has_changed(spec: ContainerSpec, running: Container) -> bool:
    """Whether the container was made from another image than the pod wants now."""
    made_from = running.labels.get(HASH_LABEL)
    return made_from is not None and made_from != spec_hash(spec)
