"""The OpenAPI documents, as kubectl reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kybern.api import openapi, resources
from kybern.api.resources import Registry, Resource

REGISTRY = resources.built_in()
GROUP_VERSIONS = ["api/v1", "apis/apps/v1", "apis/coordination.k8s.io/v1", "apis/discovery.k8s.io/v1"]


def read(group_version: str) -> dict[str, Any]:
    body = openapi.document(REGISTRY, group_version)
    assert body is not None
    result: dict[str, Any] = json.loads(body)
    return result


def test_the_index_names_every_group_version_by_its_content() -> None:
    paths = json.loads(openapi.index(REGISTRY))["paths"]
    assert list(paths) == GROUP_VERSIONS
    for path, entry in paths.items():
        url, _, query = entry["serverRelativeURL"].partition("?hash=")
        assert url == f"/openapi/v3/{path}"
        assert len(query) == 64
    assert json.loads(openapi.index(REGISTRY)) == {"paths": paths}


def test_a_new_resource_changes_one_document() -> None:
    more = Registry([*resources.BUILT_IN, Resource("apps", "v1", "DaemonSet", "daemonsets")])
    before, after = (json.loads(openapi.index(r))["paths"] for r in (REGISTRY, more))
    assert [p for p in before if before[p] != after[p]] == ["apis/apps/v1"]
    assert b"/daemonsets/{name}" in (openapi.document(more, "apps/v1") or b"")
    assert b"/daemonsets/{name}" not in (openapi.document(REGISTRY, "apps/v1") or b"")


def test_documents_are_made_once() -> None:
    assert openapi.document(REGISTRY, "apis/apps/v1") is openapi.document(REGISTRY, "apps/v1")
    assert openapi.document(REGISTRY, "api/v1") is openapi.document(REGISTRY, "v1")
    assert openapi.document(REGISTRY, "apis/batch/v1") is None


@pytest.mark.parametrize("group_version", GROUP_VERSIONS)
def test_every_reference_leads_somewhere_and_nothing_is_left_over(group_version: str) -> None:
    document = read(group_version)
    schemas = document["components"]["schemas"]
    used: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str):
                assert set(node) == {"$ref"}
                name = reference.removeprefix("#/components/schemas/")
                if name not in used:
                    used.add(name)
                    walk(schemas[name])
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document["paths"])
    # Lists of kinds may be wanted though no path shows them.
    assert {n for n in schemas if n not in used} == set()


@pytest.mark.parametrize("group_version", GROUP_VERSIONS)
def test_types_are_those_of_openapi_3_0(group_version: str) -> None:
    def walk(node: Any, place: str) -> None:
        if isinstance(node, dict):
            if "type" in node and not place.endswith("properties"):
                assert node["type"] in ("object", "array", "string", "integer", "number", "boolean"), place
            for key, value in node.items():
                assert key not in ("$defs", "$schema"), place
                walk(value, f"{place}.{key}")
        elif isinstance(node, list):
            for value in node:
                walk(value, place)

    walk(read(group_version)["components"], "")


def test_schemas() -> None:
    schemas = read("api/v1")["components"]["schemas"]
    pod = schemas["io.k8s.api.core.v1.Pod"]
    assert pod["x-kubernetes-group-version-kind"] == [{"group": "", "kind": "Pod", "version": "v1"}]
    assert pod["properties"]["spec"]["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}]
    assert pod["properties"]["spec"]["description"].startswith("Specification of the desired behavior")
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert containers["x-kubernetes-list-map-keys"] == ["name"]
    assert containers["x-kubernetes-patch-merge-key"] == "name"
    assert schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["oneOf"] == [
        {"type": "integer"},
        {"type": "string"},
    ]
    assert schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"]["oneOf"] == [{"type": "string"}, {"type": "number"}]


def test_paths_say_what_they_act_on_and_that_patch_validates() -> None:
    paths = read("apis/apps/v1")["paths"]
    named = paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
    assert set(named) == {"get", "put", "patch", "delete", "parameters"}
    assert named["patch"]["x-kubernetes-action"] == "patch"
    kind = {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert named["patch"]["x-kubernetes-group-version-kind"] == kind
    parameters = {p["name"]: p["in"] for p in named["patch"]["parameters"]}
    assert parameters == {"dryRun": "query", "fieldManager": "query", "fieldValidation": "query", "force": "query"}
    assert [p["name"] for p in named["parameters"]] == ["name", "namespace"]
    everywhere = paths["/apis/apps/v1/deployments"]
    assert set(everywhere) == {"get"}
    scale = paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]
    assert scale["put"]["x-kubernetes-group-version-kind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    core = read("api/v1")["paths"]
    assert "/api/v1/nodes/{name}" in core
    assert "deletecollection" not in {o.get("x-kubernetes-action") for o in core["/api/v1/namespaces"].values()}
    assert "/api/v1/namespaces/{namespace}/pods/{name}/binding" in core
