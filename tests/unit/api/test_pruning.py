"""Unknown fields, nulls, wrong types, missing fields, canonical scalars."""

from __future__ import annotations

from typing import Any

import pytest

from kybern.api import resources, schema
from kybern.api.errors import CauseType
from kybern.api.pruning import check, conform, duplicate_fields, malformed, prune, strict_error
from kybern.api.schema import Schema, SchemaType
from kybern.api.schema.strict import has_fast_check
from tests.unit.api.objects import deployment, pod, service

PODS = schema.load(resources.PODS)
DEPLOYMENTS = schema.load(resources.DEPLOYMENTS)


def test_a_document_in_order_is_left_alone() -> None:
    document = pod()
    before = pod()
    assert (prune(PODS, document), check(PODS, document), document) == ([], [], before)


def test_unknown_fields_are_dropped_and_named_as_kubernetes_names_them() -> None:
    document = deployment()
    document["extra"] = 1
    document["spec"]["replicaz"] = 3
    document["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "prot": "TCP"}]
    assert sorted(prune(DEPLOYMENTS, document)) == [
        'unknown field "extra"',
        'unknown field "spec.replicaz"',
        'unknown field "spec.template.spec.containers[0].ports[0].prot"',
    ]
    assert document["spec"]["template"]["spec"]["containers"][0]["ports"] == [{"containerPort": 80}]
    assert "extra" not in document
    assert "replicaz" not in document["spec"]


def test_names_of_fields_are_compared_exactly() -> None:
    document = deployment()
    document["spec"]["Replicas"] = 3
    assert prune(DEPLOYMENTS, document) == ['unknown field "spec.Replicas"']


def test_nulls_are_dropped_and_in_maps_and_lists_are_zero_values() -> None:
    document = pod()
    document["metadata"]["creationTimestamp"] = None
    document["metadata"]["labels"] = {"a": None}
    document["spec"]["nodeName"] = None
    document["spec"]["containers"][0]["args"] = ["x", None]
    document["spec"]["volumes"] = [None]
    assert prune(PODS, document) == []
    assert document["metadata"] == {"name": "web", "namespace": "default", "labels": {"a": ""}}
    assert "nodeName" not in document["spec"]
    assert document["spec"]["containers"][0]["args"] == ["x", ""]
    assert document["spec"]["volumes"] == [{}]


def test_free_form_fields_keep_everything() -> None:
    document = pod()
    document["metadata"]["managedFields"] = [{"manager": "a", "fieldsV1": {"f:x": {}, "y": None}}]
    assert prune(PODS, document) == []
    assert document["metadata"]["managedFields"][0]["fieldsV1"] == {"f:x": {}, "y": None}


def set_at(document: Any, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for step in parents:
        document = document[int(step) if step.isdigit() else step]
    document[last] = value


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        ("spec.containers", {}, "spec.containers", "Invalid value: {...}: must be a list, not an object"),
        ("spec.containers.0.name", 1, "spec.containers[0].name", "Invalid value: 1: must be a string, not an integer"),
        ("spec.containers.0.stdin", "yes", "spec.containers[0].stdin", 'Invalid value: "yes": must be a boolean, not a string'),
        ("spec.containers.0.resources", [], "spec.containers[0].resources", "Invalid value: [...]: must be an object, not a list"),
        ("spec.priority", "1", "spec.priority", 'Invalid value: "1": must be an integer (int32), not a string'),
        ("spec.priority", 1.5, "spec.priority", "Invalid value: 1.5: must be an integer (int32), not a number"),
        ("spec.priority", True, "spec.priority", "Invalid value: true: must be an integer (int32), not a boolean"),
        ("spec.priority", 2**31, "spec.priority", "Invalid value: 2147483648: must be between -2147483648 and 2147483647, inclusive"),
        ("metadata.labels", {"a": 1}, "metadata.labels.a", "Invalid value: 1: must be a string, not an integer"),
        ("metadata.creationTimestamp", "now", "metadata.creationTimestamp", 'Invalid value: "now": must be a date and time as in RFC 3339'),
        ("metadata.creationTimestamp", "2026-02-30T00:00:00Z", "metadata.creationTimestamp", "must be a date and time that exists"),
        ("spec.overhead", {"cpu": "much"}, "spec.overhead.cpu", "quantities must match the regular expression"),
        ("spec.overhead", {"cpu": []}, "spec.overhead.cpu", "must be a quantity (a string or a number), not a list"),
    ],
)  # fmt: skip
def test_wrong_values(path: str, value: Any, field: str, message: str) -> None:
    document = pod()
    set_at(document, path, value)
    (cause,) = check(PODS, document)
    assert cause.field == field
    assert message in cause.message


