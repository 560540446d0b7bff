"""Leaders that are killed, nodes that are cut off, masters that are stopped. Times are printed, not asserted."""

from __future__ import annotations

import itertools

import pytest

from tests.lab.cluster.clusters import Cluster

pytestmark = pytest.mark.lab

_numbers = itertools.count()


def write(cluster: Cluster) -> bool:
    """Whether the cluster takes a write now."""
    name = f"write-{next(_numbers)}"
    done = cluster.try_kubectl("create", "configmap", name, "--from-literal=a=1", "--request-timeout=5s")
    return done.returncode == 0


def names(cluster: Cluster) -> set[str]:
    return {c["metadata"]["name"] for c in cluster.get("configmaps", "--selector=kept=yes")["items"]}


@pytest.fixture
def kept(cluster: Cluster) -> set[str]:
    """Names of objects that must not be lost."""
    wanted = {f"kept-{next(_numbers)}" for _ in range(5)}
    for name in wanted:
        cluster.kubectl("create", "configmap", name, "--from-literal=a=1")
        cluster.kubectl("label", "configmap", name, "kept=yes")
    return names(cluster)


@pytest.mark.parametrize("daemon", ["store", "master"])
def test_the_loss_of_a_leader_loses_no_object(cluster: Cluster, kept: set[str], daemon: str) -> None:
    said = cluster.command("kill", f"leader:{daemon}")
    lost = said.split(" on ")[1].split()[0]
    cluster.until(lambda: write(cluster), f"writes after the loss of the {daemon}'s leader")
    assert names(cluster) == kept

    def another_leads() -> bool:
        leading = [host for (host, name), one in cluster.command.status().items() if name == daemon and one["leader"]]
        return len(leading) == 1 and leading != [lost]

    cluster.until(another_leads, f"another {daemon} leads")
    cluster.command("start", lost, daemon)
    assert names(cluster) == kept


def test_all_stores_killed_at_once_lose_nothing(cluster: Cluster, kept: set[str]) -> None:
    for master in cluster.lab.file.masters:
        cluster.command("kill", master, "store")
    cluster.command("up", timeout=300)
    cluster.until(lambda: write(cluster), "writes after all stores were killed")
    assert names(cluster) == kept


def test_a_node_that_is_cut_off_is_replaced_and_nothing_runs_twice(hello: Cluster) -> None:
    hello.command("cut", "n1")
    hello.until(lambda: list(hello.ready_nodes()) == ["n2"], "n1 is NotReady")
    hello.until(lambda: hello.placed("app=hello")["n2"] == 4, "all four run on n2")
    hello.command("heal", "n1")
    hello.until(lambda: set(hello.ready_nodes()) == {"n1", "n2"}, "n1 is ready again")
    hello.until(lambda: len(hello.pods("app=hello")) == 4, "the lost pods are gone")
    hello.until(lambda: len(hello.containers("kybern/hello:1")) == 4, "nothing runs twice")
    # Its routing follows by a watch of its own; nothing puts that before the end of its pods.
    hello.until(lambda: not hello.unanswered(20), "n1's routing knows where the pods are now")
    assert hello.unanswered(20) == []


def test_a_killed_agent_adopts_what_runs(hello: Cluster) -> None:
    before = sorted(hello.containers("kybern/hello:1"))
    hello.command("kill", "n1", "node")
    assert hello.unanswered(20) == []
    hello.command("start", "n1", "node")
    hello.until(lambda: sum(hello.placed("app=hello").values()) == 4, "four are ready")
    assert sorted(hello.containers("kybern/hello:1")) == before
    assert {c["restartCount"] for p in hello.pods("app=hello") for c in p["status"]["containerStatuses"]} == {0}


def test_a_master_that_was_stopped_and_wakes_does_no_harm(hello: Cluster) -> None:
    said = hello.command("kill", "leader:master", "--signal", "STOP")
    stopped = said.split(" on ")[1].split()[0]
    hello.until(lambda: write(hello), "writes while the leading master is stopped")
    hello.kubectl("scale", "deployment", "hello", "--replicas=6", "--request-timeout=10s")
    hello.until(lambda: sum(hello.placed("app=hello").values()) == 6, "six replicas")
    hello.command("kill", stopped, "master", "--signal", "CONT")
    hello.kubectl("scale", "deployment", "hello", "--replicas=3")
    hello.until(lambda: len(hello.pods("app=hello")) == 3, "three replicas")
    hello.until(lambda: len(hello.containers("kybern/hello:1")) == 3, "three containers")
