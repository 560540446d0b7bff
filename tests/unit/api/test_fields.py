"""Values for field selectors."""

from __future__ import annotations

from typing import Any

import pytest

from kybern.api import resources
from kybern.api.fields import selectable, supported
from kybern.api.resources import Resource
from kybern.api.selectors import parse_fields

META = {"metadata": {"name": "x", "namespace": "d"}}


@pytest.mark.parametrize(
    ("resource", "document", "values"),
    [
        (resources.CONFIG_MAPS, META, {"metadata.name": "x", "metadata.namespace": "d"}),
        (resources.NODES, {"metadata": {"name": "n"}}, {"metadata.name": "n", "spec.unschedulable": "false"}),
        (resources.NODES, {"metadata": {"name": "n"}, "spec": {"unschedulable": True}}, {"metadata.name": "n", "spec.unschedulable": "true"}),
        (resources.NAMESPACES, {"metadata": {"name": "n"}, "status": {"phase": "Active"}}, {"metadata.name": "n", "status.phase": "Active"}),
        (resources.SECRETS, {**META, "type": "Opaque"}, {"metadata.name": "x", "metadata.namespace": "d", "type": "Opaque"}),
        (resources.REPLICA_SETS, {**META, "status": {"replicas": 3}}, {"metadata.name": "x", "metadata.namespace": "d", "status.replicas": "3"}),
        (resources.SERVICES, {**META, "spec": {"clusterIPs": ["10.96.0.1"], "type": "ClusterIP"}}, {"metadata.name": "x", "metadata.namespace": "d", "spec.clusterIP": "10.96.0.1", "spec.type": "ClusterIP"}),
    ],
)  # fmt: skip
def test_values(resource: Resource, document: dict[str, Any], values: dict[str, str]) -> None:
    assert selectable(resource, document) == values
    assert set(values) == set(supported(resource))


def test_pods() -> None:
    document = {
        **META,
        "spec": {"nodeName": "n1", "hostNetwork": True},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]},
    }
    values = selectable(resources.PODS, document)
    assert values["spec.nodeName"] == "n1"
    assert values["spec.hostNetwork"] == "true"
    assert values["status.podIP"] == "10.0.0.1"
    assert values["spec.schedulerName"] == ""
    empty = selectable(resources.PODS, META)
    assert (empty["spec.nodeName"], empty["spec.hostNetwork"], empty["status.podIP"]) == ("", "false", "")
    assert selectable(resources.PODS, {**META, "status": {"podIP": "10.0.0.2"}})["status.podIP"] == "10.0.0.2"


def test_the_source_of_an_event_has_two_names() -> None:
    assert (
        selectable(resources.EVENTS, {**META, "source": {"component": "a"}, "reportingComponent": "b"})["source"] == "a"
    )
    assert selectable(resources.EVENTS, {**META, "source": {}, "reportingComponent": "b"})["source"] == "b"
    assert selectable(resources.EVENTS, META)["source"] == ""


def test_selectors_meet_values() -> None:
    selector = parse_fields("spec.nodeName=,status.phase!=Failed", supported(resources.PODS))
    assert selector.matches(selectable(resources.PODS, META))
    assert not selector.matches(selectable(resources.PODS, {**META, "spec": {"nodeName": "n1"}}))
    with pytest.raises(ValueError, match=r"field label not supported: spec\.color"):
        parse_fields("spec.color=red", supported(resources.PODS))
