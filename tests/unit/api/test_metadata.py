"""Object metadata, and the canonical bytes of a document."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from kybern.api import resources
from kybern.api.errors import StatusError
from kybern.api.metadata import (
    NAME_ALPHABET,
    bump_generation,
    copy_json,
    encode,
    generate_name,
    prepare_create,
    prepare_status_update,
    prepare_update,
    qos_class,
    splice_resource_version,
)
from kybern.api.resources import Resource
from tests.unit.api.objects import container, deployment, pod

Document = dict[str, Any]
NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)


def created(document: Document, resource: Resource = resources.DEPLOYMENTS, namespace: str = "default") -> Document:
    prepare_create(document, resource=resource, namespace=namespace, uid="u-1", now=NOW, rng=Random(1))
    return document


def test_a_new_object() -> None:
    sent = {
        "metadata": {
            "name": "web", "uid": "mine", "generation": 7, "creationTimestamp": "2020-01-01T00:00:00Z",
            "deletionTimestamp": "2020-01-01T00:00:00Z", "deletionGracePeriodSeconds": 5, "selfLink": "x",
            "labels": {"a": "b"},
        },
        "status": {"replicas": 9},
    }  # fmt: skip
    assert created(sent) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "web",
            "namespace": "default",
            "uid": "u-1",
            "generation": 1,
            "creationTimestamp": "2026-11-20T10:00:00Z",
            "labels": {"a": "b"},
        },
        "status": {},
    }


def test_only_some_kinds_count_generations() -> None:
    assert "generation" not in created({"metadata": {"name": "x"}}, resources.CONFIG_MAPS)["metadata"]


def test_names_are_made_up() -> None:
    name = created({"metadata": {"generateName": "web-"}})["metadata"]["name"]
    assert name.startswith("web-")
    assert len(name) == 9
    assert set(name[4:]) <= set(NAME_ALPHABET)
    long = generate_name("x" * 100, Random(1))
    assert len(long) == 63
    assert created({"metadata": {"name": "given", "generateName": "web-"}})["metadata"]["name"] == "given"


@pytest.mark.parametrize(
    ("document", "code", "message"),
    [
        ({}, 422, 'Deployment.apps "" is invalid: metadata.name: Required value: name or generateName is required'),
        ({"metadata": {"name": "x", "namespace": "other"}}, 400, "the namespace of the provided object does not match the namespace sent on the request"),
        ({"metadata": {"name": "x", "resourceVersion": "5"}}, 400, "resourceVersion should not be set on objects to be created"),
        ({"kind": "Pod", "metadata": {"name": "x"}}, 400, "the kind in the data (Pod) does not match the expected kind (Deployment)"),
        ({"apiVersion": "v1", "metadata": {"name": "x"}}, 400, "the API version in the data (v1) does not match the expected API version (apps/v1)"),
    ],
)  # fmt: skip
def test_what_contradicts_the_request_is_refused(document: Document, code: int, message: str) -> None:
    with pytest.raises(StatusError) as caught:
        created(document)
    assert caught.value.code == code
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("resource", "status"),
    [
        (resources.PODS, {"phase": "Pending", "qosClass": "BestEffort"}),
        (resources.REPLICA_SETS, {"replicas": 0}),
        (resources.SERVICES, {"loadBalancer": {}}),
        (resources.NAMESPACES, {"phase": "Active"}),
        (resources.NODES, {"phase": "as sent"}),
        (resources.CONFIG_MAPS, {"phase": "as sent"}),
    ],
)
def test_first_statuses(resource: Resource, status: Document) -> None:
    document: Document = {"metadata": {"name": "x"}, "status": {"phase": "as sent"}}
    created(document, resource, "default" if resource.namespaced else "")
    assert document["status"] == status
    assert ("namespace" in document["metadata"]) is resource.namespaced


CPU_AND_MEMORY = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [
        ([{}], "BestEffort"),
        ([{"requests": {"cpu": "0"}}], "BestEffort"),
        ([{"limits": CPU_AND_MEMORY}], "Guaranteed"),
        ([{"limits": CPU_AND_MEMORY, "requests": CPU_AND_MEMORY}], "Guaranteed"),
        ([{"limits": CPU_AND_MEMORY}, {}], "Burstable"),
        ([{"limits": CPU_AND_MEMORY, "requests": {"cpu": "500m"}}], "Burstable"),
        ([{"requests": {"cpu": "500m"}}], "Burstable"),
        ([{"limits": {"cpu": "1"}}], "Burstable"),
    ],
)
def test_classes_of_pods(listed: list[Document], wanted: str) -> None:
    spec = {"containers": [container(name=f"c{i}", resources=r) for i, r in enumerate(listed)]}
    assert qos_class(spec) == wanted


def stored(**spec: Any) -> Document:
    document = deployment(**spec)
    created(document)
    document["status"] = {"replicas": 1}
    return document


def test_an_update_keeps_what_servers_set_and_the_status() -> None:
    old = stored()
    new: Document = {
        "metadata": {"labels": {"a": "b"}, "generation": 9, "uid": "x", "resourceVersion": "5"},
        "spec": copy_json(old["spec"]),
        "status": {"replicas": 7},
    }
    prepare_update(new, old, resource=resources.DEPLOYMENTS)
    assert new["metadata"] == {
        "name": "web", "namespace": "default", "labels": {"a": "b"}, "uid": "u-1", "generation": 1,
        "creationTimestamp": "2026-11-20T10:00:00Z", "resourceVersion": "5",
    }  # fmt: skip
    assert new["status"] == {"replicas": 1}
    assert (new["apiVersion"], new["kind"]) == ("apps/v1", "Deployment")


def test_generations_count_changes_of_what_is_wanted() -> None:
    old = stored()
    for change, generation in (({"replicas": 5}, 2), ({}, 1)):
        new = copy_json(old)
        new["spec"].update(change)
        new["metadata"]["labels"] = {"x": "y"}
        new["status"] = {}
        bump_generation(new, old, resources.DEPLOYMENTS)
        assert new["metadata"]["generation"] == generation


def test_a_status_update_changes_the_status_alone() -> None:
    old = stored()
    sent = {
        "metadata": {"name": "web", "labels": {"x": "y"}, "resourceVersion": "5"},
        "spec": {},
        "status": {"replicas": 3},
    }
    before = copy_json(old)
    new = prepare_status_update(sent, old, resource=resources.DEPLOYMENTS)
    assert new == {**old, "metadata": {**old["metadata"], "resourceVersion": "5"}, "status": {"replicas": 3}}
    assert old == before
    assert "status" not in prepare_status_update({}, old, resource=resources.DEPLOYMENTS)


def test_canonical_bytes() -> None:
    document = {"spec": {"a": 1}, "metadata": {"name": "x", "resourceVersion": "5"}, "kind": "Pod", "apiVersion": "v1"}
    before = copy_json(document)
    raw = encode(document)
    assert raw == b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"a":1}}'
    assert document == before
    assert splice_resource_version(raw, 77) == (
        b'{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"77","name":"x"},"spec":{"a":1}}'
    )
    assert json.loads(splice_resource_version(encode({}), 1))["metadata"] == {"resourceVersion": "1"}


def test_copies_share_nothing() -> None:
    document = pod(volumes=[{"name": "a", "emptyDir": {}}])
    copied = copy_json(document)
    assert copied == document
    copied["spec"]["containers"][0]["name"] = "other"
    copied["spec"]["volumes"].clear()
    assert document == pod(volumes=[{"name": "a", "emptyDir": {}}])
