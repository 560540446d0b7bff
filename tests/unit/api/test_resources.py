"""The table of kinds."""

from __future__ import annotations

import dataclasses

from kybern.api import resources
from kybern.api.resources import Registry


def test_lookups() -> None:
    registry = resources.built_in()
    assert registry.find("apps", "v1", "deployments") is resources.DEPLOYMENTS
    assert registry.by_kind("apps/v1", "Deployment") is resources.DEPLOYMENTS
    assert registry.by_kind("v1", "Pod") is resources.PODS
    assert registry.find("", "v1", "deployments") is None
    assert set(registry) == set(resources.BUILT_IN)


def test_resources_come_and_go() -> None:
    registry = Registry()
    registry.add(resources.PODS)
    other = dataclasses.replace(resources.PODS, short_names=("p",))
    registry.add(other)
    assert registry.find("", "v1", "pods") is other
    registry.remove(other)
    registry.remove(other)
    assert list(registry) == []
    assert registry.by_kind("v1", "Pod") is None


def test_names() -> None:
    assert (resources.PODS.api_version, resources.PODS.qualified) == ("v1", "pods")
    assert (resources.DEPLOYMENTS.api_version, str(resources.DEPLOYMENTS)) == ("apps/v1", "deployments.apps")
    scale = resources.DEPLOYMENTS.subresource("scale")
    assert scale is not None
    assert scale.kind == "Scale"
    assert resources.DEPLOYMENTS.subresource("log") is None


def test_no_two_share_a_name() -> None:
    names = [n for r in resources.BUILT_IN for n in (r.plural, r.kind.lower(), *r.short_names)]
    doubled = {n for n in names if names.count(n) > 1}
    # Whose singular is its plural.
    assert doubled == {"endpoints"}
