"""The rules for pods, in Kubernetes' words, and what may change in one."""

from __future__ import annotations

from typing import Any

import pytest

from kybern.api import resources
from kybern.api.metadata import copy_json
from kybern.api.validation import validate
from tests.unit.api.objects import container, pod

Document = dict[str, Any]


def complaints(new: Document, old: Document | None = None) -> list[str]:
    return [str(c) for c in validate(resources.PODS, new, old)]


def expect(document: Document, complaint: str) -> None:
    found = complaints(document)
    assert any(complaint in c for c in found), found


C = "spec.containers[0]"


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"name": ""}, f"{C}.name: Required value"),
        ({"name": "Web"}, f'{C}.name: Invalid value: "Web": a lowercase RFC 1123 label must consist of'),
        ({"image": ""}, f"{C}.image: Required value"),
        ({"image": " nginx"}, f'{C}.image: Invalid value: " nginx": must not have leading or trailing whitespace'),
        ({"imagePullPolicy": "Often"}, f'{C}.imagePullPolicy: Unsupported value: "Often": supported values: "Always", "IfNotPresent", "Never"'),
        ({"terminationMessagePolicy": "X"}, f'{C}.terminationMessagePolicy: Unsupported value: "X": supported values: "FallbackToLogsOnError", "File"'),
        ({"ports": [{}]}, f"{C}.ports[0].containerPort: Required value"),
        ({"ports": [{"containerPort": 70000}]}, f"{C}.ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"),
        ({"ports": [{"containerPort": 1, "hostPort": 70000}]}, f"{C}.ports[0].hostPort: Invalid value: 70000"),
        ({"ports": [{"containerPort": 1, "protocol": "X"}]}, f'{C}.ports[0].protocol: Unsupported value: "X"'),
        ({"ports": [{"containerPort": 1, "name": "a_b"}]}, f'{C}.ports[0].name: Invalid value: "a_b": must contain only alpha-numeric'),
        ({"ports": [{"containerPort": 1, "name": "1"}]}, f'{C}.ports[0].name: Invalid value: "1": must contain at least one letter (a-z)'),
        ({"ports": [{"containerPort": 1, "name": "a--b"}]}, "must not contain consecutive hyphens"),
        ({"ports": [{"containerPort": 1, "name": "-a"}]}, "must not begin or end with a hyphen"),
        ({"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]}, f'{C}.ports[1].name: Duplicate value: "a"'),
        ({"ports": [{"containerPort": 1, "hostPort": 1}, {"containerPort": 2, "hostPort": 1}]}, f'{C}.ports[1].hostPort: Duplicate value: "TCP//1"'),
        ({"ports": [{"containerPort": 1, "hostPort": 1, "hostIP": "x"}]}, f'{C}.ports[0].hostIP: Invalid value: "x"'),
        ({"env": [{"name": ""}]}, f"{C}.env[0].name: Required value"),
        ({"env": [{"name": "A=B"}]}, f'{C}.env[0].name: Invalid value: "A=B": a valid environment variable name must consist only of printable ASCII characters other than \'=\''),
        ({"env": [{"name": "A", "valueFrom": {}}]}, f'{C}.env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`'),
        ({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}, "may not be specified when `value` is not empty"),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}, "secretKeyRef": {"name": "s", "key": "k"}}}]}, "may not have more than one field specified at a time"),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.color"}}}]}, f'{C}.env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "spec.color"'),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": ""}}}]}, f"{C}.env[0].valueFrom.fieldRef.fieldPath: Required value"),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a b']"}}}]}, f'{C}.env[0].valueFrom.fieldRef: Invalid value: "a b"'),
        ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "", "key": "a b"}}}]}, f'{C}.env[0].valueFrom.secretKeyRef.key: Invalid value: "a b"'),
        ({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"key": ""}}}]}, f"{C}.env[0].valueFrom.configMapKeyRef.key: Required value"),
        ({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": ""}}}]}, f"{C}.env[0].valueFrom.resourceFieldRef.resource: Required value"),
        ({"envFrom": [{}]}, f'{C}.envFrom[0]: Invalid value: "": must specify one of: `configMapRef` or `secretRef`'),
        ({"envFrom": [{"secretRef": {}, "prefix": "="}]}, f"{C}.envFrom[0].secretRef.name: Required value"),
        ({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}, f'{C}.resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'),
        ({"resources": {"limits": {"memory": "-1"}}}, f'{C}.resources.limits[memory]: Invalid value: "-1": must be greater than or equal to 0'),
        ({"resources": {"limits": {"speed": "1"}}}, f'{C}.resources.limits[speed]: Invalid value: "speed": must be a standard resource type or fully qualified'),
        ({"resources": {"limits": {"example.com/gpu": "500m"}}}, f'{C}.resources.limits[example.com/gpu]: Invalid value: "500m": must be an integer'),
        ({"resources": {"limits": {"example.com/gpu": "2"}, "requests": {"example.com/gpu": "1"}}}, "must be equal to example.com/gpu limit of 2"),
        ({"volumeMounts": [{"name": "v", "mountPath": "/x"}]}, f'{C}.volumeMounts[0].name: Not found: "v"'),
        ({"volumeMounts": [{"name": "data"}]}, f"{C}.volumeMounts[0].mountPath: Required value"),
        ({"volumeMounts": [{"name": "data", "mountPath": "/x"}] * 2}, f'{C}.volumeMounts[1].mountPath: Invalid value: "/x": must be unique'),
        ({"volumeMounts": [{"name": "data", "mountPath": "/x", "subPath": "/a"}]}, f'{C}.volumeMounts[0].subPath: Invalid value: "/a": must be a relative path'),
        ({"volumeMounts": [{"name": "data", "mountPath": "/x", "subPath": "a/../b"}]}, "must not contain '..'"),
        ({"volumeMounts": [{"name": "data", "mountPath": "/x", "subPath": "a", "subPathExpr": "b"}]}, "subPathExpr and subPath are mutually exclusive"),
        ({"livenessProbe": {}}, f"{C}.livenessProbe: Required value: must specify a handler type"),
        ({"livenessProbe": {"tcpSocket": {"port": 1}, "exec": {"command": ["x"]}}}, f"{C}.livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"),
        ({"livenessProbe": {"tcpSocket": {"port": 0}}}, f"{C}.livenessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive"),
        ({"livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2}}, f"{C}.livenessProbe.successThreshold: Invalid value: 2: must be 1"),
        ({"livenessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": -1}}, f"{C}.livenessProbe.periodSeconds: Invalid value: -1"),
        ({"livenessProbe": {"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 0}}, "terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0"),
        ({"readinessProbe": {"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 1}}, "must not be set for readinessProbes"),
        ({"readinessProbe": {"exec": {}}}, f"{C}.readinessProbe.exec.command: Required value"),
        ({"readinessProbe": {"httpGet": {"port": "UP", "scheme": "FTP"}}}, f'{C}.readinessProbe.httpGet.scheme: Unsupported value: "FTP": supported values: "HTTP", "HTTPS"'),
        ({"readinessProbe": {"httpGet": {"port": 1, "httpHeaders": [{"name": "a b", "value": ""}]}}}, f"{C}.readinessProbe.httpGet.httpHeaders[0].name: Invalid value"),
        ({"readinessProbe": {"grpc": {"port": 0}}}, f"{C}.readinessProbe.grpc.port: Invalid value: 0"),
        ({"lifecycle": {"preStop": {}}}, f"{C}.lifecycle.preStop: Required value: must specify a handler type"),
        ({"lifecycle": {"preStop": {"sleep": {"seconds": -1}}}}, f"{C}.lifecycle.preStop.sleep.seconds: Invalid value: -1"),
        ({"securityContext": {"runAsUser": -1}}, f"{C}.securityContext.runAsUser: Invalid value: -1"),
        ({"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}}, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"),
        ({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}, "allowPrivilegeEscalation": False}}, "CAP_SYS_ADMIN"),
        ({"restartPolicy": "Sometimes"}, f'{C}.restartPolicy: Unsupported value: "Sometimes"'),
    ],
)  # fmt: skip
def test_containers(fields: Document, complaint: str) -> None:
    expect(pod(containers=[container(**fields)], volumes=[{"name": "data"}]), complaint)


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"containers": []}, "spec.containers: Required value"),
        ({"containers": [container(), container()]}, 'spec.containers[1].name: Duplicate value: "web"'),
        ({"initContainers": [container()]}, 'spec.initContainers[0].name: Duplicate value: "web"'),
        ({"initContainers": [container(name="i", readinessProbe={"tcpSocket": {"port": 1}})]}, "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"),
        ({"initContainers": [container(name="i", restartPolicy="Always", readinessProbe={})]}, "spec.initContainers[0].readinessProbe: Required value: must specify a handler type"),
        ({"ephemeralContainers": [container(name="e")]}, "spec.ephemeralContainers: Forbidden: cannot be set on create"),
        ({"restartPolicy": "Maybe"}, 'spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "Never", "OnFailure"'),
        ({"dnsPolicy": "Mine"}, 'spec.dnsPolicy: Unsupported value: "Mine": supported values: "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"'),
        ({"dnsPolicy": "None"}, "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None"),
        ({"dnsConfig": {"nameservers": ["a"]}}, 'spec.dnsConfig.nameservers[0]: Invalid value: "a": must be a valid IP'),
        ({"dnsConfig": {"nameservers": ["10.0.0.1"] * 4}}, "must not have more than 3 nameservers"),
        ({"dnsConfig": {"searches": ["a"] * 33}}, "must not have more than 32 search paths"),
        ({"dnsConfig": {"searches": ["a" * 100] * 30}}, "must not have more than 2048 characters"),
        ({"dnsConfig": {"options": [{"value": "1"}]}}, "spec.dnsConfig.options[0]: Required value: must not be empty"),
        ({"terminationGracePeriodSeconds": -1}, "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0"),
        ({"activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"),
        ({"nodeName": "N1"}, 'spec.nodeName: Invalid value: "N1": a lowercase RFC 1123 subdomain'),
        ({"hostname": "a.b"}, 'spec.hostname: Invalid value: "a.b": a lowercase RFC 1123 label'),
        ({"serviceAccountName": "A"}, 'spec.serviceAccountName: Invalid value: "A"'),
        ({"preemptionPolicy": "Always"}, 'spec.preemptionPolicy: Unsupported value: "Always"'),
        ({"nodeSelector": {"a b": "c"}}, 'spec.nodeSelector: Invalid value: "a b"'),
        ({"hostNetwork": True, "containers": [container(ports=[{"containerPort": 80, "hostPort": 81}])]}, "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true"),
        ({"imagePullSecrets": [{}]}, "spec.imagePullSecrets[0].name: Required value"),
        ({"hostAliases": [{"ip": "x", "hostnames": ["A"]}]}, 'spec.hostAliases[0].hostnames[0]: Invalid value: "A"'),
        ({"readinessGates": [{"conditionType": "a b"}]}, 'spec.readinessGates[0].conditionType: Invalid value: "a b"'),
        ({"schedulingGates": [{"name": "a"}, {"name": "a"}]}, 'spec.schedulingGates[1]: Duplicate value: "a"'),
        ({"securityContext": {"fsGroup": -1}}, "spec.securityContext.fsGroup: Invalid value: -1"),
        ({"securityContext": {"supplementalGroups": [-1]}}, "spec.securityContext.supplementalGroups[0]: Invalid value: -1"),
        ({"securityContext": {"sysctls": [{"name": "a", "value": "1"}] * 2}}, 'spec.securityContext.sysctls[1].name: Duplicate value: "a"'),
        ({"os": {"name": "plan9"}}, 'spec.os.name: Unsupported value: "plan9": supported values: "linux", "windows"'),
        ({"overhead": {"speed": "1"}}, "spec.overhead[speed]: Invalid value"),
    ],
)  # fmt: skip
def test_specs(spec: Document, complaint: str) -> None:
    expect(pod(**spec), complaint)


@pytest.mark.parametrize(
    ("volumes", "complaint"),
    [
        ([{"name": ""}], "spec.volumes[0].name: Required value"),
        ([{"name": "A"}], 'spec.volumes[0].name: Invalid value: "A": a lowercase RFC 1123 label'),
        ([{"name": "a"}, {"name": "a"}], 'spec.volumes[1].name: Duplicate value: "a"'),
        ([{"name": "a", "emptyDir": {}, "hostPath": {"path": "/"}}], "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"),
        ([{"name": "a", "emptyDir": {"sizeLimit": "-1"}}], "spec.volumes[0].emptyDir.sizeLimit: Forbidden"),
        ([{"name": "a", "configMap": {}}], "spec.volumes[0].configMap.name: Required value"),
        ([{"name": "a", "configMap": {"name": "x", "defaultMode": 0o1000}}], "spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive"),
        ([{"name": "a", "configMap": {"name": "x", "items": [{"key": "", "path": "../x"}]}}], "spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'"),
        ([{"name": "a", "secret": {}}], "spec.volumes[0].secret.secretName: Required value"),
        ([{"name": "a", "secret": {"secretName": "x", "items": [{"key": "a", "path": "/x"}]}}], "must be a relative path"),
        ([{"name": "a", "hostPath": {"path": ""}}], "spec.volumes[0].hostPath.path: Required value"),
        ([{"name": "a", "hostPath": {"path": "/a/../b"}}], "must not contain '..'"),
        ([{"name": "a", "hostPath": {"path": "/", "type": "Pipe"}}], 'spec.volumes[0].hostPath.type: Unsupported value: "Pipe"'),
        ([{"name": "a", "downwardAPI": {"items": [{"path": "x"}]}}], "spec.volumes[0].downwardAPI.items[0].fieldRef: Required value"),
        ([{"name": "a", "downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "spec.nodeName"}}]}}], 'fieldPath: Unsupported value: "spec.nodeName"'),
        ([{"name": "a", "downwardAPI": {"items": [{"path": "x", "resourceFieldRef": {"resource": "limits.cpu"}}]}}], "resourceFieldRef.containerName: Required value"),
        ([{"name": "a", "projected": {"sources": [{}]}}], "spec.volumes[0].projected.sources[0]: Required value: must specify at least one projection source"),
        ([{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 10}}]}}], "expirationSeconds: Invalid value: 10: may not specify a duration less than 10 minutes"),
        ([{"name": "a", "projected": {"sources": [{"configMap": {}, "secret": {"name": "x"}}]}}], "may not specify more than 1 volume type"),
        ([{"name": "a", "persistentVolumeClaim": {"claimName": ""}}], "spec.volumes[0].persistentVolumeClaim.claimName: Required value"),
        ([{"name": "a", "nfs": {"server": "", "path": "x"}}], 'spec.volumes[0].nfs.path: Invalid value: "x": must be an absolute path'),
        ([{"name": "a", "csi": {"driver": ""}}], "spec.volumes[0].csi.driver: Required value"),
    ],
)  # fmt: skip
def test_volumes(volumes: list[Document], complaint: str) -> None:
    expect(pod(volumes=volumes), complaint)


REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def node_terms(**requirement: Any) -> Document:
    term = {"matchExpressions": [requirement]}
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [term]}}}}


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"tolerations": [{"operator": "Equal"}]}, 'spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys"'),
        ({"tolerations": [{"key": "a b", "operator": "Exists"}]}, 'spec.tolerations[0].key: Invalid value: "a b"'),
        ({"tolerations": [{"key": "a", "operator": "Like"}]}, 'spec.tolerations[0].operator: Unsupported value: "Like"'),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]}, "value must be empty when `operator` is 'Exists'"),
        ({"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]}, "effect must be 'NoExecute' when `tolerationSeconds` is set"),
        ({"tolerations": [{"key": "a", "effect": "Never"}]}, 'spec.tolerations[0].effect: Unsupported value: "Never": supported values: "NoExecute", "NoSchedule", "PreferNoSchedule"'),
        ({"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": []}}}}, "must have at least one node selector term"),
        (node_terms(key="a", operator="In"), "values: Required value: must be specified when `operator` is 'In' or 'NotIn'"),
        (node_terms(key="a", operator="Exists", values=["x"]), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
        (node_terms(key="a", operator="Gt", values=["1", "2"]), "must be specified single value when `operator` is 'Lt' or 'Gt'"),
        (node_terms(key="a", operator="Gt", values=["x"]), "must be an integer"),
        (node_terms(key="a", operator="Is"), 'operator: Unsupported value: "Is"'),
        (node_terms(key="a b", operator="Exists"), 'matchExpressions[0].key: Invalid value: "a b"'),
        ({"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchFields": [{"key": "spec.x", "operator": "In", "values": ["a"]}]}]}}}}, "not a valid field selector key"),
        ({"affinity": {"nodeAffinity": {PREFERRED: [{"weight": 0, "preference": {}}]}}}, "weight: Invalid value: 0: must be in the range 1-100"),
        ({"affinity": {"podAffinity": {REQUIRED: [{}]}}}, "topologyKey: Required value: can not be empty"),
        ({"affinity": {"podAntiAffinity": {REQUIRED: [{"topologyKey": "a", "namespaces": ["A"]}]}}}, 'namespaces[0]: Invalid value: "A"'),
        ({"affinity": {"podAntiAffinity": {PREFERRED: [{"weight": 101, "podAffinityTerm": {"topologyKey": "a"}}]}}}, "must be in the range 1-100"),
        ({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]}, "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero"),
        ({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "", "whenUnsatisfiable": "X"}]}, 'whenUnsatisfiable: Unsupported value: "X"'),
        ({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}] * 2}, "spec.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable}: Duplicate value"),
        ({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 1}]}, "can only use minDomains if whenUnsatisfiable=DoNotSchedule"),
    ],
)  # fmt: skip
def test_scheduling(spec: Document, complaint: str) -> None:
    expect(pod(**spec), complaint)


