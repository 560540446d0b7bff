"""The real kubectl reads our OpenAPI and discovery, and we read what it sends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kybern.api.protobuf import MEDIA_TYPE
from tests.integration.api.conftest import Kubectl

HELLO = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello, labels: {app: hello}}
spec:
  replicas: 2
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers:
      - {name: hello, image: "nginx:1", ports: [{containerPort: 80}], resources: {limits: {cpu: 500m, memory: 64Mi}}}
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec: {selector: {app: hello}, ports: [{port: 80}]}
"""


async def read(kubectl: Kubectl, *what: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(await kubectl("get", *what, "-o", "json", "--show-managed-fields"))
    return result


# --- explain


async def test_explain(kubectl: Kubectl) -> None:
    text = await kubectl("explain", "pod")
    assert "KIND:       Pod\nVERSION:    v1" in text
    assert "spec\t<PodSpec>" in text
    assert "Specification of the desired behavior of the pod." in text
    text = await kubectl("explain", "deployment.spec.template.spec.containers.ports.containerPort")
    assert "FIELD: containerPort <integer>" in text
    text = await kubectl("explain", "svc.spec.ports.targetPort")
    assert "FIELD: targetPort <IntOrString>" in text
    text = await kubectl("explain", "pod.spec.containers.resources.limits")
    assert "FIELD: limits <map[string]Quantity>" in text
    assert "GROUP:      coordination.k8s.io" in await kubectl("explain", "lease")


@pytest.mark.parametrize(
    "kind", ["pods", "nodes", "services", "deployments", "replicasets", "endpointslices", "events"]
)
async def test_explain_everything(kubectl: Kubectl, kind: str) -> None:
    text = await kubectl("explain", kind, "--recursive")
    assert "metadata\t<ObjectMeta>" in text
    assert "managedFields\t<[]ManagedFieldsEntry>" in text
    assert "fieldsV1\t<FieldsV1>" in text


async def test_explain_of_nothing(kubectl: Kubectl) -> None:
    result = await kubectl.run("explain", "pod.spec.colour")
    assert result.code == 1
    assert 'field "colour" does not exist' in result.err


async def test_api_resources(kubectl: Kubectl) -> None:
    lines = (await kubectl("api-resources", "--no-headers", "-o", "wide")).splitlines()
    found = {line.split()[0]: line.split() for line in lines}
    assert found["deployments"][1:5] == ["deploy", "apps/v1", "true", "Deployment"]
    assert found["nodes"][1:5] == ["no", "v1", "false", "Node"]
    assert "create,delete,deletecollection,get,list,patch,update,watch" in found["pods"]


# --- manifests


async def test_apply(kubectl: Kubectl) -> None:
    said = await kubectl("apply", "-f", "-", stdin=HELLO)
    assert said == "deployment.apps/hello created\nservice/hello created\n"
    said = await kubectl("apply", "-f", "-", stdin=HELLO)
    assert said == "deployment.apps/hello unchanged\nservice/hello unchanged\n"
    changed = HELLO.replace("nginx:1", "nginx:2").replace("replicas: 2", "replicas: 3")
    said = await kubectl("apply", "-f", "-", stdin=changed)
    assert said == "deployment.apps/hello configured\nservice/hello unchanged\n"
    spec = (await read(kubectl, "deployment", "hello"))["spec"]
    assert (spec["replicas"], spec["template"]["spec"]["containers"][0]["image"]) == (3, "nginx:2")


async def test_create_from_a_file_and_again(kubectl: Kubectl) -> None:
    await kubectl("create", "-f", "-", stdin=HELLO)
    result = await kubectl.run("create", "-f", "-", stdin=HELLO)
    assert 'deployments.apps "hello" already exists' in result.err
    assert (
        await kubectl("replace", "-f", "-", stdin=HELLO) == "deployment.apps/hello replaced\nservice/hello replaced\n"
    )


async def test_server_side_apply(kubectl: Kubectl) -> None:
    apply = ("apply", "--server-side", "-f", "-")
    said = await kubectl(*apply, "--field-manager=one", stdin=HELLO)
    assert said == "deployment.apps/hello serverside-applied\nservice/hello serverside-applied\n"
    first = await read(kubectl, "deployment", "hello")
    await kubectl(*apply, "--field-manager=one", stdin=HELLO)
    assert await read(kubectl, "deployment", "hello") == first
    changed = HELLO.replace("replicas: 2", "replicas: 3")
    result = await kubectl.run(*apply, "--field-manager=two", stdin=changed)
    assert result.code == 1
    assert 'Apply failed with 1 conflict: conflict with "one": .spec.replicas' in result.err
    await kubectl(*apply, "--field-manager=two", "--force-conflicts", stdin=changed)
    document = await read(kubectl, "deployment", "hello")
    assert document["spec"]["replicas"] == 3
    owners = {e["manager"]: e["fieldsV1"]["f:spec"] for e in document["metadata"]["managedFields"]}
    assert ("f:replicas" in owners["one"], "f:replicas" in owners["two"]) == (False, True)


async def test_from_client_side_to_server_side(kubectl: Kubectl) -> None:
    """kubectl rewrites managedFields itself when it changes over; what it wrote by hand must count."""
    await kubectl("apply", "-f", "-", stdin=HELLO)
    await kubectl("apply", "--server-side", "-f", "-", stdin=HELLO)
    managers = [
        (e["manager"], e["operation"]) for e in (await read(kubectl, "svc", "hello"))["metadata"]["managedFields"]
    ]
    assert ("kubectl", "Apply") in managers
    assert ("kubectl-client-side-apply", "Update") not in managers


async def test_set_label_annotate_and_patch(kubectl: Kubectl) -> None:
    await kubectl("create", "-f", "-", stdin=HELLO)
    await kubectl("set", "image", "deployment/hello", "hello=nginx:3")
    await kubectl("set", "env", "deployment/hello", "COLOUR=red")
    await kubectl("set", "resources", "deployment/hello", "--requests=cpu=0.1")
    await kubectl("label", "deployment", "hello", "tier=front")
    await kubectl("annotate", "deployment", "hello", "note=x")
    await kubectl("rollout", "restart", "deployment/hello")
    await kubectl("patch", "deployment", "hello", "-p", '{"spec":{"replicas":5}}')
    await kubectl(
        "patch", "deployment", "hello", "--type=json", "-p", '[{"op":"add","path":"/spec/paused","value":true}]'
    )
    document = await read(kubectl, "deployment", "hello")
    (made,) = document["spec"]["template"]["spec"]["containers"]
    assert (made["image"], made["env"]) == ("nginx:3", [{"name": "COLOUR", "value": "red"}])
    assert made["resources"] == {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "100m"}}
    assert document["metadata"]["labels"] == {"app": "hello", "tier": "front"}
    assert (document["spec"]["replicas"], document["spec"]["paused"]) == (5, True)
    assert document["metadata"]["generation"] == 7
    managers = {e["manager"] for e in document["metadata"]["managedFields"]}
    assert managers == {
        "kubectl-create",
        "kubectl-set",
        "kubectl-label",
        "kubectl-annotate",
        "kubectl-rollout",
        "kubectl-patch",
    }


