"""Numbers out of a google.protobuf.Struct."""

from __future__ import annotations

from typing import Any

from google.protobuf import struct_pb2
from google.protobuf.json_format import MessageToDict

from kybern.api import resources, schema
from kybern.api.pruning import conform
from kybern.api.struct_numbers import restore_numbers
from tests.unit.api.objects import container, deployment

DEPLOYMENTS = schema.load(resources.DEPLOYMENTS)


def through_struct(document: dict[str, Any]) -> dict[str, Any]:
    message = struct_pb2.Struct()
    message.update(document)
    result: dict[str, Any] = {}
    for key, value in message.fields.items():
        result[key] = MessageToDict(value)
    return result


def restored(kind: schema.Schema, document: dict[str, Any]) -> dict[str, Any]:
    restore_numbers(kind, document)
    return document


def test_a_document_comes_back() -> None:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [container(ports=[{"containerPort": 80}], livenessProbe={"httpGet": {"port": 80}})]},
    }
    document = deployment(strategy={"rollingUpdate": {"maxSurge": 2, "maxUnavailable": "25%"}}, template=template)
    back = restored(DEPLOYMENTS, through_struct(document))
    assert back == document
    assert repr(back["spec"]["replicas"]) == "1"
    assert repr(back["spec"]["strategy"]["rollingUpdate"]["maxSurge"]) == "2"
    container_ = back["spec"]["template"]["spec"]["containers"][0]
    assert repr(container_["livenessProbe"]["httpGet"]["port"]) == "80"
    assert repr(container_["ports"][0]["containerPort"]) == "80"


def test_large_integers_travel_as_text() -> None:
    document = {"metadata": {"generation": "9007199254740993", "name": "12"}, "spec": {"replicas": "3"}}
    assert restored(DEPLOYMENTS, document) == {
        "metadata": {"generation": 9007199254740993, "name": "12"},
        "spec": {"replicas": 3},
    }


def test_text_in_fields_of_text_stays_text() -> None:
    limits = {"cpu": "1", "memory": 64.0, "other": 0.5}
    pods = schema.load(resources.PODS)
    document = {
        "spec": {"containers": [{"name": "1", "resources": {"limits": limits}, "env": [{"name": "A", "value": "1"}]}]}
    }
    made = restored(pods, document)["spec"]["containers"][0]
    assert made["name"] == "1"
    assert made["env"] == [{"name": "A", "value": "1"}]
    assert {k: repr(v) for k, v in made["resources"]["limits"].items()} == {
        "cpu": "'1'",
        "memory": "64",
        "other": "0.5",
    }
    conform(pods, document)
    assert limits == {"cpu": "1", "memory": "64", "other": "500m"}


def test_what_is_no_number_is_left_for_the_check() -> None:
    document = {"spec": {"replicas": "two", "paused": 1.5, "minReadySeconds": 1.5}}
    restore_numbers(DEPLOYMENTS, document)
    assert document == {"spec": {"replicas": "two", "paused": 1.5, "minReadySeconds": 1.5}}
    assert {c.field for c in conform(DEPLOYMENTS, document, partial=True).causes} == {
        "spec.replicas",
        "spec.paused",
        "spec.minReadySeconds",
    }


def test_unknown_and_free_form_fields() -> None:
    document = {"extra": {"a": [1.0, 2.5, {"b": 3.0}]}}
    restore_numbers(DEPLOYMENTS, document)
    assert repr(document) == "{'extra': {'a': [1, 2.5, {'b': 3}]}}"
