"""Objects and the cells that `kubectl get` shows for them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from kybern.api import resources
from kybern.api.resources import Resource
from master.apiserver.interface import Listed
from master.rest.answers import Shape, show, show_list
from master.rest.negotiation import Accepted, Form
from master.rest.printers import printer_of
from master.rest.printers.base import duration

NOW = datetime(2026, 1, 10, tzinfo=UTC)
META = {"name": "x", "namespace": "default", "creationTimestamp": "2026-01-09T23:55:00Z", "resourceVersion": "7"}


def cells(resource: Resource, document: dict[str, Any], subresource: str = "") -> dict[str, Any]:
    """The row by the columns' names."""
    printer = printer_of(resource, subresource)
    row = printer.row(msgspec.json.encode({"metadata": META, **document}), NOW)
    return dict(zip([column.name for column in printer.columns], row.cells, strict=True))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (121, "2m1s"), (599, "9m59s"),
        (600, "10m"), (3 * 3600 - 1, "179m"), (3 * 3600, "3h"), (3 * 3600 + 61, "3h1m"), (8 * 3600 - 1, "7h59m"),
        (47 * 3600, "47h"), (48 * 3600, "2d"), (50 * 3600, "2d2h"), (8 * 86400, "8d"), (729 * 86400, "729d"),
        (730 * 86400, "2y"),
        (800 * 86400, "2y70d"), (3000 * 86400, "8y"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def container(name: str = "c", *, ready: bool = False, restarts: int = 0, **state: Any) -> dict[str, Any]:
    return {"name": name, "ready": ready, "restartCount": restarts, "state": state, "image": "i", "imageID": ""}


RUNNING: Any = {"running": {"startedAt": "2026-01-09T00:00:00Z"}}
DONE: Any = {"terminated": {"exitCode": 0, "reason": "Completed"}}
TWO = {"containers": [{"name": "c"}, {"name": "d"}]}
INITS = {"containers": [{"name": "c"}], "initContainers": [{"name": "a"}, {"name": "b"}]}
SIDECAR = {"containers": [{"name": "c"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]}


@pytest.mark.parametrize(
    ("spec", "status", "meta", "ready", "word", "restarts"),
    [
        ({}, {"phase": "Pending"}, {}, "0/1", "Pending", "0"),
        ({}, {"phase": "Pending", "containerStatuses": [container(waiting={"reason": "ContainerCreating"})]}, {},
         "0/1", "ContainerCreating", "0"),
        ({}, {"phase": "Running", "containerStatuses": [container(ready=True, restarts=2, **RUNNING)]}, {},
         "1/1", "Running", "2"),
        ({}, {"phase": "Running", "containerStatuses": [container(waiting={"reason": "CrashLoopBackOff"}, restarts=3) |
          {"lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-09T23:58:00Z"}}}]}, {},
         "0/1", "CrashLoopBackOff", "3 (2m ago)"),
        ({}, {"phase": "Succeeded", "containerStatuses": [container(**DONE)]}, {}, "0/1", "Completed", "0"),
        ({}, {"phase": "Failed", "containerStatuses": [container(terminated={"exitCode": 1, "reason": "Error"})]}, {},
         "0/1", "Error", "0"),
        ({}, {"phase": "Failed", "containerStatuses": [container(terminated={"exitCode": 3})]}, {},
         "0/1", "ExitCode:3", "0"),
        ({}, {"phase": "Failed", "containerStatuses": [container(terminated={"exitCode": 137, "signal": 9})]}, {},
         "0/1", "Signal:9", "0"),
        ({}, {"phase": "Failed", "reason": "Evicted"}, {}, "0/1", "Evicted", "0"),
        ({}, {"phase": "Running", "containerStatuses": [container(ready=True, **RUNNING)]},
         {"deletionTimestamp": "2026-01-09T23:59:00Z"}, "1/1", "Terminating", "0"),
        ({}, {"phase": "Running", "reason": "NodeLost"}, {"deletionTimestamp": "2026-01-09T23:59:00Z"},
         "0/1", "Unknown", "0"),
        ({}, {"phase": "Succeeded", "containerStatuses": [container(**DONE)]},
         {"deletionTimestamp": "2026-01-09T23:59:00Z"}, "0/1", "Completed", "0"),
        ({}, {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}, {},
         "0/1", "SchedulingGated", "0"),
        # One of two has completed, the other serves.
        (TWO, {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
               "containerStatuses": [container("c", **DONE), container("d", ready=True, **RUNNING)]}, {},
         "1/2", "Running", "0"),
        (TWO, {"phase": "Running", "containerStatuses": [
            container("c", **DONE), container("d", ready=True, **RUNNING)]}, {}, "1/2", "NotReady", "0"),
        (INITS, {"phase": "Pending", "initContainerStatuses": [container("a", **RUNNING), container("b", waiting={})]},
         {}, "0/1", "Init:0/2", "0"),
        (INITS, {"phase": "Pending", "initContainerStatuses": [
            container("a", **DONE), container("b", waiting={"reason": "PodInitializing"})]}, {},
         "0/1", "Init:1/2", "0"),
        (INITS, {"phase": "Pending", "initContainerStatuses": [
            container("a", waiting={"reason": "CrashLoopBackOff"}, restarts=4)]}, {},
         "0/1", "Init:CrashLoopBackOff", "4"),
        (INITS, {"phase": "Pending", "initContainerStatuses": [container("a", terminated={"exitCode": 2})]}, {},
         "0/1", "Init:ExitCode:2", "0"),
        (INITS, {"phase": "Pending", "initContainerStatuses": [
            container("a", terminated={"exitCode": 2, "reason": "Error"})]}, {}, "0/1", "Init:Error", "0"),
        # Restarts of init containers that are through are history.
        (INITS, {"phase": "Pending",
                 "initContainerStatuses": [container("a", restarts=5, **DONE), container("b", **DONE)],
                 "containerStatuses": [container(waiting={"reason": "PodInitializing"})]}, {},
         "0/1", "PodInitializing", "0"),
        (SIDECAR, {"phase": "Running", "conditions": [{"type": "Initialized", "status": "True"}],
                   "initContainerStatuses": [container("s", ready=True, restarts=1, **RUNNING) | {"started": True}],
                   "containerStatuses": [container(ready=True, **RUNNING)]}, {}, "2/2", "Running", "1"),
    ],
)  # fmt: skip
def test_the_status_of_a_pod_in_one_word(
    spec: dict[str, Any], status: dict[str, Any], meta: dict[str, Any], ready: str, word: str, restarts: str
) -> None:
    document = {"metadata": {**META, **meta}, "spec": {"containers": [{"name": "c"}], **spec}, "status": status}
    shown = cells(resources.PODS, document)
    assert (shown["Ready"], shown["Status"], shown["Restarts"]) == (ready, word, restarts)


