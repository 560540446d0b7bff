"""The rules for every kind but pods, in Kubernetes' words."""

from __future__ import annotations

from typing import Any

import pytest

from kybern.api import errors, resources
from kybern.api.errors import CauseType
from kybern.api.metadata import copy_json
from kybern.api.resources import Resource
from kybern.api.validation import validate, validate_status
from tests.unit.api.objects import defaulted, deployment, pod, service, template

Document = dict[str, Any]

LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def complaints(resource: Resource, new: Document, old: Document | None = None) -> list[str]:
    return [str(c) for c in validate(resource, new, old)]


def named(**metadata: Any) -> Document:
    return {"metadata": {"name": "x", "namespace": "default", **metadata}}


@pytest.mark.parametrize(
    ("resource", "document"),
    [
        (resources.PODS, pod()),
        (resources.DEPLOYMENTS, deployment()),
        (resources.SERVICES, service()),
        (resources.CONFIG_MAPS, named()),
        (resources.SECRETS, named()),
        (resources.SERVICE_ACCOUNTS, named()),
        (resources.LEASES, {**named(), "spec": {"leaseDurationSeconds": 15}}),
        (resources.NAMESPACES, {"metadata": {"name": "x"}, "spec": {"finalizers": ["kubernetes"]}}),
        (resources.NODES, {"metadata": {"name": "n1.example.com"}}),
        (resources.EVENTS, {**named(), "involvedObject": {"namespace": "default"}}),
    ],
    ids=str,
)
def test_good_objects(resource: Resource, document: Document) -> None:
    assert complaints(resource, document) == []
    assert complaints(resource, document, copy_json(document)) == []


# --- metadata


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        ({"name": ""}, "metadata.name: Required value: name or generateName is required"),
        ({"name": "Web"}, 'metadata.name: Invalid value: "Web": a lowercase RFC 1123 subdomain must consist of'),
        ({"name": "a" * 254}, "must be no more than 253 bytes"),
        ({"name": "a..b"}, 'metadata.name: Invalid value: "a..b": a lowercase RFC 1123 subdomain'),
        ({"generateName": "Web-"}, 'metadata.generateName: Invalid value: "Web-": a lowercase RFC 1123 subdomain'),
        ({"namespace": ""}, "metadata.namespace: Required value"),
        ({"namespace": "a.b"}, f'metadata.namespace: Invalid value: "a.b": {LABEL_RULE}'),
        ({"generation": -1}, "metadata.generation: Invalid value: -1: must be greater than or equal to 0"),
        ({"labels": {"a b": "c"}}, 'metadata.labels: Invalid value: "a b": name part must consist of alphanumeric'),
        ({"labels": {"/b": "c"}}, 'metadata.labels: Invalid value: "/b": prefix part must be non-empty'),
        ({"labels": {"A/b": "c"}}, 'metadata.labels: Invalid value: "A/b": prefix part a lowercase RFC 1123 subdomain'),
        ({"labels": {"a/b/c": "d"}}, 'metadata.labels: Invalid value: "a/b/c": a qualified name must consist of'),
        ({"labels": {"": "d"}}, 'metadata.labels: Invalid value: "": name part must be non-empty'),
        ({"labels": {"a" * 64: "d"}}, "name part must be no more than 63 bytes"),
        ({"labels": {"a": "b c"}}, 'metadata.labels: Invalid value: "b c": a valid label must be an empty string or'),
        ({"labels": {"a": "b" * 64}}, "must be no more than 63 bytes"),
        ({"annotations": {"a b": "c"}}, 'metadata.annotations: Invalid value: "a b": name part must consist of'),
        ({"annotations": {"a": "ü" * 131072}}, "metadata.annotations: Too long: may not be more than 262144 bytes"),
        ({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x"}]}, "metadata.ownerReferences[0].uid: Invalid value: \"\": uid must not be empty"),
        ({"ownerReferences": [{"apiVersion": "v1", "kind": "Event", "name": "x", "uid": "u"}]}, "v1, Kind=Event is disallowed from being an owner"),
        ({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": n, "uid": n, "controller": True} for n in "ab"]}, "Only one reference can have Controller set to true. Found \"true\" in references for a and b"),
        ({"finalizers": ["a b"]}, 'metadata.finalizers[0]: Invalid value: "a b": name part'),
        ({"finalizers": ["orphan", "foregroundDeletion"]}, "finalizer orphan and foregroundDeletion cannot be both set"),
    ],
)  # fmt: skip
def test_metadata(metadata: Document, complaint: str) -> None:
    found = complaints(resources.CONFIG_MAPS, named(**metadata))
    assert len({c.split(":")[0] for c in found}) == 1
    assert complaint in found[0]


