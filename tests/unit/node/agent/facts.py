"""Facts about pods for tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from kybern.api.types import Pod
from node.agent.model import BACKOFF_LABEL, HASH_LABEL, PodFacts, spec_of
from node.agent.restarts import spec_hash
from node.runtime.interface import Container, ContainerState, PodIdentity, Sandbox

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
POD = PodIdentity("default", "p", "uid")
SANDBOX = Sandbox("s1", POD, 0, True, NOW - timedelta(hours=1), Path("/ns"))


def pod(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = (), **more: Any) -> Pod:
    """A pod; `more` goes into its spec, but for `metadata` and `status`."""
    document = {
        "metadata": {"name": "p", "namespace": "default", "uid": "uid", "generation": 3, **more.pop("metadata", {})},
        "status": more.pop("status", {}),
        "spec": {"containers": containers or [container()], "initContainers": init, **more},
    }
    return msgspec.convert(document, Pod)


def container(name: str = "main", **more: Any) -> dict[str, Any]:
    """A container of a pod."""
    return {"name": name, "image": "image:1", **more}


def running(name: str = "main", attempt: int = 0, seconds: float = 60, **more: Any) -> Container:
    """A container that has been running for a while."""
    begun = NOW - timedelta(seconds=seconds)
    return _container(name, attempt, ContainerState.RUNNING, started_at=begun, created_at=begun, **more)


def exited(
    name: str = "main", code: int = 0, attempt: int = 0, ago: float = 0, ran: float = 1, **more: Any
) -> Container:
    """A container that ended some seconds ago."""
    end = NOW - timedelta(seconds=ago)
    begun = end - timedelta(seconds=ran)
    return _container(
        name,
        attempt,
        ContainerState.EXITED,
        started_at=begun,
        created_at=begun,
        finished_at=end,
        exit_code=code,
        **more,
    )


def created(name: str = "main", attempt: int = 0, **more: Any) -> Container:
    """A container that was made and not started."""
    return _container(name, attempt, ContainerState.CREATED, created_at=NOW, **more)


def _container(name: str, attempt: int, state: ContainerState, *, backoff: float = 0, **more: Any) -> Container:
    sandbox = more.pop("sandbox", "s1")
    labels = more.pop("labels", {BACKOFF_LABEL: f"{backoff:g}"})
    key = more.pop("id", f"{name}-{attempt}")
    return Container(key, sandbox, POD, name, attempt, state, "image:1", "sha256:1", labels=labels, **more)


def facts(wanted: Pod, *containers: Container, **more: Any) -> PodFacts:
    """A pod in a sandbox with an address and its volumes, unless said otherwise."""
    labelled = []
    for one in containers:
        spec = spec_of(wanted, one.name)
        known = HASH_LABEL in one.labels or spec is None
        labelled.append(
            one if known or spec is None else replace(one, labels={**one.labels, HASH_LABEL: spec_hash(spec)})
        )
    defaults: dict[str, Any] = {
        "now": NOW,
        "sandboxes": (SANDBOX,),
        "address": "10.244.0.2",
        "host_ip": "192.168.7.11",
        "volumes_ready": True,
    }
    return PodFacts(wanted, containers=tuple(labelled), **{**defaults, **more})