# --- bad manifests


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("replicas: 2", "replicaz: 2", 'strict decoding error: unknown field "spec.replicaz"'),
        ("replicas: 2", "replicas: two", 'spec.replicas: Invalid value: "two": must be an integer (int32)'),
        ("name: hello, image", "image", "spec.template.spec.containers[0].name: Required value"),
        ("name: hello, labels", "name: Hello, labels", 'metadata.name: Invalid value: "Hello": a lowercase RFC 1123'),
        ("matchLabels: {app: hello}", "matchLabels: {app: other}", "`selector` does not match template `labels`"),
        ("cpu: 500m", "cpu: much", "spec.template.spec.containers[0].resources.limits.cpu: Invalid value"),
    ],
)  # fmt: skip
async def test_bad_manifests_are_refused_with_the_name_of_the_field(
    kubectl: Kubectl, right: str, wrong: str, complaint: str
) -> None:
    assert right in HELLO
    result = await kubectl.run("create", "-f", "-", stdin=HELLO.split("---", maxsplit=1)[0].replace(right, wrong, 1))
    assert result.code == 1
    assert complaint in result.err
    assert kubectl.server.objects == {}


async def test_unknown_fields_are_a_warning_when_asked(kubectl: Kubectl) -> None:
    bad = HELLO.replace("replicas: 2", "replicaz: 2")
    result = await kubectl.run("apply", "--validate=warn", "-f", "-", stdin=bad)
    assert result.code == 0
    assert 'Warning: unknown field "spec.replicaz"' in result.err


async def test_duplicate_fields_in_json(kubectl: Kubectl) -> None:
    body = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"1","b":"2"}}'
    await kubectl("create", "-f", "-", stdin=body)
    assert (await read(kubectl, "configmap", "x"))["data"] == {"a": "1", "b": "2"}


# --- commands that send Protobuf

CREATED: list[tuple[list[str], str, dict[str, Any]]] = [
    (["deployment", "web", "--image=nginx", "--replicas=0"], "deployment/web", {"spec.replicas": 0}),
    (["secret", "generic", "s", "--from-literal=a=b"], "secret/s", {"data": {"a": "Yg=="}, "type": "Opaque"}),
    (["configmap", "c", "--from-literal=a=b"], "configmap/c", {"data": {"a": "b"}}),
    (["service", "nodeport", "n", "--tcp=80:http"], "service/n", {"spec.ports.0.targetPort": "http"}),
    (["service", "clusterip", "h", "--clusterip=None"], "service/h", {"spec.clusterIP": "None"}),
    (["service", "externalname", "e", "--external-name=a.b"], "service/e", {"spec.externalName": "a.b"}),
    (["namespace", "team"], "namespace/team", {"spec.finalizers": ["kubernetes"], "status.phase": "Active"}),
    (["serviceaccount", "robot"], "serviceaccount/robot", {"metadata.name": "robot"}),
]  # fmt: skip


@pytest.mark.parametrize(("command", "name", "wanted"), CREATED, ids=lambda v: v if isinstance(v, str) else None)
async def test_create(kubectl: Kubectl, command: list[str], name: str, wanted: dict[str, Any]) -> None:
    await kubectl("create", *command)
    assert kubectl.server.bodies[-1][1] == MEDIA_TYPE
    document: Any = await read(kubectl, name)
    for path, value in wanted.items():
        found = document
        for step in path.split("."):
            found = found[int(step) if step.isdigit() else step]
        assert found == value
    # A service account has no field that anybody could own.
    assert {e["manager"] for e in document["metadata"].get("managedFields", [])} <= {"kubectl-create"}
