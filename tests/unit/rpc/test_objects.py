"""Objects on the wire: nothing is lost on the way there and back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kybern.api import resources
from kybern.api.errors import StatusError
from kybern.api.schema import load
from kybern.pb.v1 import objects_pb2 as pb
from kybern.rpc.objects import body_schema, from_object, to_object

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "resourceVersion": "7",
        "name": "p",
        "generateName": "p-",
        "namespace": "default",
        "uid": "u",
        "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "deletionTimestamp": "2026-01-02T00:00:00Z",
        "deletionGracePeriodSeconds": 0,
        "labels": {"a": "b"},
        "annotations": {"c": "d"},
        "finalizers": ["x/y"],
        "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u2", "controller": True}
        ],
        "managedFields": [
            {
                "manager": "m",
                "operation": "Update",
                "apiVersion": "v1",
                "time": "2026-01-01T00:00:00Z",
                "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:containers": {'k:{"name":"c"}': {".": {}}}}},
            }
        ],
    },
    "spec": {
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "stdin": False}],
        "terminationGracePeriodSeconds": 30,
        "activeDeadlineSeconds": (1 << 53) + 1,
        "priority": -(1 << 30),
        "volumes": [{"name": "v", "emptyDir": {}}],
        "nodeSelector": {"number": "9007199254740993"},
    },
    "status": {"podIPs": []},
}


def read(message: pb.Object) -> Any:
    return msgspec.json.decode(from_object(message, load(resources.PODS)))


def test_fields_bring_back_the_same_document() -> None:
    message = to_object(msgspec.json.encode(POD), pb.ENCODING_FIELDS)
    assert message.kind == "Pod"
    assert message.metadata.owner_references[0].controller
    # A text that looks like a number stays a text; a number beyond 2^53 comes back exactly.
    assert read(message) == POD
    assert read(pb.Object.FromString(message.SerializeToString())) == POD


def test_json_passes_through() -> None:
    raw = msgspec.json.encode(POD)
    assert from_object(to_object(raw, pb.ENCODING_JSON), load(resources.PODS)) == raw


def test_an_object_of_nothing_but_metadata() -> None:
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    message = to_object(msgspec.json.encode(document), pb.ENCODING_FIELDS)
    assert message.WhichOneof("body") == "fields"
    assert msgspec.json.decode(from_object(message, load(resources.CONFIG_MAPS))) == document
    assert msgspec.json.decode(from_object(pb.Object(), load(resources.CONFIG_MAPS))) == {"metadata": {}}


def test_what_json_does_not_have_is_refused() -> None:
    message = pb.Object()
    message.fields["spec"] = float("nan")
    with pytest.raises(StatusError, match="cannot be read") as caught:
        from_object(message, load(resources.PODS))
    assert caught.value.code == 400
    message = pb.Object()
    message.metadata.managed_fields.add(fields_v1="{")
    with pytest.raises(StatusError, match="fields_v1 is not JSON"):
        from_object(message, load(resources.PODS))


def test_bodies_of_subresources_have_their_own_schema() -> None:
    assert "target" in body_schema(resources.PODS, "binding").properties
    assert body_schema(resources.DEPLOYMENTS, "scale").definition.endswith("autoscaling.v1.Scale")
    assert body_schema(resources.PODS, "status") is load(resources.PODS)