def test_annotations_may_be_large_but_not_too_large() -> None:
    assert complaints(resources.CONFIG_MAPS, named(annotations={"a": "x" * 262_143})) == []


@pytest.mark.parametrize(
    ("resource", "name", "good"),
    [
        (resources.NAMESPACES, "a.b", False),
        (resources.NAMESPACES, "1a", True),
        (resources.SERVICES, "1a", False),
        (resources.SERVICES, "a1", True),
        (resources.PODS, "a.b", True),
    ],
)
def test_names_by_kind(resource: Resource, name: str, good: bool) -> None:
    document = {"v1 Pod": pod(), "v1 Service": service()}.get(f"v1 {resource.kind}", {"metadata": {}})
    document["metadata"]["name"] = name
    assert (complaints(resource, document) == []) is good


def test_cluster_scoped_objects_have_no_namespace() -> None:
    document = {"metadata": {"name": "x", "namespace": "default"}}
    assert complaints(resources.NODES, document) == ["metadata.namespace: Forbidden: not allowed on this type"]


@pytest.mark.parametrize("key", ["name", "namespace", "uid", "creationTimestamp"])
def test_identity_cannot_change(key: str) -> None:
    old = named(uid="u", creationTimestamp="2026-11-20T10:00:00Z")
    new = copy_json(old)
    new["metadata"][key] = "other"
    (cause,) = validate(resources.CONFIG_MAPS, new, old)
    assert str(cause) == f'metadata.{key}: Invalid value: "other": field is immutable'


def test_no_finalizer_is_added_to_what_is_being_deleted() -> None:
    old = named(deletionTimestamp="2026-11-20T10:00:00Z", finalizers=["example.com/a"])
    new = named(deletionTimestamp="2026-11-20T10:00:00Z", finalizers=["example.com/a", "example.com/b"])
    assert complaints(resources.CONFIG_MAPS, new, old) == [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, "
        'found new finalizers ["example.com/b"]'
    ]


# --- workloads


def test_the_message_of_kubernetes() -> None:
    document = deployment(selector={"matchLabels": {"app": "other"}})
    error = errors.invalid("Deployment", "apps", "x", validate(resources.DEPLOYMENTS, document, None))
    assert error.code == 422
    assert error.message == (
        'Deployment.apps "x" is invalid: spec.template.metadata.labels: Invalid value: {"app":"web"}: '
        "`selector` does not match template `labels`"
    )


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ({"selector": None}, "spec.selector: Required value"),
        ({"selector": {}}, "spec.selector: Invalid value: {}: empty selector is invalid for deployment"),
        ({"selector": {"matchLabels": {"app": "web", "a b": "c"}}}, 'spec.selector.matchLabels: Invalid value: "a b"'),
        ({"selector": {"matchExpressions": [{"key": "app", "operator": "In"}]}}, "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"),
        ({"selector": {"matchExpressions": [{"key": "app", "operator": "Exists", "values": ["x"]}]}}, "spec.selector.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
        ({"selector": {"matchExpressions": [{"key": "app", "operator": "Is"}]}}, 'spec.selector.matchExpressions[0].operator: Unsupported value: "Is": supported values: "DoesNotExist", "Exists", "In", "NotIn"'),
        ({"strategy": {"type": "Recreate", "rollingUpdate": {}}}, "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"),
        ({"strategy": {"type": "Fast"}}, 'spec.strategy.type: Unsupported value: "Fast": supported values: "Recreate", "RollingUpdate"'),
        ({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}, "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"),
        ({"strategy": {"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": "0%"}}}, 'maxUnavailable: Invalid value: "0%": may not be 0'),
        ({"strategy": {"rollingUpdate": {"maxSurge": "many"}}}, 'spec.strategy.rollingUpdate.maxSurge: Invalid value: "many": a valid percent string must be a numeric string followed by an ending \'%\' (e.g. \'1%\',  or \'93%\', regex used for validation is \'[0-9]+%\')'),
        ({"strategy": {"rollingUpdate": {"maxSurge": -1}}}, "spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0"),
        ({"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}}, 'maxUnavailable: Invalid value: "101%": must not be greater than 100%'),
        ({"minReadySeconds": -1}, "spec.minReadySeconds: Invalid value: -1: must be"),
        ({"minReadySeconds": 600}, "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"),
        ({"revisionHistoryLimit": -1}, "spec.revisionHistoryLimit: Invalid value: -1"),
        ({"template": template(restartPolicy="Never")}, 'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'),
        ({"template": template(activeDeadlineSeconds=5)}, "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in Deployment is not Supported"),
        ({"template": template(containers=[])}, "spec.template.spec.containers: Required value"),
        ({"template": template(ephemeralContainers=[{"name": "e", "image": "x"}])}, "spec.template.spec.ephemeralContainers: Forbidden"),
    ],
)  # fmt: skip
def test_deployments(spec: Document, complaint: str) -> None:
    found = complaints(resources.DEPLOYMENTS, deployment(**spec))
    assert any(complaint in c for c in found), found