def test_the_wide_columns_of_a_pod() -> None:
    spec = {
        "nodeName": "n1",
        "containers": [{"name": "c"}],
        "readinessGates": [{"conditionType": "a"}, {"conditionType": "b"}],
    }
    status = {
        "phase": "Running",
        "podIP": "10.244.1.2",
        "podIPs": [{"ip": "10.244.1.2"}],
        "nominatedNodeName": "n2",
        "conditions": [{"type": "a", "status": "True"}],
    }
    shown = cells(resources.PODS, {"spec": spec, "status": status})
    assert shown["Age"] == "5m"
    assert [shown[c] for c in ("IP", "Node", "Nominated Node", "Readiness Gates")] == ["10.244.1.2", "n1", "n2", "1/2"]
    bare = cells(resources.PODS, {"spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Pending"}})
    assert [bare[c] for c in ("IP", "Node", "Nominated Node", "Readiness Gates")] == ["<none>"] * 4


TEMPLATE = {"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "j:2"}]}}
SELECTOR = {"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]}


@pytest.mark.parametrize(
    ("resource", "document", "expected"),
    [
        (resources.DEPLOYMENTS,
         {"spec": {"replicas": 3, "template": TEMPLATE, "selector": SELECTOR},
          "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}},
         {"Name": "x", "Ready": "2/3", "Up-to-date": 3, "Available": 1, "Age": "5m", "Containers": "a,b",
          "Images": "i:1,j:2", "Selector": "a=1,b=2,c"}),
        (resources.REPLICA_SETS,
         {"spec": {"replicas": 3, "template": TEMPLATE, "selector": SELECTOR},
          "status": {"replicas": 2, "readyReplicas": 1}},
         {"Desired": 3, "Current": 2, "Ready": 1, "Containers": "a,b"}),
        (resources.SERVICES,
         {"spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "selector": {"a": "b"},
                   "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}},
         {"Type": "NodePort", "Cluster-IP": "10.96.0.9", "External-IP": "<none>", "Port(s)": "80:30080/TCP,53/UDP",
          "Selector": "a=b"}),
        (resources.SERVICES, {"spec": {"type": "ClusterIP", "clusterIP": "None", "externalIPs": ["1.2.3.4"]}},
         {"Cluster-IP": "None", "External-IP": "1.2.3.4", "Port(s)": "<none>", "Selector": "<none>"}),
        (resources.SERVICES, {"spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.9"}},
         {"External-IP": "<pending>"}),
        (resources.SERVICES,
         {"spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.9"},
          "status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}, {"hostname": "lb"}]}}},
         {"External-IP": "1.1.1.1,lb"}),
        (resources.SERVICES, {"spec": {"type": "ExternalName", "externalName": "a.example"}},
         {"Cluster-IP": "<none>", "External-IP": "a.example"}),
        (resources.NODES,
         {"metadata": {**META, "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "a"}},
          "spec": {"unschedulable": True},
          "status": {"conditions": [{"type": "Ready", "status": "True"}],
                     "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "x"}],
                     "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "Debian", "kernelVersion": "6.1",
                                  "containerRuntimeVersion": "docker://28"}}},
         {"Status": "Ready,SchedulingDisabled", "Roles": "a,control-plane", "Version": "v1.37.0",
          "Internal-IP": "10.0.0.1", "External-IP": "<none>", "OS-Image": "Debian", "Container-Runtime": "docker://28"}),
        (resources.NODES, {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
         {"Status": "NotReady", "Roles": "<none>", "Internal-IP": "<none>", "OS-Image": "<unknown>"}),
        (resources.NODES, {}, {"Status": "Unknown"}),
        (resources.NAMESPACES, {"status": {"phase": "Active"}}, {"Name": "x", "Status": "Active", "Age": "5m"}),
        (resources.CONFIG_MAPS, {"data": {"a": "1"}, "binaryData": {"b": "AA=="}}, {"Data": 2}),
        (resources.SECRETS, {"type": "Opaque", "data": {"a": "AA=="}}, {"Type": "Opaque", "Data": 1}),
        (resources.SERVICE_ACCOUNTS, {"secrets": [{"name": "s"}]}, {"Secrets": 1}),
        (resources.LEASES, {"spec": {"holderIdentity": "m1"}}, {"Name": "x", "Holder": "m1"}),
        (resources.ENDPOINTS,
         {"subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}, {"port": 81}]}]},
         {"Endpoints": "10.0.0.1:80,[fd00::1]:80,10.0.0.1:81 + 1 more..."}),
        (resources.ENDPOINTS, {}, {"Endpoints": "<none>"}),
        (resources.ENDPOINT_SLICES,
         {"addressType": "IPv4", "ports": [{"port": 80}, {"name": "all"}], "endpoints": [{"addresses": ["10.0.0.1"]}]},
         {"AddressType": "IPv4", "Ports": "80,*", "Endpoints": "10.0.0.1"}),
        (resources.ENDPOINT_SLICES, {"addressType": "IPv6"}, {"Ports": "<unset>", "Endpoints": "<unset>"}),
        (resources.EVENTS,
         {"involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"}, "type": "Normal",
          "reason": "Pulled", "message": " done\n", "count": 3, "source": {"component": "kubelet", "host": "n1"},
          "firstTimestamp": "2026-01-09T23:50:00Z", "lastTimestamp": "2026-01-09T23:59:30Z"},
         {"Last Seen": "30s", "Type": "Normal", "Reason": "Pulled", "Object": "pod/p", "Message": "done",
          "Subobject": "spec.containers{c}", "Source": "kubelet, n1", "First Seen": "10m", "Count": 3, "Name": "x"}),
        (resources.EVENTS,
         {"involvedObject": {"kind": "Node", "name": "n"}, "eventTime": "2026-01-09T23:58:00.000000Z",
          "reportingComponent": "scheduler", "series": {"count": 9, "lastObservedTime": "2026-01-09T23:59:00.000000Z"}},
         {"Last Seen": "60s", "Source": "scheduler", "First Seen": "2m", "Count": 9}),
        (resources.EVENTS, {"involvedObject": {"kind": "Pod"}},
         {"Last Seen": "<unknown>", "Object": "pod", "Count": 1}),
        (Resource("ex.io", "v1", "Foo", "foos"), {"spec": {"a": 1}}, {"Name": "x", "Age": "5m"}),
    ],
)  # fmt: skip
def test_cells(resource: Resource, document: dict[str, Any], expected: dict[str, Any]) -> None:
    shown = cells(resource, document)
    assert {name: shown[name] for name in expected} == expected


def test_every_kind_that_is_served_has_columns_of_its_own() -> None:
    fallback = printer_of(Resource("ex.io", "v1", "Foo", "foos"))
    assert [r.kind for r in resources.BUILT_IN if printer_of(r) is fallback] == []


def test_a_scale_has_columns_too() -> None:
    shown = cells(resources.DEPLOYMENTS, {"spec": {"replicas": 3}, "status": {"replicas": 2}}, "scale")
    assert (shown["Desired"], shown["Available"]) == (3, 2)


POD = msgspec.json.encode(
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": META,
        "spec": {"containers": [{"name": "c"}]},
        "status": {"phase": "Succeeded"},
    }
)
TABLE = Accepted(Form.TABLE, "v1beta1")


@pytest.mark.parametrize(
    ("include", "kind"), [("", "PartialObjectMetadata"), ("Metadata", "PartialObjectMetadata"), ("Object", "Pod")]
)
def test_rows_carry_what_was_asked_for(include: str, kind: str) -> None:
    table = msgspec.json.decode(show(POD, resources.PODS, "", Shape(TABLE, include), NOW))
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1beta1")
    assert table["metadata"] == {"resourceVersion": "7"}
    (row,) = table["rows"]
    assert row["object"]["kind"] == kind
    assert row["object"]["metadata"] == META
    assert row["conditions"][0]["type"] == "Completed"
    heads = table["columnDefinitions"]
    assert [h["priority"] for h in heads] == [0] * 5 + [1] * 4
    assert heads[0] == {
        "name": "Name",
        "type": "string",
        "format": "name",
        "priority": 0,
        "description": heads[0]["description"],
    }


def test_rows_without_objects() -> None:
    table = msgspec.json.decode(show(POD, resources.PODS, "", Shape(TABLE, "None"), NOW))
    assert "object" not in table["rows"][0]


def test_lists_in_three_forms() -> None:
    listed = Listed([POD, POD], 12, "more", 5)
    whole = msgspec.json.decode(show_list(listed, resources.PODS, Shape(Accepted(Form.WHOLE)), NOW))
    assert (whole["kind"], whole["apiVersion"], len(whole["items"])) == ("PodList", "v1", 2)
    metadata = {"resourceVersion": "12", "continue": "more", "remainingItemCount": 5}
    assert whole["metadata"] == metadata
    table = msgspec.json.decode(show_list(listed, resources.PODS, Shape(TABLE), NOW))
    assert (table["metadata"], len(table["rows"])) == (metadata, 2)
    partial = msgspec.json.decode(show_list(listed, resources.PODS, Shape(Accepted(Form.METADATA)), NOW))
    assert (partial["kind"], partial["apiVersion"]) == ("PartialObjectMetadataList", "meta.k8s.io/v1")
    assert partial["items"][0] == {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": META}
    empty = msgspec.json.decode(show_list(Listed([], 3), resources.PODS, Shape(Accepted(Form.WHOLE)), NOW))
    assert empty["items"] == []