@pytest.mark.parametrize(
    "spec",
    [
        {"tolerations": [{"operator": "Exists"}, {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]},
        node_terms(key="a", operator="Gt", values=["-5"]),
        {"affinity": {"podAntiAffinity": {REQUIRED: [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}}]}}},
        {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule", "minDomains": 2}]},
        {"initContainers": [container(name="sidecar", restartPolicy="Always", readinessProbe={"tcpSocket": {"port": 1}})]},
        {"hostNetwork": True, "containers": [container(ports=[{"containerPort": 80}])]},
        {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.1"], "options": [{"name": "ndots", "value": "2"}]}},
        {"containers": [container(env=[{"name": "a.b-c", "value": "$(x)"}, {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['A.b/C']"}}}])]},
        {"containers": [container(resources={"limits": {"hugepages-2Mi": "4Mi", "example.com/gpu": "1"}})]},
        {"volumes": [{"name": "p", "projected": {"sources": [{"configMap": {"name": "a"}}, {"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}]},
    ],
)  # fmt: skip
def test_good_pods(spec: Document) -> None:
    assert complaints(pod(**spec)) == []


# --- changes


def changed(old: Document, **spec: Any) -> Document:
    new: Document = copy_json(old)
    for key, value in spec.items():
        if value is None:
            new["spec"].pop(key, None)
        else:
            new["spec"][key] = value
    return new


def test_images_may_change() -> None:
    old = pod()
    new = copy_json(old)
    new["spec"]["containers"][0]["image"] = "nginx:2"
    assert complaints(new, old) == []
    new["spec"]["containers"][0].update(image="nginx", imagePullPolicy="Always")
    assert complaints(new, old) == []
    new["spec"]["containers"][0]["image"] = ""
    assert "spec.containers[0].image: Required value" in complaints(new, old)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"restartPolicy": "Never"}, "spec.restartPolicy"),
        ({"nodeName": "n1"}, "spec.nodeName"),
        ({"hostNetwork": True, "priority": 5}, "spec.hostNetwork, spec.priority"),
        ({"nodeSelector": {"a": "b"}}, "spec.nodeSelector"),
    ],
)
def test_other_fields_may_not(spec: Document, named: str) -> None:
    (complaint,) = complaints(changed(pod(), **spec), pod())
    assert complaint.startswith(
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
        "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing "
        "tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
    )
    assert complaint.endswith(f"; changed: {named}")


def test_containers_may_not_come_or_go() -> None:
    new = changed(pod(), containers=[container(), container(name="b")])
    assert "spec.containers: Forbidden: pod updates may not add or remove containers" in complaints(new, pod())


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        (None, 5, ""),
        (5, 4, ""),
        (5, 6, "spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"),
        (5, None, "must not update from a positive integer to nil value"),
    ],
)
def test_deadlines_get_shorter(before: int | None, after: int | None, rule: str) -> None:
    old = changed(pod(), activeDeadlineSeconds=before)
    found = complaints(changed(old, activeDeadlineSeconds=after), old)
    assert [rule in c for c in found] == ([True] if rule else [])


def test_tolerations_are_added() -> None:
    old = pod(tolerations=[{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}])
    first = old["spec"]["tolerations"][0]
    more = {"key": "b", "operator": "Exists"}
    assert complaints(changed(old, tolerations=[first, more]), old) == []
    assert complaints(changed(old, tolerations=[{**first, "tolerationSeconds": 9}]), old) == []
    assert complaints(changed(old, tolerations=[more]), old) == [
        "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
    ]


def test_gates_are_opened_and_gated_pods_narrowed() -> None:
    old = pod(schedulingGates=[{"name": "a"}, {"name": "b"}], nodeSelector={"x": "y"})
    assert complaints(changed(old, schedulingGates=[{"name": "a"}]), old) == []
    assert complaints(changed(old, nodeSelector={"x": "y", "z": "1"}), old) == []
    (complaint,) = complaints(changed(old, nodeSelector={"x": "other"}), old)
    assert "only additions are allowed" in complaint
    (complaint,) = complaints(changed(old, schedulingGates=[{"name": "c"}]), old)
    assert complaint.startswith("spec.schedulingGates[0]: Forbidden: only deletion is allowed")