def test_a_deployment_without_a_template() -> None:
    document = deployment()
    del document["spec"]["template"]
    assert complaints(resources.DEPLOYMENTS, document) == ["spec.template: Required value"]


@pytest.mark.parametrize("resource", [resources.DEPLOYMENTS, resources.REPLICA_SETS])
def test_selectors_cannot_change(resource: Resource) -> None:
    labels = {"app": "web", "tier": "front"}
    new = deployment(selector={"matchLabels": labels}, template={**template(), "metadata": {"labels": labels}})
    assert complaints(resource, new, deployment()) == [
        'spec.selector: Invalid value: {"matchLabels":{"app":"web","tier":"front"}}: field is immutable'
    ]


def test_replica_sets() -> None:
    spec = {"replicas": -1, "selector": {"matchLabels": {"app": "web"}}, "template": template()}
    document = defaulted(resources.REPLICA_SETS, {**named(), "spec": spec})
    assert complaints(resources.REPLICA_SETS, document) == [
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    ]


# --- services


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"ports": []}, "spec.ports: Required value"),
        ({"ports": [{"port": 0}]}, "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
        ({"ports": [{"port": 65536}]}, "spec.ports[0].port: Invalid value: 65536: must be between 1 and 65535, inclusive"),
        ({"ports": [{"port": 80, "protocol": "ICMP"}]}, 'spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'),
        ({"ports": [{"port": 80, "targetPort": 70000}]}, "spec.ports[0].targetPort: Invalid value: 70000: must be between"),
        ({"ports": [{"port": 80, "targetPort": "Http_"}]}, 'spec.ports[0].targetPort: Invalid value: "Http_": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)'),
        ({"ports": [{"port": 80, "targetPort": "a-name-too-long-x"}]}, "must be no more than 15 characters"),
        ({"ports": [{"port": 80, "name": "A"}]}, f'spec.ports[0].name: Invalid value: "A": {LABEL_RULE}'),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 81}]}, "spec.ports[1].name: Required value"),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]}, 'spec.ports[1].name: Duplicate value: "a"'),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}, 'spec.ports[1]: Duplicate value: {"protocol":"TCP","port":80}'),
        ({"ports": [{"port": 80, "nodePort": 30000}]}, "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"),
        ({"type": "NodePort", "ports": [{"port": 80, "name": "a", "nodePort": 30000}, {"port": 81, "name": "b", "nodePort": 30000}]}, "spec.ports[1].nodePort: Duplicate value: 30000"),
        ({"type": "Public"}, 'spec.type: Unsupported value: "Public": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"'),
        ({"type": "ExternalName"}, "spec.externalName: Required value"),
        ({"type": "ExternalName", "externalName": "a b"}, 'spec.externalName: Invalid value: "a b": a lowercase RFC 1123 subdomain'),
        ({"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.0.0.1"}, "spec.clusterIP: Forbidden: may not be set when `type` is 'ExternalName'"),
        ({"type": "NodePort", "clusterIP": "None"}, "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"),
        ({"clusterIP": "10.0.0"}, 'spec.clusterIPs[0]: Invalid value: "10.0.0": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'),
        ({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]}, "spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: first value must match `clusterIP`"),
        ({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "None"]}, "'None' must be the first and only value"),
        ({"sessionAffinity": "Cookie"}, 'spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"'),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}, "timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400"),
        ({"selector": {"a b": "c"}}, 'spec.selector: Invalid value: "a b"'),
        ({"externalIPs": ["here"]}, 'spec.externalIPs[0]: Invalid value: "here": must be a valid IP address'),
        ({"externalTrafficPolicy": "Local"}, 'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services'),
        ({"type": "NodePort", "externalTrafficPolicy": "Near"}, 'spec.externalTrafficPolicy: Unsupported value: "Near"'),
        ({"internalTrafficPolicy": "Near"}, 'spec.internalTrafficPolicy: Unsupported value: "Near"'),
        ({"ipFamilies": ["IPv5"]}, 'spec.ipFamilies[0]: Unsupported value: "IPv5"'),
        ({"loadBalancerSourceRanges": ["10.0.0.0/8"]}, "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"),
        ({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10"]}, 'spec.loadBalancerSourceRanges[0]: Invalid value: "10": must be a valid CIDR value'),
        ({"allocateLoadBalancerNodePorts": True}, "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'"),
    ],
)  # fmt: skip
def test_services(spec: Document, complaint: str) -> None:
    found = complaints(resources.SERVICES, service(**spec))
    assert any(complaint in c for c in found), found


