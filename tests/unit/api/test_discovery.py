"""What clients discover."""

from __future__ import annotations

from typing import Any

from kybern.api import discovery, resources
from kybern.api.resources import Registry, Resource

REGISTRY = resources.built_in()


def entry(listed: dict[str, Any] | None, name: str) -> dict[str, Any]:
    assert listed is not None
    result: dict[str, Any] = next(r for r in listed["resources"] if r.get("name", r.get("resource")) == name)
    return result


def test_the_core_group() -> None:
    assert discovery.api_versions(REGISTRY, "10.0.0.1:6443") == {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "10.0.0.1:6443"}],
    }


def test_groups() -> None:
    listed = discovery.group_list(REGISTRY)
    assert [g["name"] for g in listed["groups"]] == ["apps", "coordination.k8s.io", "discovery.k8s.io"]
    apps = {"groupVersion": "apps/v1", "version": "v1"}
    assert listed["groups"][0] == {"name": "apps", "versions": [apps], "preferredVersion": apps}
    one = discovery.group(REGISTRY, "apps")
    assert one == {"kind": "APIGroup", "apiVersion": "v1", "name": "apps", "versions": [apps], "preferredVersion": apps}
    assert discovery.group(REGISTRY, "") is None
    assert discovery.group(REGISTRY, "batch") is None


def test_versions_are_ordered_by_stability() -> None:
    versions = ["v1alpha1", "v2beta1", "v1", "v2", "v10", "v1beta2", "odd"]
    registry = Registry(Resource("example.com", v, "Thing", "things") for v in versions)
    assert discovery.versions(registry, "example.com") == ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "odd"]


def test_resources_of_a_version() -> None:
    core = discovery.resource_list(REGISTRY, "", "v1")
    assert core is not None
    assert (core["kind"], core["groupVersion"]) == ("APIResourceList", "v1")
    assert entry(core, "pods") == {
        "name": "pods",
        "singularName": "pod",
        "namespaced": True,
        "kind": "Pod",
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        "shortNames": ["po"],
        "categories": ["all"],
    }
    assert entry(core, "endpoints")["singularName"] == "endpoints"
    assert entry(core, "nodes")["namespaced"] is False
    assert entry(core, "pods/binding") == {
        "name": "pods/binding",
        "singularName": "",
        "namespaced": True,
        "kind": "Binding",
        "verbs": ["create"],
    }
    apps = discovery.resource_list(REGISTRY, "apps", "v1")
    assert apps is not None
    assert apps["groupVersion"] == "apps/v1"
    scale = entry(apps, "deployments/scale")
    assert (scale["group"], scale["version"], scale["kind"]) == ("autoscaling", "v1", "Scale")
    assert discovery.resource_list(REGISTRY, "apps", "v2") is None


def test_the_aggregated_form() -> None:
    core = discovery.aggregated_core(REGISTRY)
    assert (core["kind"], core["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
    (group,) = core["items"]
    assert group["metadata"] == {}
    (version,) = group["versions"]
    assert (version["version"], version["freshness"]) == ("v1", "Current")
    pods = entry(version, "pods")
    assert pods["responseKind"] == {"group": "", "version": "v1", "kind": "Pod"}
    assert (pods["scope"], pods["singularResource"], pods["shortNames"]) == ("Namespaced", "pod", ["po"])
    assert [s["subresource"] for s in pods["subresources"]][:2] == ["status", "binding"]
    assert entry(version, "namespaces")["scope"] == "Cluster"
    token = next(s for s in entry(version, "serviceaccounts")["subresources"] if s["subresource"] == "token")
    assert token["responseKind"] == {"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"}
    named = discovery.aggregated_groups(REGISTRY)
    assert [g["metadata"]["name"] for g in named["items"]] == ["apps", "coordination.k8s.io", "discovery.k8s.io"]
    assert discovery.aggregated_core(Registry())["items"] == []


def test_both_forms_tell_the_same() -> None:
    for group_name in ("", "apps", "coordination.k8s.io", "discovery.k8s.io"):
        plain = discovery.resource_list(REGISTRY, group_name, "v1")
        assert plain is not None
        lists = discovery.aggregated_groups(REGISTRY)["items"] + discovery.aggregated_core(REGISTRY)["items"]
        aggregated = next(g for g in lists if g["metadata"].get("name", "") == group_name)["versions"][0]
        told = set()
        for resource in aggregated["resources"]:
            told.add(resource["resource"])
            told |= {f"{resource['resource']}/{s['subresource']}" for s in resource.get("subresources", ())}
        assert told == {r["name"] for r in plain["resources"]}
