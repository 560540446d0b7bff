"""Typed views read documents as the API keeps them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from kybern.api import types
from kybern.api.metadata import encode
from kybern.client import kinds
from kybern.key import Key
from tests.unit.api.objects import container, deployment, pod, service


def read(kind: kinds.Kind[Any], document: dict[str, Any]) -> Any:
    return kind.read(encode(document))


def test_a_pod() -> None:
    document = pod(
        nodeName="n1",
        hostPID=True,
        containers=[
            container(
                ports=[{"containerPort": 80, "name": "http"}],
                readinessProbe={"httpGet": {"port": "http"}},
                env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}}],
                resources={"limits": {"cpu": "1", "memory": 64}},
            )
        ],
        volumes=[{"name": "d", "downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "metadata.name"}}]}}],
    )
    document["metadata"].update(uid="u", creationTimestamp="2026-11-20T10:00:00Z", labels={"a": "b"})
    document["status"] = {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-20T10:00:00Z"}],
        "containerStatuses": [
            {"name": "web", "containerID": "docker://x", "state": {"running": {"startedAt": "2026-11-20T10:00:00Z"}}}
        ],
    }
    view = read(kinds.PODS, document)
    assert (view.key, view.uid, view.metadata.labels) == (Key("default", "web"), "u", {"a": "b"})
    assert view.metadata.creation_timestamp == datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert (view.spec.node_name, view.spec.host_pid, view.spec.restart_policy) == ("n1", True, "Always")
    (made,) = view.spec.containers
    assert made.ports[0].container_port == 80
    assert (made.readiness_probe.http_get.port, made.readiness_probe.period_seconds) == ("http", 10)
    assert made.env[0].value_from.secret_key_ref.optional
    assert made.resources.limits == {"cpu": "1", "memory": 64}
    assert view.spec.volumes[0].downward_api.items[0].field_ref.field_path == "metadata.name"
    assert (view.ready, view.finished, view.deleting) == (True, False, False)
    assert view.status.container_statuses[0].container_id == "docker://x"
    assert view.condition("Ready").true
    assert view.condition("Other") is None


def test_a_deployment_and_a_service() -> None:
    view = read(kinds.DEPLOYMENTS, deployment(strategy={"rollingUpdate": {"maxSurge": 1}}))
    assert (view.spec.replicas, view.spec.strategy.rolling_update.max_surge) == (1, 1)
    assert view.spec.template["spec"]["containers"][0]["name"] == "web"
    svc = read(kinds.SERVICES, service(clusterIP="None", publishNotReadyAddresses=True))
    assert svc.spec.headless
    assert svc.spec.publish_not_ready_addresses
    assert svc.spec.ports[0].target_port == 80


def test_absent_fields_have_their_meaning() -> None:
    view = types.decode(b'{"metadata":{"name":"x"}}', types.Pod)
    assert (view.spec.termination_grace_period_seconds, view.spec.enable_service_links, view.revision) == (30, True, 0)
    assert view.controller is None


def test_owners() -> None:
    document = deployment()
    document["metadata"]["uid"] = "u-1"
    owner = read(kinds.DEPLOYMENTS, document).owner_reference()
    child = pod()
    child["metadata"]["ownerReferences"] = [{**owner, "controller": False}, owner]
    found = read(kinds.PODS, child).controller
    assert (found.kind, found.name, found.uid, found.api_version) == ("Deployment", "web", "u-1", "apps/v1")


def test_views_refuse_wrong_types() -> None:
    with pytest.raises(msgspec.ValidationError, match="replicas"):
        types.decode(b'{"spec":{"replicas":"two"}}', types.Deployment)
