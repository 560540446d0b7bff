"""What people do with kubectl."""

from __future__ import annotations

import pytest

from tests.lab.cluster.clusters import Cluster

pytestmark = pytest.mark.lab


def test_nodes_look_as_on_any_cluster(cluster: Cluster) -> None:
    heading, *lines = cluster.kubectl("get", "nodes", "--output=wide").splitlines()
    assert heading.split()[:3] == ["NAME", "STATUS", "ROLES"]
    assert {line.split()[0] for line in lines} == {"n1", "n2"}
    assert {line.split()[1] for line in lines} == {"Ready"}
    for line in lines:
        assert cluster.lab.subnet.host(line.split()[0]) in line


def test_the_api_has_its_own_service_and_namespaces(cluster: Cluster) -> None:
    assert cluster.get("service", "kubernetes")["spec"]["clusterIP"] == "10.96.0.1"
    names = {n["metadata"]["name"] for n in cluster.get("namespaces")["items"]}
    assert {"default", "kube-system", "kube-public", "kube-node-lease"} <= names


def test_an_applied_example_runs_on_both_nodes_and_answers(hello: Cluster) -> None:
    assert sum(hello.placed("app=hello").values()) == 4
    assert set(hello.placed("app=hello")) == {"n1", "n2"}
    found = hello.ask(40)
    assert found["", ""] == 0
    assert {pod for pod, _ in found} == {p["metadata"]["name"] for p in hello.live("app=hello")}
    said = hello.kubectl("apply", "-f", "examples/hello.yaml")
    assert {line.split()[-1] for line in said.splitlines()} == {"unchanged"}


def test_scaling(hello: Cluster) -> None:
    hello.kubectl("scale", "deployment", "hello", "--replicas=10")
    hello.until(lambda: sum(hello.placed("app=hello").values()) == 10, "ten replicas")
    hello.kubectl("scale", "deployment", "hello", "--replicas=1")
    hello.until(lambda: len(hello.pods("app=hello")) == 1, "one replica")


def test_a_new_image_is_rolled_out_and_undone(hello: Cluster) -> None:
    def says(version: str) -> bool:
        pod = hello.live("app=hello")[0]["metadata"]["name"]
        return hello.kubectl("exec", pod, "--", "cat", "/www/index.html").startswith(f"hello {version} ")

    hello.kubectl("set", "image", "deployment/hello", "hello=kybern/hello:2")
    hello.kubectl("rollout", "status", "deployment/hello", "--timeout=120s")
    assert says("2")
    hello.kubectl("rollout", "undo", "deployment/hello")
    hello.kubectl("rollout", "status", "deployment/hello", "--timeout=120s")
    assert says("1")
    history = hello.kubectl("rollout", "history", "deployment/hello")
    assert len([line for line in history.splitlines() if line[:1].isdecimal()]) == 2


def test_logs_exec_and_describe(hello: Cluster) -> None:
    pod = hello.live("app=hello")[0]
    name = pod["metadata"]["name"]
    assert hello.kubectl("exec", name, "--", "hostname").strip() == name
    failed = hello.try_kubectl("exec", name, "--", "sh", "-c", "exit 3")
    assert failed.returncode == 3
    assert hello.kubectl("exec", "-i", name, "--", "cat", stdin="through and back").strip() == "through and back"
    hello.kubectl("exec", name, "--", "sh", "-c", "echo to-the-log > /proc/1/fd/1")
    hello.until(lambda: "to-the-log" in hello.kubectl("logs", name), "the log has it")
    described = hello.kubectl("describe", "pod", name)
    assert f"Node:             {pod['spec']['nodeName']}/" in described
    assert pod["status"]["podIP"] in described


def test_a_deployment_made_edited_and_deleted(cluster: Cluster) -> None:
    cluster.kubectl("create", "deployment", "made", "--image=kybern/hello:1", "--replicas=2")
    try:
        cluster.kubectl("rollout", "status", "deployment/made", "--timeout=120s")
        editor = {"KUBE_EDITOR": "sed -i 's/replicas: 2/replicas: 3/'"}
        assert "edited" in cluster.kubectl("edit", "deployment", "made", environment=editor)
        cluster.until(lambda: sum(cluster.placed("app=made").values()) == 3, "three replicas")
    finally:
        cluster.kubectl("delete", "deployment", "made")
    cluster.until(lambda: not cluster.pods("app=made"), "its pods are gone")
    assert cluster.get("replicasets", "--selector=app=made")["items"] == []


def test_a_pod_that_is_killed_comes_back(hello: Cluster) -> None:
    victim = hello.live("app=hello")[0]["metadata"]["name"]
    hello.kubectl("delete", "pod", victim, "--now")
    hello.until(lambda: sum(hello.placed("app=hello").values()) == 4, "four replicas again")
    assert victim not in {p["metadata"]["name"] for p in hello.live("app=hello")}


def test_a_service_is_known_by_name_in_every_pod(hello: Cluster) -> None:
    pod = hello.live("app=hello")[0]["metadata"]["name"]
    for name in ("hello", "hello.default", "hello.default.svc.cluster.local"):
        said = hello.kubectl("exec", pod, "--", "timeout", "5", "wget", "-q", "-O", "-", f"http://{name}/")
        assert said.startswith("hello 1 from hello-"), name


SPEC = "{selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [%s]}}%s}"
CONTAINER = "{name: c, image: kybern/hello:1}"


@pytest.mark.parametrize(
    ("name", "spec", "says"),
    [
        ("bad", SPEC % (CONTAINER, ", replicas: many"), "spec.replicas"),
        ("bad", SPEC % (CONTAINER, ", replica: 1"), "spec.replica"),
        ("bad", SPEC % ("{name: c, image: kybern/hello:1, portz: []}", ""), "spec.template.spec.containers[0].portz"),
        ("bad", SPEC % ("{name: c}", ""), "spec.template.spec.containers[0].image"),
        ("bad", "{}", "spec.selector"),
        ("Bad_Name", SPEC % (CONTAINER, ""), "metadata.name"),
    ],
)
def test_a_bad_manifest_names_the_field_and_stores_nothing(cluster: Cluster, name: str, spec: str, says: str) -> None:
    document = f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    done = cluster.try_kubectl("create", "--validate=strict", "-f", "-", stdin=document)
    assert done.returncode == 1
    assert says in done.stderr
    assert cluster.get("deployments")["items"] == []


def test_a_stale_update_is_a_conflict(cluster: Cluster) -> None:
    cluster.kubectl("create", "configmap", "stale", "--from-literal=a=1")
    try:
        old = cluster.kubectl("get", "configmap", "stale", "--output=json")
        cluster.kubectl("patch", "configmap", "stale", "--patch", '{"data": {"a": "2"}}')
        done = cluster.try_kubectl("replace", "-f", "-", stdin=old)
        assert done.returncode == 1
        assert "Conflict" in done.stderr
        assert cluster.get("configmap", "stale")["data"] == {"a": "2"}
    finally:
        cluster.kubectl("delete", "configmap", "stale")
