"""What the daemons' configurations follow from."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kybern.cli.cluster import (
    ClusterFile,
    Layout,
    NodeOptions,
    check,
    check_host,
    check_name,
    kubeconfig,
    master_config,
    node_config,
    server_names,
    settings,
    store_config,
)
from kybern.cli.errors import CliError
from kybern.config.models import Cluster, DockerRuntime

MEMBERS = {"m1": "192.168.1.11", "m2": "192.168.1.12", "m3": "192.168.1.13"}
LAYOUT = Layout(Path("/etc/kybern"), Path("/var/lib/kybern"))


def cluster(**changes: object) -> ClusterFile:
    given: dict[str, object] = {"endpoint": "https://api.example:6443", "members": MEMBERS}
    return ClusterFile(**(given | changes))  # type: ignore[arg-type]


def test_a_store_member_knows_all_members() -> None:
    config = store_config(cluster(), "m2", LAYOUT)
    assert config.client_address == "192.168.1.12:2379"
    assert config.peer_address == "192.168.1.12:2380"
    assert config.members == {n: f"{a}:2380" for n, a in MEMBERS.items()}
    assert config.clients == {n: f"{a}:2379" for n, a in MEMBERS.items()}
    assert config.data_dir == Path("/var/lib/kybern/store")
    assert config.backup_directory == Path("/var/lib/kybern/store-copies")
    assert config.tls.ca == Path("/etc/kybern/pki/store-ca.crt")


def test_a_master_asks_the_member_on_its_own_host_first() -> None:
    config = master_config(cluster(), "m2", LAYOUT)
    assert config.store == ["192.168.1.12:2379", "192.168.1.11:2379", "192.168.1.13:2379"]
    assert (config.rest_address, config.grpc_address) == ("192.168.1.12:6443", "192.168.1.12:6444")
    assert config.tls.ca != config.store_tls.ca


def test_a_node_knows_every_master() -> None:
    options = NodeOptions(docker="unix:///run/d.sock", cgroup_parent="/x", labels={"disk": "ssd"})
    config = node_config(cluster(), "n1", "192.168.1.101", LAYOUT, options)
    assert config.masters == [f"{a}:6444" for a in MEMBERS.values()]
    assert config.runtime == DockerRuntime(endpoint="unix:///run/d.sock", cgroup_parent="/x")
    assert config.labels == {"disk": "ssd"}
    assert config.agent_address == "192.168.1.101:10250"


def test_every_master_serves_the_names_that_clients_use() -> None:
    names = server_names(cluster(), "m1")
    assert {
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "10.96.0.1",
        "m1",
        "192.168.1.11",
        "api.example",
    } == set(names)


def test_a_kubeconfig_is_good_for_any_address_that_leads_to_a_master() -> None:
    document = yaml.safe_load(kubeconfig(cluster(), user="me", ca="Y2E=", cert="Yw==", key="aw=="))
    (entry,) = document["clusters"]
    assert entry["cluster"]["server"] == "https://api.example:6443"
    assert entry["cluster"]["tls-server-name"] == "kubernetes"
    assert document["current-context"] == document["contexts"][0]["name"]
    assert document["users"][0]["user"] == {"client-certificate-data": "Yw==", "client-key-data": "aw=="}


def test_settings_are_typed() -> None:
    made = settings(["node_grace_period=10", "default_toleration_seconds=5"], name="x", pod_cidr=None)
    assert (made.name, made.node_grace_period, made.default_toleration_seconds) == ("x", 10.0, 5)
    assert made.pod_cidr == Cluster().pod_cidr


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("node_grace_perio=10", "no cluster setting"),
        ("node_grace_period", "no cluster setting"),
        ("node_grace_period=soon", "node_grace_period"),
        ("node_grace_period=-1", "node_grace_period"),
    ],
)
def test_a_wrong_setting_is_named(pair: str, says: str) -> None:
    with pytest.raises(CliError, match=says):
        settings([pair])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cluster": Cluster(pod_cidr="10.96.0.0/12")}, "overlap"),
        ({"cluster": Cluster(pod_cidr="10.244.0.1/16")}, "--pod-cidr"),
        ({"cluster": Cluster(service_cidr="10.96.0.0/29", dns_address="10.96.0.2")}, "too small"),
        ({"cluster": Cluster(pod_cidr="10.244.0.0/24")}, "no room"),
        ({"cluster": Cluster(dns_address="10.97.0.10")}, "--dns-address"),
        ({"members": {"M1": "192.168.1.11"}}, "not a name"),
        ({"members": {"m1": "10.96.0.5"}}, "range of the services"),
        ({"members": {"m1": "10.244.3.5"}}, "range of the pods"),
        ({"members": {"m1": "host"}}, "not an IPv4 address"),
        ({"members": {"m1": "192.168.1.1", "m2": "192.168.1.1"}}, "same address"),
        ({"endpoint": "api.example:6443"}, "https://"),
    ],
)
def test_what_the_daemons_would_stumble_over_is_refused(changes: dict[str, object], says: str) -> None:
    check(cluster())
    with pytest.raises(CliError, match=says):
        check(cluster(**changes))


def test_names_and_addresses_of_hosts() -> None:
    assert check_name("NAME", "node-1") == "node-1"
    assert check_host(cluster(), "--address", "192.168.1.101") == "192.168.1.101"
    for name in ("", "-a", "a-", "a_b", "a.b", "x" * 64):
        with pytest.raises(CliError, match="not a name"):
            check_name("NAME", name)
