"""Defaults of the apps group."""

from __future__ import annotations

from typing import Any

from kybern.api.defaults import pods


def deployment(document: dict[str, Any]) -> None:
    """Defaults of a Deployment."""
    spec = document.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    pods.pod_template(spec.setdefault("template", {}))


def replica_set(document: dict[str, Any]) -> None:
    """Defaults of a ReplicaSet."""
    spec = document.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    if "template" in spec:
        pods.pod_template(spec["template"])