def test_wrong_base64() -> None:
    secrets = schema.load(resources.SECRETS)
    (cause,) = check(secrets, {"data": {"a": "not base64"}})
    assert str(cause) == 'data.a: Invalid value: "not base64": must be base64 (RFC 4648, with padding)'


def test_ports_are_integers_or_names() -> None:
    services = schema.load(resources.SERVICES)
    document = service(ports=[{"port": 80, "targetPort": 1.5}])
    (cause,) = check(services, document)
    assert cause.field == "spec.ports[0].targetPort"
    assert "must be an integer or a string" in cause.message


def test_missing_fields() -> None:
    document = deployment()
    del document["spec"]["selector"]
    del document["spec"]["template"]["spec"]["containers"][0]["name"]
    causes = check(DEPLOYMENTS, document)
    assert {(c.field, c.reason, c.message) for c in causes} == {
        ("spec.selector", CauseType.REQUIRED, "Required value"),
        ("spec.template.spec.containers[0].name", CauseType.REQUIRED, "Required value"),
    }


def test_a_partial_document_need_not_be_complete_and_stays_so() -> None:
    document = {
        "spec": {"template": {"spec": {"containers": [{"image": "x", "foo": 1}]}}},
        "status": {"conditions": [{}]},
    }
    found = conform(DEPLOYMENTS, document, partial=True)
    assert (found.unknown, found.causes) == (['unknown field "spec.template.spec.containers[0].foo"'], [])
    assert document == {
        "spec": {"template": {"spec": {"containers": [{"image": "x"}]}}},
        "status": {"conditions": [{}]},
    }


def test_scalars_become_canonical() -> None:
    document = pod(activeDeadlineSeconds=3.0, overhead={"cpu": 0.5, "memory": "1024Mi", "other": 1000})
    document["metadata"]["creationTimestamp"] = "2026-11-20T09:24:28.123456789+01:00"
    assert conform(PODS, document) == conform(PODS, pod())
    assert document["metadata"]["creationTimestamp"] == "2026-11-20T08:24:28Z"
    assert document["spec"]["overhead"] == {"cpu": "500m", "memory": "1Gi", "other": "1k"}
    assert repr(document["spec"]["activeDeadlineSeconds"]) == "3"
    lease = {"spec": {"renewTime": "2026-11-20T10:00:00Z"}}
    assert prune(schema.load(resources.LEASES), lease) == []
    assert lease == {"spec": {"renewTime": "2026-11-20T10:00:00.000000Z"}}


def test_statuses_get_the_counts_that_every_reader_expects() -> None:
    sets = schema.load(resources.REPLICA_SETS)
    document: dict[str, Any] = {"spec": {"selector": {}}, "status": {"readyReplicas": 1}}
    assert check(sets, document) == []
    assert document["status"] == {"readyReplicas": 1, "replicas": 0}
    status = {"containerStatuses": [{"name": "web"}]}
    pods = {**pod(), "status": status}
    assert check(PODS, pods) == []
    assert status["containerStatuses"] == [
        {"name": "web", "image": "", "imageID": "", "ready": False, "restartCount": 0}
    ]


def test_the_errors_say_what_was_sent_and_what_is_wrong() -> None:
    complaints = ['unknown field "spec.foo"', *duplicate_fields(["spec.replicas"])]
    error = strict_error(resources.DEPLOYMENTS, complaints)
    assert (error.code, error.reason) == (400, "BadRequest")
    assert error.message == (
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: '
        'unknown field "spec.foo", duplicate field "spec.replicas"'
    )
    document = deployment(replicas="two")
    error = malformed(resources.DEPLOYMENTS, check(DEPLOYMENTS, document))
    assert error.code == 400
    assert error.message == (
        'Deployment in version "v1" cannot be handled as a Deployment: '
        'spec.replicas: Invalid value: "two": must be an integer (int32), not a string'
    )
    assert error.document()["details"]["causes"][0]["field"] == "spec.replicas"


def test_very_many_unknown_fields_are_not_all_listed() -> None:
    document = {**pod(), **{f"x{i}": i for i in range(500)}}
    assert len(prune(PODS, document)) == 100
    assert document == pod()


def test_schemas_without_a_fast_check() -> None:
    props = schema.load_definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    assert not has_fast_check(props)
    document = {"properties": {"a": {"type": "object", "foo": 1}}}
    assert prune(props, document) == ['unknown field "properties.a.foo"']
    both = Schema(SchemaType.OBJECT, preserve_unknown=True, properties={"known": Schema(SchemaType.INTEGER)})
    assert not has_fast_check(both)
    assert prune(both, {"known": 1, "other": None}) == []
    assert [c.field for c in check(both, {"known": "x", "other": 1})] == ["known"]