@pytest.mark.parametrize(
    "spec",
    [
        {"clusterIP": "None", "ports": []},
        {"type": "ExternalName", "externalName": "example.com.", "ports": []},
        {"ports": [{"port": 53, "name": "u", "protocol": "UDP"}, {"port": 53, "name": "t"}]},
        {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]},
        {"clusterIP": "10.0.0.1"},
        {"sessionAffinity": "ClientIP"},
    ],
)
def test_good_services(spec: Document) -> None:
    assert complaints(resources.SERVICES, service(**spec)) == []


def test_the_address_of_a_service_cannot_change() -> None:
    old, new = service(clusterIP="10.96.0.1"), service(clusterIP="10.96.0.2")
    assert complaints(resources.SERVICES, new, old) == [
        'spec.clusterIPs[0]: Invalid value: ["10.96.0.2"]: may not change once set'
    ]
    named_service = service(type="ExternalName", externalName="a.b", ports=[])
    assert complaints(resources.SERVICES, named_service, old) == []


# --- endpoints


def endpoint_slice(**fields: Any) -> Document:
    given = {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}], **fields}
    return defaulted(resources.ENDPOINT_SLICES, {**named(), **given})


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"addressType": "IPX"}, 'addressType: Unsupported value: "IPX": supported values: "FQDN", "IPv4", "IPv6"'),
        ({"addressType": ""}, "addressType: Required value"),
        ({"endpoints": [{}]}, "endpoints[0].addresses: Required value: must contain at least 1 address"),
        ({"endpoints": [{"addresses": ["10.0.0"]}]}, 'endpoints[0].addresses[0]: Invalid value: "10.0.0": must be a valid IP'),
        ({"endpoints": [{"addresses": ["fd00::1"]}]}, 'endpoints[0].addresses[0]: Invalid value: "fd00::1": must be an IPv4 address'),
        ({"endpoints": [{"addresses": ["127.0.0.1"]}]}, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ({"endpoints": [{"addresses": ["0.0.0.0"]}]}, "may not be unspecified (0.0.0.0)"),
        ({"endpoints": [{"addresses": ["169.254.1.1"]}]}, "may not be in the link-local range"),
        ({"endpoints": [{"addresses": ["10.0.0.1"] * 101}]}, "endpoints[0].addresses: Too many: 101: must have at most 100 items"),
        ({"endpoints": [{"addresses": ["10.0.0.1"], "hostname": "A"}]}, 'endpoints[0].hostname: Invalid value: "A"'),
        ({"endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "A"}]}, 'endpoints[0].nodeName: Invalid value: "A"'),
        ({"endpoints": [{"addresses": ["10.0.0.1"]}] * 1001}, "endpoints: Too many: 1001: must have at most 1000 items"),
        ({"ports": [{"port": 0}]}, "ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
        ({"ports": [{"port": 80}, {"port": 81}]}, 'ports[1].name: Duplicate value: ""'),
        ({"ports": [{"port": 80, "protocol": "X"}]}, 'ports[0].protocol: Unsupported value: "X"'),
    ],
)  # fmt: skip
def test_endpoint_slices(fields: Document, complaint: str) -> None:
    found = complaints(resources.ENDPOINT_SLICES, endpoint_slice(**fields))
    assert any(complaint in c for c in found), found


def test_good_slices_and_their_address_type() -> None:
    assert complaints(resources.ENDPOINT_SLICES, endpoint_slice()) == []
    names = endpoint_slice(addressType="FQDN", endpoints=[{"addresses": ["a.example.com"]}])
    assert complaints(resources.ENDPOINT_SLICES, names) == []
    assert complaints(resources.ENDPOINT_SLICES, names, endpoint_slice()) == [
        'addressType: Invalid value: "FQDN": field is immutable'
    ]


def test_old_endpoints() -> None:
    good = {**named(), "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80, "protocol": "TCP"}]}]}
    assert complaints(resources.ENDPOINTS, good) == []
    bad = {
        **named(),
        "subsets": [{"addresses": [{"ip": "x"}], "ports": [{"port": 0}, {"port": 1, "protocol": "X"}]}, {}],
    }
    assert complaints(resources.ENDPOINTS, bad) == [
        'subsets[0].addresses[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
        "subsets[0].ports[0].name: Required value",
        "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        "subsets[0].ports[0].protocol: Required value",
        "subsets[0].ports[1].name: Required value",
        'subsets[0].ports[1].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", "UDP"',
        "subsets[1]: Required value: must specify `addresses` or `notReadyAddresses`",
    ]


# --- config


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"data": {"a/b": "x"}}, "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.'"),
        ({"data": {"..": "x"}}, "data[..]: Invalid value: \"..\": must not start with '..'"),
        ({"data": {"a": "x"}, "binaryData": {"a": "eA=="}}, 'data[a]: Invalid value: "a": duplicate of key present in binaryData'),
        ({"data": {"a": "x" * 1048577}}, "Too long: may not be more than 1048576 bytes"),
        ({"binaryData": {"a": "x" * 1398104}}, "Too long: may not be more than 1048576 bytes"),
    ],
)  # fmt: skip
def test_config_maps(fields: Document, complaint: str) -> None:
    found = complaints(resources.CONFIG_MAPS, {**named(), **fields})
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize("resource", [resources.CONFIG_MAPS, resources.SECRETS])
def test_what_was_made_immutable_stays(resource: Resource) -> None:
    old = {**named(), "type": "Opaque", "data": {"a": "eA=="}, "immutable": True}
    assert complaints(resource, {**old, "metadata": named(labels={"a": "b"})["metadata"]}, old) == []
    frozen = "Forbidden: field is immutable when `immutable` is set"
    assert complaints(resource, {**old, "data": {}}, old) == [f"data: {frozen}"]
    assert complaints(resource, {**old, "immutable": False}, old) == [f"immutable: {frozen}"]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}, "data[tls.key]: Required value"),
        ({"type": "kubernetes.io/ssh-auth"}, "data[ssh-privatekey]: Required value"),
        ({"type": "kubernetes.io/basic-auth"}, "data[username]: Required value"),
        ({"type": "kubernetes.io/service-account-token"}, "metadata.annotations[kubernetes.io/service-account.name]: Required value"),
        ({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "eA=="}}, 'data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": must be valid json'),
        ({"data": {"a b": ""}}, 'data[a b]: Invalid value: "a b"'),
        ({"data": {"a": "x" * 1398104}}, "data: Too long: may not be more than 1048576 bytes"),
    ],
)  # fmt: skip
def test_secrets(fields: Document, complaint: str) -> None:
    found = complaints(resources.SECRETS, {**named(), **fields})
    assert any(complaint in c for c in found), found


