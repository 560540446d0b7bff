"""What the API machinery costs per object, in one process on one core, next to a plain JSON decode of the same bytes.

Prints one JSON line per figure: `name`, `value` (median microseconds of CPU), `unit`, `ratio` (to the plain decode,
measured in turn with it). Run with `python -m bench.machinery`.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from kybern.api import pruning, resources
from kybern.api.decoding import decode_json
from kybern.api.defaults import apply_defaults
from kybern.api.managed_fields import apply, track_update
from kybern.api.metadata import copy_json, encode, prepare_status_update, splice_resource_version
from kybern.api.patch import apply_patch
from kybern.api.resources import Resource
from kybern.api.schema import load
from kybern.api.validation import validate, validate_status
from kybern.client.interface import PatchType

Document = dict[str, Any]
NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
ROUNDS = 300
PER_ROUND = 20


def pod() -> Document:
    """A Pod as a Deployment's ReplicaSet makes it: one container, a probe, a token volume; 2.3 KB of JSON."""
    token = "kube-api-access-x7x7x"
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    container = {
        "name": "web",
        "image": "registry.example.com/team/web:1.25",
        "ports": [{"name": "http", "containerPort": 80}],
        "env": [
            {"name": "COLOUR", "value": "red"},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "resources": {"limits": {"cpu": "500m", "memory": "128Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}},
        "volumeMounts": [
            {"name": token, "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
        ],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
    }
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": "web-6d4b75cb6d",
        "uid": "a7709c6e-bba5-4f20",
        "controller": True,
        "blockOwnerDeletion": True,
    }
    seconds = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    document: Document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web-6d4b75cb6d-x2x4f",
            "generateName": "web-6d4b75cb6d-",
            "namespace": "default",
            "uid": "c7709c6e-bba5-4f20-8c40-abafa262607f",
            "creationTimestamp": "2026-11-20T10:00:00Z",
            "labels": {"app": "web", "pod-template-hash": "6d4b75cb6d"},
            "annotations": {"example.com/revision": "4"},
            "ownerReferences": [owner],
        },
        "spec": {
            "containers": [container],
            "volumes": [{"name": token, "projected": {"sources": sources}}],
            "serviceAccountName": "default",
            "nodeName": "n1",
            "priority": 0,
            "preemptionPolicy": "PreemptLowerPriority",
            "tolerations": [{"key": f"node.kubernetes.io/{k}", **seconds} for k in ("not-ready", "unreachable")],
        },
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    }  # fmt: skip
    apply_defaults(resources.PODS, document)
    return document


def running() -> Document:
    """The status that a node agent reports."""
    kinds = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    conditions = [{"type": k, "status": "True", "lastTransitionTime": "2026-11-20T10:00:01Z"} for k in kinds]
    container = {
        "name": "web", "ready": True, "restartCount": 0, "image": "web:1.25", "imageID": "sha256:00",
        "containerID": "docker://0123456789", "state": {"running": {"startedAt": "2026-11-20T10:00:01Z"}},
    }  # fmt: skip
    status = {"phase": "Running", "podIP": "10.244.1.7", "podIPs": [{"ip": "10.244.1.7"}], "hostIP": "10.0.0.1"}
    return {"status": {**status, "conditions": conditions, "containerStatuses": [container]}}


def lease() -> Document:
    """A node's sign of life."""
    spec = {"holderIdentity": "n1", "leaseDurationSeconds": 40, "renewTime": "2026-11-20T10:00:00.000000Z"}
    metadata = {"name": "n1", "namespace": "kube-node-lease", "uid": "u", "creationTimestamp": "2026-11-20T10:00:00Z"}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def create(resource: Resource, body: bytes) -> bytes:
    """All that a create does but admission and the store."""
    document, _ = decode_json(body)
    schema = load(resource)
    pruning.conform(schema, document)
    apply_defaults(resource, document)
    causes = validate(resource, document, None)
    assert not causes, causes
    track_update(schema, None, document, manager="m", api_version="v1", subresource="", now=NOW)
    return splice_resource_version(encode(document), 1234)


def patch_status(resource: Resource, stored: bytes, patch: bytes) -> bytes:
    """All that a status patch does but admission and the store."""
    schema = load(resource)
    old = msgspec.json.decode(stored)
    new = apply_patch(schema, old, msgspec.json.decode(patch), PatchType.STRATEGIC)
    pruning.conform(schema, new)
    new = prepare_status_update(new, old, resource=resource)
    causes = validate_status(resource, new, old)
    assert not causes, causes
    track_update(schema, old, new, manager="node", api_version="v1", subresource="status", now=NOW)
    return splice_resource_version(encode(new), 1234)


def renew(body: bytes, stored: bytes) -> bytes:
    """All that the renewal of a lease does but admission and the store."""
    schema = load(resources.LEASES)
    old = msgspec.json.decode(stored)
    new, _ = decode_json(body)
    pruning.conform(schema, new)
    apply_defaults(resources.LEASES, new)
    causes = validate(resources.LEASES, new, old)
    assert not causes, causes
    track_update(schema, old, new, manager="node", api_version="v1", subresource="", now=NOW)
    return splice_resource_version(encode(new), 1234)


def steps() -> dict[str, Callable[[], Any]]:
    """What is measured, by name."""
    document, schema = pod(), load(resources.PODS)
    raw = encode(document)
    stored_pod = create(resources.PODS, raw)
    old = msgspec.json.decode(stored_pod)
    status = json.dumps(running()).encode()
    patched = prepare_status_update(
        apply_patch(schema, old, running(), PatchType.STRATEGIC), old, resource=resources.PODS
    )
    crooked = encode({**document, "extra": None})
    stored_lease = create(resources.LEASES, encode(lease()))
    renewed = encode({**lease(), "spec": {**lease()["spec"], "renewTime": "2026-11-20T10:00:10.000000Z"}})
    config = {k: v for k, v in document.items() if k != "status"}

    def track() -> None:
        new = {**patched, "metadata": dict(patched["metadata"])}
        track_update(schema, old, new, manager="node", api_version="v1", subresource="status", now=NOW)

    def applied() -> None:
        apply(schema, old, config, manager="a", api_version="v1", subresource="", force=True, now=NOW)

    return {
        "pod_decode": lambda: decode_json(raw),
        "pod_conform": lambda: pruning.conform(schema, document),
        "pod_conform_with_an_unknown_field": lambda: pruning.conform(schema, msgspec.json.decode(crooked)),
        "pod_defaults": lambda: apply_defaults(resources.PODS, document),
        "pod_validate": lambda: validate(resources.PODS, document, None),
        "pod_encode": lambda: encode(document),
        "pod_splice": lambda: splice_resource_version(raw, 1234),
        "pod_copy": lambda: copy_json(document),
        "pod_status_track": track,
        "pod_apply": applied,
        "pod_create": lambda: create(resources.PODS, raw),
        "pod_status_patch": lambda: patch_status(resources.PODS, stored_pod, status),
        "lease_renew": lambda: renew(renewed, stored_lease),
    }


def microseconds(work: Callable[[], Any]) -> float:
    """CPU time of one run, as the mean of a few; other processes of the machine count less that way."""
    begin = time.process_time()
    for _ in range(PER_ROUND):
        work()
    return (time.process_time() - begin) / PER_ROUND * 1e6


def main() -> None:
    """Measure and print."""
    raw = encode(pod())
    print(json.dumps({"name": "machinery.pod_size", "value": len(raw), "unit": "B", "ratio": None}))
    for name, work in steps().items():
        work()
        mine, plain = [], []
        for _ in range(ROUNDS):
            mine.append(microseconds(work))
            plain.append(microseconds(lambda: msgspec.json.decode(raw)))
        value = statistics.median(mine)
        ratio = value / statistics.median(plain)
        print(
            json.dumps({"name": f"machinery.{name}", "value": round(value, 2), "unit": "us", "ratio": round(ratio, 2)})
        )


if __name__ == "__main__":
    main()
