"""The defaults of each kind."""

from __future__ import annotations

from typing import Any

import pytest

from kybern.api import resources
from kybern.api.defaults import apply_kind_defaults
from kybern.api.defaults.pods import pull_policy
from tests.unit.api.objects import container, defaulted, deployment, pod, service, template

Document = dict[str, Any]


def test_a_pod() -> None:
    assert pod()["spec"] == {
        "containers": [
            {
                "name": "web",
                "image": "nginx:1",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "IfNotPresent",
            }
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "enableServiceLinks": True,
    }


def test_what_is_set_stays() -> None:
    spec = pod(terminationGracePeriodSeconds=0, enableServiceLinks=False, restartPolicy="Never")["spec"]
    assert (spec["terminationGracePeriodSeconds"], spec["enableServiceLinks"], spec["restartPolicy"]) == (
        0,
        False,
        "Never",
    )


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("registry:5000/nginx", "Always"),
        ("nginx:1.25", "IfNotPresent"),
        ("registry:5000/a/nginx:1", "IfNotPresent"),
        ("nginx@sha256:0123", "IfNotPresent"),
        ("nginx:latest@sha256:0123", "IfNotPresent"),
    ],
)
def test_pull_policies(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


def test_requests_follow_limits_in_pods_but_not_in_templates() -> None:
    limited = container(resources={"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})
    in_pod = pod(containers=[limited])["spec"]["containers"][0]["resources"]
    assert in_pod["requests"] == {"cpu": "500m", "memory": "1Gi"}
    limited = container(resources={"limits": {"cpu": "1"}})
    spec = deployment(template=template(containers=[limited]))["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"] == {"limits": {"cpu": "1"}}
    assert "enableServiceLinks" not in spec


def test_probes_ports_and_environment() -> None:
    made = pod(
        containers=[
            container(
                ports=[{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}],
                readinessProbe={"httpGet": {"port": 80}, "periodSeconds": 3},
                livenessProbe={"grpc": {"port": 1}},
                lifecycle={"preStop": {"httpGet": {"port": "http"}}},
                env=[
                    {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                ],
            )
        ]
    )["spec"]["containers"][0]
    assert [p["protocol"] for p in made["ports"]] == ["TCP", "UDP"]
    assert made["readinessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 3,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert made["livenessProbe"]["grpc"] == {"port": 1, "service": ""}
    assert made["lifecycle"]["preStop"]["httpGet"] == {"port": "http", "path": "/", "scheme": "HTTP"}
    assert made["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert made["env"][1]["valueFrom"]["resourceFieldRef"]["divisor"] == "0"


def test_volumes() -> None:
    volumes = [
        {"name": "nothing"},
        {"name": "secret", "secret": {"secretName": "x"}},
        {"name": "map", "configMap": {"name": "x", "defaultMode": 0o400}},
        {"name": "host", "hostPath": {"path": "/x"}},
        {"name": "down", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "x"}},
        {"name": "image", "image": {"reference": "data"}},
    ]
    made = {v.pop("name"): v for v in pod(volumes=volumes)["spec"]["volumes"]}
    assert made == {
        "nothing": {"emptyDir": {}},
        "secret": {"secret": {"secretName": "x", "defaultMode": 420}},
        "map": {"configMap": {"name": "x", "defaultMode": 256}},
        "host": {"hostPath": {"path": "/x", "type": ""}},
        "down": {
            "downwardAPI": {
                "items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels", "apiVersion": "v1"}}],
                "defaultMode": 420,
            }
        },
        "token": {
            "projected": {
                "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}],
                "defaultMode": 420,
            }
        },
        "claim": {"persistentVolumeClaim": {"claimName": "x"}},
        "image": {"image": {"reference": "data", "pullPolicy": "Always"}},
    }


def test_on_the_hosts_network_ports_are_the_hosts() -> None:
    spec = pod(hostNetwork=True, containers=[container(ports=[{"containerPort": 80}])])["spec"]
    assert spec["containers"][0]["ports"][0]["hostPort"] == 80


@pytest.mark.parametrize("field", ["serviceAccount", "serviceAccountName"])
def test_both_names_of_the_service_account(field: str) -> None:
    spec = pod(**{field: "me"})["spec"]
    assert (spec["serviceAccount"], spec["serviceAccountName"]) == ("me", "me")


def test_a_deployment() -> None:
    spec = deployment()["spec"]
    assert {k: spec[k] for k in ("replicas", "revisionHistoryLimit", "progressDeadlineSeconds", "strategy")} == {
        "replicas": 1,
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
    }
    assert deployment(replicas=0)["spec"]["replicas"] == 0
    assert deployment(strategy={"type": "Recreate"})["spec"]["strategy"] == {"type": "Recreate"}
    partly = deployment(strategy={"rollingUpdate": {"maxSurge": 1}})["spec"]["strategy"]
    assert partly["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": "25%"}


def test_a_replica_set() -> None:
    document = defaulted(resources.REPLICA_SETS, {"spec": {"selector": {}, "template": template()}})
    assert document["spec"]["replicas"] == 1
    assert document["spec"]["template"]["spec"]["restartPolicy"] == "Always"


def test_a_service() -> None:
    assert service()["spec"] == {
        "selector": {"app": "web"},
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
    }


def test_types_of_services() -> None:
    assert service(type="NodePort")["spec"]["externalTrafficPolicy"] == "Cluster"
    balanced = service(type="LoadBalancer")["spec"]
    assert (balanced["externalTrafficPolicy"], balanced["allocateLoadBalancerNodePorts"]) == ("Cluster", True)
    named = service(type="ExternalName", externalName="example.com", ports=[])["spec"]
    assert not named.keys() & {"ipFamilies", "internalTrafficPolicy", "clusterIPs"}


def test_addresses_and_affinity_of_services() -> None:
    spec = service(clusterIP="fd00::1")["spec"]
    assert (spec["clusterIPs"], spec["ipFamilies"]) == (["fd00::1"], ["IPv6"])
    assert service(clusterIP="None")["spec"]["clusterIPs"] == ["None"]
    sticky = service(sessionAffinity="ClientIP")["spec"]
    assert sticky["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    loose = service(sessionAffinityConfig={"clientIP": {"timeoutSeconds": 5}})["spec"]
    assert "sessionAffinityConfig" not in loose


def test_a_namespace() -> None:
    document = defaulted(resources.NAMESPACES, {"metadata": {"name": "x"}})
    assert document["metadata"]["labels"] == {"kubernetes.io/metadata.name": "x"}
    assert document["spec"] == {"finalizers": ["kubernetes"]}
    ending = {"metadata": {"name": "x", "deletionTimestamp": "2026-11-20T10:00:00Z"}, "spec": {}}
    assert defaulted(resources.NAMESPACES, ending)["spec"] == {}


def test_a_secret() -> None:
    document = defaulted(resources.SECRETS, {"data": {"a": "YQ==", "b": "Yg=="}, "stringData": {"b": "new", "c": ""}})
    assert (document["type"], document["data"]) == ("Opaque", {"a": "YQ==", "b": "bmV3", "c": ""})
    assert "stringData" not in document


def test_endpoints() -> None:
    slices = defaulted(resources.ENDPOINT_SLICES, {"addressType": "IPv4", "ports": [{"port": 80}]})
    assert (slices["endpoints"], slices["ports"]) == ([], [{"port": 80, "name": "", "protocol": "TCP"}])
    old = defaulted(resources.ENDPOINTS, {"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]})
    assert old["subsets"][0]["ports"] == [{"port": 80, "protocol": "TCP"}]


def test_a_node_can_use_all_that_it_has() -> None:
    document = defaulted(resources.NODES, {"status": {"capacity": {"cpu": "2"}}})
    assert document["status"]["allocatable"] == {"cpu": "2"}
    document["status"]["allocatable"]["cpu"] = "1"
    assert document["status"]["capacity"] == {"cpu": "2"}


def test_bodies_of_subresources() -> None:
    request: Document = {}
    apply_kind_defaults("authentication.k8s.io", "TokenRequest", request)
    assert request == {"spec": {"expirationSeconds": 3600}}
