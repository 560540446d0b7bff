"""Node.status as this agent sees it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kybern.api import quantity
from kybern.api.types import Condition
from kybern.clock import rfc3339
from kybern.config.models import NodeConfig
from node.agent.host import Capacity, Pressure

# Below these the node says that it is under pressure.
_LEAST_MEMORY = 100 * 2**20
_LEAST_DISK = 0.05
_MOST_PROCESSES = 0.9


@dataclass(frozen=True, slots=True)
class Health:
    """What the node's parts say; a problem is empty when there is none."""

    runtime_problem: str = ""
    network_problem: str = ""


def resources_of(config: NodeConfig, host: Capacity) -> tuple[dict[str, str], dict[str, str]]:
    """Capacity, and what of it is for pods."""
    reserved_cpu = quantity.milli(config.reserved.get("cpu"))
    reserved_memory = quantity.whole(config.reserved.get("memory"))
    capacity = {
        "cpu": _cpu(host.cpu_milli),
        "memory": f"{host.memory_bytes // 1024}Ki",
        "ephemeral-storage": f"{host.storage_bytes // 1024}Ki",
        "pods": str(config.max_pods),
    }
    allocatable = {
        **capacity,
        "cpu": _cpu(max(0, host.cpu_milli - reserved_cpu)),
        "memory": f"{max(0, host.memory_bytes - reserved_memory) // 1024}Ki",
    }
    return capacity, allocatable


def _cpu(milli: int) -> str:
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def conditions_of(
    health: Health, pressure: Pressure, before: Sequence[Condition], now: datetime
) -> list[dict[str, Any]]:
    """All conditions. A transition's time stays as long as the status does."""
    low_memory = pressure.memory_available < _LEAST_MEMORY
    low_disk = pressure.disk_available < pressure.disk_total * _LEAST_DISK
    low_pids = bool(pressure.most_processes) and pressure.processes > pressure.most_processes * _MOST_PROCESSES
    problems = [p for p in (health.runtime_problem, health.network_problem) if p]
    if not problems:
        ready = _condition("Ready", True, "KubeletReady", "the node agent is posting ready status")
    else:
        reason = "ContainerRuntimeNotReady" if health.runtime_problem else "NetworkNotReady"
        ready = _condition("Ready", False, reason, "; ".join(problems))
    network = (
        _condition("NetworkUnavailable", True, "NetworkNotReady", health.network_problem)
        if health.network_problem
        else _condition("NetworkUnavailable", False, "NetworkReady", "the pod network is ready")
    )
    fresh = [
        _pressure("Memory", "memory", low_memory),
        _pressure("Disk", "disk space", low_disk),
        _pressure("PID", "process numbers", low_pids),
        network,
        ready,
    ]
    known = {c.type: c for c in before}
    for condition in fresh:
        old = known.get(condition["type"])
        same = old is not None and old.status == condition["status"] and old.last_transition_time is not None
        since = old.last_transition_time if old is not None and same and old.last_transition_time else now
        condition["lastTransitionTime"] = rfc3339(since)
        condition["lastHeartbeatTime"] = rfc3339(now)
    return fresh


def without_heartbeats(status: Mapping[str, Any]) -> dict[str, Any]:
    """The status less what changes by itself, to see whether anything else has."""
    conditions = [
        {k: v for k, v in c.items() if k not in ("lastHeartbeatTime", "lastTransitionTime")}
        for c in status["conditions"]
    ]
    return {**status, "conditions": conditions}


def _condition(kind: str, holds: bool, reason: str, message: str) -> dict[str, Any]:
    return {"type": kind, "status": "True" if holds else "False", "reason": reason, "message": message}


def _pressure(kind: str, what: str, low: bool) -> dict[str, Any]:
    if low:
        return _condition(f"{kind}Pressure", True, f"NodeHasInsufficient{kind}", f"the node runs out of {what}")
    return _condition(f"{kind}Pressure", False, f"NodeHasSufficient{kind}", f"the node has enough {what}")
