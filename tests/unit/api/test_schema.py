"""Schemas as the definitions give them."""

from __future__ import annotations

import tracemalloc

import pytest

from kybern.api import resources, schema
from kybern.api.schema import ListType, Schema, SchemaType


def at(node: Schema, path: str) -> Schema:
    """The node at a path; `[]` are items, `{}` values of a map."""
    for step in path.split("."):
        found = node.items if step == "[]" else node.additional if step == "{}" else node.properties.get(step)
        assert found is not None, step
        node = found
    return node


PODS = schema.load(resources.PODS)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("metadata.labels.{}", SchemaType.STRING),
        ("spec.containers", SchemaType.ARRAY),
        ("spec.containers.[].stdin", SchemaType.BOOLEAN),
        ("spec.containers.[].ports.[].containerPort", SchemaType.INTEGER),
        ("spec.securityContext", SchemaType.OBJECT),
        ("metadata.creationTimestamp", SchemaType.STRING),
    ],
)
def test_types(path: str, kind: SchemaType) -> None:
    assert at(PODS, path).type is kind


def test_special_forms() -> None:
    assert at(PODS, "spec.containers.[].resources.limits.{}").quantity
    assert at(PODS, "spec.containers.[].livenessProbe.httpGet.port").int_or_string
    assert at(PODS, "metadata.creationTimestamp").format == "date-time"
    assert not at(PODS, "metadata.creationTimestamp").micro
    assert at(schema.load(resources.LEASES), "spec.renewTime").micro
    assert at(schema.load(resources.SECRETS), "data.{}").format == "byte"
    assert at(PODS, "metadata.managedFields.[].fieldsV1").preserve_unknown


def test_lists_and_merge_keys() -> None:
    ports = at(PODS, "spec.containers.[].ports")
    assert (ports.list_type, ports.list_map_keys) == (ListType.MAP, ("containerPort", "protocol"))
    assert (ports.patch_merge_key, ports.patch_strategy) == ("containerPort", frozenset({"merge"}))
    assert at(PODS, "metadata.finalizers").list_type is ListType.SET
    assert at(PODS, "spec.containers.[].command").list_type is ListType.ATOMIC
    assert at(PODS, "spec.volumes").patch_strategy == {"merge", "retainKeys"}
    assert at(PODS, "spec.nodeSelector").atomic
    assert not at(PODS, "metadata.labels").atomic


def test_required_fields_and_documentation() -> None:
    assert at(PODS, "spec").required == {"containers"}
    assert at(PODS, "spec.containers.[]").required == {"name"}
    # A field's own documentation comes before that of its type.
    assert at(PODS, "spec.securityContext").description.startswith("SecurityContext holds pod-level security")
    assert at(PODS, "spec").definition == "io.k8s.api.core.v1.PodSpec"


def test_every_served_kind_and_every_body_of_a_subresource_has_one() -> None:
    for resource in resources.BUILT_IN:
        root = schema.load(resource)
        assert {"apiVersion", "kind", "metadata"} <= root.properties.keys()
        for subresource in resource.subresources:
            if subresource.version:
                assert schema.load_kind(subresource.group, subresource.version, subresource.kind).properties


def test_schemas_are_loaded_once() -> None:
    assert schema.load(resources.PODS) is PODS
    pods_of_deployments = at(schema.load(resources.DEPLOYMENTS), "spec.template.spec")
    assert pods_of_deployments.properties is at(PODS, "spec").properties


def test_definitions_by_name() -> None:
    assert schema.load_definition("autoscaling.v1.Scale") is schema.load_kind("autoscaling", "v1", "Scale")
    assert "gracePeriodSeconds" in schema.load_definition("meta.v1.DeleteOptions").properties
    assert schema.load_kind("", "v1", "Binding").required == {"target"}
    with pytest.raises(LookupError, match="more than one definition is named 'TokenRequest'"):
        schema.load_definition("TokenRequest")
    with pytest.raises(LookupError, match="no definition of kind Nothing in core/v1"):
        schema.load_kind("", "v1", "Nothing")


def test_a_definition_that_contains_itself() -> None:
    props = schema.load_definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    inner = at(props, "properties.{}")
    assert inner.properties is props.properties


def test_all_kinds_together_are_small() -> None:
    """The budget is 25 MB."""
    schema.loading._loaded.clear()
    schema.load_kind.cache_clear()
    tracemalloc.start()
    try:
        for resource in resources.BUILT_IN:
            schema.load(resource)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 5 << 20