def test_the_type_of_a_secret_cannot_change() -> None:
    old = {**named(), "type": "Opaque"}
    assert complaints(resources.SECRETS, {**old, "type": "other"}, old) == [
        'type: Invalid value: "other": field is immutable'
    ]


# --- cluster


def test_nodes() -> None:
    taints = [{"key": "a b", "effect": "NoSchedule"}, {"key": "a", "value": "!", "effect": "Never"}]
    found = complaints(resources.NODES, {"metadata": {"name": "n"}, "spec": {"taints": taints, "podCIDRs": ["10"]}})
    assert [c.split(": ")[0] for c in found] == [
        "spec.taints[0].key", "spec.taints[1].value", "spec.taints[1].effect", "spec.podCIDRs[0]",
    ]  # fmt: skip
    twice = {"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}] * 2}}
    assert complaints(resources.NODES, twice) == ['spec.taints[1]: Duplicate value: {"key":"a","effect":"NoSchedule"}']


def test_a_nodes_range_is_given_once() -> None:
    bare: Document = {"metadata": {"name": "n"}, "spec": {}}
    given = {"metadata": {"name": "n"}, "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}}
    other = {"metadata": {"name": "n"}, "spec": {"podCIDR": "10.244.2.0/24", "podCIDRs": ["10.244.2.0/24"]}}
    assert complaints(resources.NODES, given, bare) == []
    rule = 'Forbidden: node updates may not change podCIDR except from "" to valid'
    assert complaints(resources.NODES, other, given) == [f"spec.podCIDR: {rule}", f"spec.podCIDRs: {rule}"]


def test_leases() -> None:
    document = {**named(), "spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}
    assert complaints(resources.LEASES, document) == [
        "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
    ]


def test_events_lie_with_what_they_are_about() -> None:
    assert complaints(resources.EVENTS, {**named(), "involvedObject": {"namespace": "other"}}) == [
        'involvedObject.namespace: Invalid value: "other": does not match event.namespace'
    ]
    assert complaints(resources.EVENTS, {**named(), "involvedObject": {"kind": "Node"}}) == []


def test_finalizers_of_namespaces() -> None:
    document = {"metadata": {"name": "x"}, "spec": {"finalizers": ["mine"]}}
    assert complaints(resources.NAMESPACES, document) == [
        'spec.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified'
    ]


# --- statuses


@pytest.mark.parametrize(
    ("resource", "status", "complaint"),
    [
        (resources.PODS, {"phase": "Sleeping"}, 'status.phase: Unsupported value: "Sleeping"'),
        (resources.PODS, {"podIPs": [{"ip": "x"}]}, 'status.podIPs[0].ip: Invalid value: "x"'),
        (resources.PODS, {"podIPs": [{"ip": "10.0.0.1"}] * 2}, 'status.podIPs[1]: Duplicate value: "10.0.0.1"'),
        (resources.DEPLOYMENTS, {"replicas": -1}, "status.replicas: Invalid value: -1"),
        (resources.REPLICA_SETS, {"replicas": 1, "readyReplicas": 2}, "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"),
        (resources.REPLICA_SETS, {"replicas": 1, "availableReplicas": 1}, "status.availableReplicas: Invalid value: 1: cannot be greater than readyReplicas"),
        (resources.NODES, {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}] * 2}, "status.addresses[1]: Duplicate value"),
    ],
)  # fmt: skip
def test_statuses(resource: Resource, status: Document, complaint: str) -> None:
    (cause,) = validate_status(resource, {**named(), "status": status}, named())
    assert complaint in str(cause)


def test_containers_that_are_never_restarted_stay_terminated() -> None:
    ended = {"containerStatuses": [{"name": "web", "state": {"terminated": {"exitCode": 0}}}]}
    running = {"containerStatuses": [{"name": "web", "state": {"running": {}}}]}
    old = {**pod(restartPolicy="Never"), "status": ended}
    (cause,) = validate_status(resources.PODS, {**old, "status": running}, old)
    assert (cause.field, cause.reason) == ("status.containerStatuses[0].state", CauseType.FORBIDDEN)
    restarting = {**pod(restartPolicy="Always"), "status": ended}
    assert validate_status(resources.PODS, {**restarting, "status": running}, restarting) == []


def test_the_class_of_a_pod_stays() -> None:
    old = {**pod(), "status": {"qosClass": "Burstable"}}
    (cause,) = validate_status(resources.PODS, {**old, "status": {"qosClass": "BestEffort"}}, old)
    assert cause.field == "status.qosClass"
