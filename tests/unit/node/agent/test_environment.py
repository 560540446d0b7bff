"""Variables, names and identities: tables."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import msgspec
import pytest

from kybern.api.types import ConfigMap, Pod, Secret, Service
from kybern.config.models import Cluster
from node.agent.environment import Environment, expand, service_variables
from node.agent.failures import ActionError
from node.agent.qos import limits_of, oom_score_adj, qos_class
from node.agent.resolv import Resolver, hostname_of, hosts_of, parse_resolv, resolver_of
from node.agent.security import security_of
from node.agent.sources import registry_logins, registry_of
from node.runtime.interface import Image
from node.volumes.interface import HostFacts, Token
from tests.unit.node.agent.facts import container, pod


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(NONE)", "$(NONE)"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
        ("$()", "$()"),
    ],
)
def test_references_are_expanded(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


class Sources:
    async def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        return msgspec.convert({"data": {"k": "v", "other": "w"}}, ConfigMap) if name == "c" else None

    async def secret(self, namespace: str, name: str) -> Secret | None:
        return msgspec.convert({"data": {"k": "dg=="}}, Secret) if name == "s" else None

    async def token(self, pod: Pod, audience: str, seconds: int) -> Token:
        raise AssertionError("no token is needed")


def build(env: list[dict[str, Any]], **more: Any) -> dict[str, str]:
    wanted = pod(container(env=env, **more), metadata={"labels": {"app": "web"}})
    environment = Environment(Sources(), HostFacts("n1", "192.168.7.11", 2000, 2**30))
    return dict(asyncio.run(environment.build(wanted, wanted.spec.containers[0], {"SVC": "x"}, "10.244.0.9")))


def test_variables_come_from_everywhere_and_the_last_one_counts() -> None:
    env: list[dict[str, Any]] = [
        {"name": "k", "value": "own"},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "zzz", "key": "k", "optional": True}}},
        {"name": "SUM", "value": "$(k)-$(other)-$(SVC)-$(P_k)"},
    ]
    sources = [{"configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}, "prefix": "P_"}]
    assert build(env, envFrom=sources) == {
        "SVC": "x",
        "k": "own",
        "other": "w",
        "P_k": "v",
        "LABEL": "web",
        "HOST": "192.168.7.11",
        "CPU": "2",
        "SUM": "own-w-x-v",
    }


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "zzz", "key": "k"}}, 'configmap "zzz" not found'),
        ({"configMapKeyRef": {"name": "c", "key": "zzz"}}, "couldn't find key zzz in ConfigMap default/c"),
        ({"secretKeyRef": {"name": "zzz", "key": "k"}}, 'secret "zzz" not found'),
        ({"fieldRef": {"fieldPath": "spec.nonsense"}}, "'spec.nonsense' of a pod cannot be read"),
    ],
)
def test_what_is_missing_is_named(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ActionError, match=message) as caught:
        build([{"name": "X", "valueFrom": source}])
    assert caught.value.reason == "CreateContainerConfigError"


def service(name: str, namespace: str, address: str, *ports: dict[str, Any]) -> Service:
    spec = {"clusterIP": address, "ports": ports or [{"port": 80}]}
    return msgspec.convert({"metadata": {"name": name, "namespace": namespace}, "spec": spec}, Service)


def test_service_variables() -> None:
    every = [
        service("kubernetes", "default", "10.96.0.1", {"name": "https", "port": 443, "protocol": "TCP"}),
        service("my-db", "mine", "10.96.0.7", {"port": 53, "protocol": "UDP"}),
        service("other", "theirs", "10.96.0.8"),
        service("headless", "mine", "None"),
    ]
    assert service_variables(every, "mine", links=True) == {
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "KUBERNETES_SERVICE_PORT": "443",
        "KUBERNETES_SERVICE_PORT_HTTPS": "443",
        "KUBERNETES_PORT": "tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP_PROTO": "tcp",
        "KUBERNETES_PORT_443_TCP_PORT": "443",
        "KUBERNETES_PORT_443_TCP_ADDR": "10.96.0.1",
        "MY_DB_SERVICE_HOST": "10.96.0.7",
        "MY_DB_SERVICE_PORT": "53",
        "MY_DB_PORT": "udp://10.96.0.7:53",
        "MY_DB_PORT_53_UDP": "udp://10.96.0.7:53",
        "MY_DB_PORT_53_UDP_PROTO": "udp",
        "MY_DB_PORT_53_UDP_PORT": "53",
        "MY_DB_PORT_53_UDP_ADDR": "10.96.0.7",
    }
    assert "MY_DB_SERVICE_HOST" not in service_variables(every, "mine", links=False)


# --- names

HOST = Resolver(("192.168.7.1",), ("lan",), ("timeout:2",))
CLUSTER = Cluster()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {},
            "search default.svc.cluster.local svc.cluster.local cluster.local lan\n"
            "nameserver 10.96.0.10\noptions ndots:5\n",
        ),
        ({"dnsPolicy": "Default"}, "search lan\nnameserver 192.168.7.1\noptions timeout:2\n"),
        ({"hostNetwork": True}, "search lan\nnameserver 192.168.7.1\noptions timeout:2\n"),
        (
            {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
            "search default.svc.cluster.local svc.cluster.local cluster.local lan\n"
            "nameserver 10.96.0.10\noptions ndots:5\n",
        ),
        (
            {
                "dnsPolicy": "None",
                "dnsConfig": {
                    "nameservers": ["1.2.3.4"],
                    "searches": ["x.example"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
                },
            },
            "search x.example\nnameserver 1.2.3.4\noptions ndots:2 edns0\n",
        ),
        (
            {"dnsConfig": {"searches": ["lan", "more"], "options": [{"name": "ndots", "value": "1"}]}},
            "search default.svc.cluster.local svc.cluster.local cluster.local lan more\n"
            "nameserver 10.96.0.10\noptions ndots:1\n",
        ),
    ],
)
def test_resolv_conf(spec: dict[str, Any], expected: str) -> None:
    assert resolver_of(pod(**spec), CLUSTER, HOST).text() == expected


def test_the_hosts_resolv_conf_is_read() -> None:
    text = "# x\ndomain a\nsearch b c .\nnameserver 1.1.1.1 # first\nnameserver 2.2.2.2\noptions rotate\n;no\n"
    assert parse_resolv(text) == Resolver(("1.1.1.1", "2.2.2.2"), ("b", "c"), ("rotate",))


def test_host_names() -> None:
    assert hostname_of(pod(), "n1") == "p"
    assert hostname_of(pod(hostname="db-0"), "n1") == "db-0"
    assert hostname_of(pod(hostNetwork=True), "n1") == "n1"
    assert hostname_of(pod(metadata={"name": "a" * 62 + "-b"}), "n1") == "a" * 62


def test_hosts_files() -> None:
    named = pod(hostname="db-0", subdomain="db")
    assert "10.244.0.2\tdb-0.db.default.svc.cluster.local\tdb-0\n" in hosts_of(named, CLUSTER, "db-0", "10.244.0.2", "")
    aliased = pod(hostNetwork=True, hostAliases=[{"ip": "1.2.3.4", "hostnames": ["x"]}])
    text = hosts_of(aliased, CLUSTER, "n1", "192.168.7.11", "127.0.0.1 localhost\n")
    assert "127.0.0.1 localhost\n" in text
    assert text.endswith("1.2.3.4\tx\n")
    assert "192.168.7.11" not in text


# --- identities and numbers

ROOT = Image("sha256:1", ("image:1",), (), 1)
NAMED = Image("sha256:1", ("image:1",), (), 1, user="app")
NUMBERED = Image("sha256:1", ("image:1",), (), 1, user="1001:1002")


@pytest.mark.parametrize(
    ("of_pod", "own", "image", "user"),
    [
        ({}, {}, ROOT, ""),
        ({"runAsUser": 5}, {}, ROOT, "5"),
        ({"runAsUser": 5, "runAsGroup": 6}, {"runAsUser": 7}, ROOT, "7:6"),
        ({"runAsGroup": 6}, {}, NUMBERED, "1001:6"),
        ({"runAsGroup": 6}, {}, ROOT, "0:6"),
        ({"runAsNonRoot": True}, {}, NUMBERED, ""),
        ({"runAsNonRoot": True}, {"runAsNonRoot": False}, ROOT, ""),
    ],
)
def test_users(of_pod: dict[str, Any], own: dict[str, Any], image: Image, user: str) -> None:
    wanted = pod(container(securityContext=own), securityContext=of_pod)
    assert security_of(wanted, wanted.spec.containers[0], image).user == user


@pytest.mark.parametrize(
    ("own", "image", "message"),
    [
        ({"runAsNonRoot": True}, ROOT, "image will run as root"),
        ({"runAsNonRoot": True}, NAMED, r"non-numeric user \(app\)"),
        ({"runAsNonRoot": True, "runAsUser": 0}, NUMBERED, "runAsUser breaks non-root policy"),
    ],
)
def test_root_is_refused(own: dict[str, Any], image: Image, message: str) -> None:
    wanted = pod(container(securityContext=own))
    with pytest.raises(ActionError, match=message):
        security_of(wanted, wanted.spec.containers[0], image)


def test_groups_and_privileges() -> None:
    own = {"privileged": True, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False}
    own["capabilities"] = {"add": ["NET_ADMIN"]}  # type: ignore[assignment]
    wanted = pod(container(securityContext=own), securityContext={"fsGroup": 9, "supplementalGroups": [8, 9]})
    found = security_of(wanted, wanted.spec.containers[0], ROOT)
    assert found.supplemental_groups == (8, 9)
    assert (found.privileged, found.read_only_root, found.allow_privilege_escalation) == (True, True, False)
    assert found.add_capabilities == ("NET_ADMIN",)


@pytest.mark.parametrize(
    ("containers", "kind", "shares", "quota", "memory", "oom"),
    [
        ([{}], "BestEffort", 2, 0, 0, 1000),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}], "Guaranteed", 1024, 100_000, 2**30, -997),
        ([{"requests": {"cpu": "250m"}}], "Burstable", 256, 0, 0, 999),
        ([{"requests": {"memory": "2Gi"}, "limits": {"memory": "3Gi"}}], "Burstable", 2, 0, 3 * 2**30, 500),
        ([{"limits": {"cpu": "1m"}}], "Burstable", 2, 1000, 0, 999),
        ([{"requests": {"memory": "4Gi"}}], "Burstable", 2, 0, 0, 3),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}, {}], "Burstable", 1024, 100_000, 2**30, 750),
    ],
)
def test_classes_and_limits(
    containers: list[dict[str, Any]], kind: str, shares: int, quota: int, memory: int, oom: int
) -> None:
    spec = pod(*(container(f"c{n}", resources=r) for n, r in enumerate(containers))).spec
    assert qos_class(spec) == kind
    found = limits_of(spec, spec.containers[0], capacity=4 * 2**30)
    assert (found.cpu_shares, found.cpu_quota_us, found.memory_bytes, found.oom_score_adj) == (
        shares,
        quota,
        memory,
        oom,
    )
    assert oom_score_adj(spec, spec.containers[0], 0) in (oom, 999)


# --- registries


def test_logins_of_registries() -> None:
    config = {
        "auths": {
            "https://index.docker.io/v1/": {"username": "a", "password": "b"},
            "reg:5000": {"auth": base64.b64encode(b"c:d:e").decode()},
            "empty": {},
        }
    }
    data = {".dockerconfigjson": base64.b64encode(msgspec.json.encode(config)).decode()}
    secret = msgspec.convert({"type": "kubernetes.io/dockerconfigjson", "data": data}, Secret)
    assert registry_logins(secret) == {
        "docker.io": {"username": "a", "password": "b"},
        "reg:5000": {"username": "c", "password": "d:e"},
    }
    broken = msgspec.convert({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e30"}}, Secret)
    assert registry_logins(broken) == {}
    assert registry_logins(msgspec.convert({"type": "Opaque", "data": data}, Secret)) == {}
    assert registry_of("registry-1.docker.io") == "docker.io"
