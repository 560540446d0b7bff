"""Nodes and pods for tests of the scheduler."""

from __future__ import annotations

from typing import Any

import msgspec

from kybern.api.types import Node, Pod, decode
from master.scheduler.pods import PodInfo, compile_pod
from master.scheduler.snapshot import Snapshot

NAMESPACE = "default"


def node_document(name: str, *, cpu: str = "4", memory: str = "8Gi", pods: str = "110", **more: Any) -> dict[str, Any]:
    have = {"cpu": cpu, "memory": memory, "pods": pods, **more.pop("extra", {})}
    labels = {"kubernetes.io/hostname": name, **more.pop("labels", {})}
    ready = [{"type": "Ready", "status": more.pop("ready", "True")}]
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": more,
        "status": {"allocatable": have, "conditions": ready},
    }


def node(name: str, **more: Any) -> Node:
    return decode(msgspec.json.encode(node_document(name, **more)), Node)


def pod_document(name: str, *, labels: dict[str, str] | None = None, owner: str = "", **spec: Any) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "c", "resources": {"requests": spec.pop("requests", {})}}
    if ports := spec.pop("ports", None):
        container["ports"] = ports
    meta: dict[str, Any] = {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}", "labels": labels or {}}
    if owner:
        meta["ownerReferences"] = [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": True}
        ]
    return {"metadata": meta, "spec": {"containers": [container], **spec}, "status": {}}


def info(name: str, **more: Any) -> PodInfo:
    pod = decode(msgspec.json.encode(pod_document(name, **more)), Pod)
    return compile_pod(pod, lambda _: frozenset())


def snapshot(*nodes: Node) -> Snapshot:
    result = Snapshot()
    for each in nodes:
        result.set_node(each)
    return result
