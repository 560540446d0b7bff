"""Decisions: which nodes will do, which is best, and why none is."""

from __future__ import annotations

import random
from typing import Any

import pytest

from master.scheduler.pods import PodInfo
from master.scheduler.profile import Profile, Refusal
from master.scheduler.snapshot import Snapshot
from tests.unit.master.scheduler.objects import info, node, snapshot

EXPRESSIONS = "requiredDuringSchedulingIgnoredDuringExecution"
WISHES = "preferredDuringSchedulingIgnoredDuringExecution"


def decide(pod: PodInfo, on: Snapshot) -> str | Refusal:
    return Profile(random.Random(0)).decide(pod, on)


def possible(pod: PodInfo, on: Snapshot) -> set[str]:
    """Every node that ever wins when nothing but the filters counts."""
    profile = Profile(random.Random(0), scores=[_Nothing()])
    choices = {profile.decide(pod, on) for _ in range(200)}
    return {c if isinstance(c, str) else str(c) for c in choices}


class _Nothing:
    weight = 0.0

    def score(self, pod: PodInfo, snapshot: Snapshot, rows: Any) -> None:
        return None


def node_affinity(*expressions: dict[str, Any]) -> dict[str, Any]:
    terms = [{"matchExpressions": [e]} for e in expressions]
    return {"nodeAffinity": {EXPRESSIONS: {"nodeSelectorTerms": terms}}}


def pod_term(key: str = "kubernetes.io/hostname", **labels: str) -> dict[str, Any]:
    return {"labelSelector": {"matchLabels": labels}, "topologyKey": key}


def test_reasons_are_counted_by_node_as_kubernetes_words_them() -> None:
    on = snapshot(
        node("small", cpu="500m", memory="64Mi"),
        node("tainted", taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]),
        node("cordoned", unschedulable=True),
        node("full", pods="0"),
        node("other", labels={"disk": "hdd"}),
    )
    pod = info("p", requests={"cpu": "1", "memory": "1Gi"}, nodeSelector={"disk": "ssd"})
    assert str(decide(pod, on)) == (
        "0/5 nodes are available: 1 node(s) had untolerated taint {gpu: yes}, 1 node(s) were unschedulable, "
        "3 node(s) didn't match Pod's node affinity/selector."
    )
    assert str(decide(info("q", requests={"cpu": "1", "memory": "16Gi"}), on)) == (
        "0/5 nodes are available: 1 Insufficient cpu, 1 Too many pods, 1 node(s) had untolerated taint {gpu: yes}, "
        "1 node(s) were unschedulable, 3 Insufficient memory."
    )


def test_a_cluster_without_nodes_says_so() -> None:
    assert str(decide(info("p"), snapshot())) == "no nodes available to schedule pods"


def test_resources_add_up_and_are_given_back() -> None:
    on = snapshot(node("n1", cpu="2"))
    for number in range(2):
        pod = info(f"p{number}", requests={"cpu": "1"})
        assert decide(pod, on) == "n1"
        on.place(pod, "n1")
    assert isinstance(decide(info("p2", requests={"cpu": "1m"}), on), Refusal)
    on.remove("uid-p0")
    assert decide(info("p2", requests={"cpu": "1"}), on) == "n1"


def test_extended_resources_are_columns_of_their_own() -> None:
    on = snapshot(node("n1"), node("n2", extra={"example.com/gpu": "2"}))
    pod = info("p", requests={"example.com/gpu": "2"})
    assert possible(pod, on) == {"n2"}
    on.place(pod, "n2")
    assert str(decide(info("q", requests={"example.com/gpu": "1"}), on)) == (
        "0/2 nodes are available: 2 Insufficient example.com/gpu."
    )


def test_a_pod_that_asks_for_nothing_fits_where_something_is_overdrawn() -> None:
    on = snapshot(node("n1", cpu="1"))
    on.place(info("big", requests={"cpu": "4"}), "n1")
    assert decide(info("p"), on) == "n1"


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ({"key": "zone", "operator": "In", "values": ["a", "b"]}, {"n1", "n2"}),
        ({"key": "zone", "operator": "NotIn", "values": ["a"]}, {"n2", "n3"}),
        ({"key": "zone", "operator": "Exists"}, {"n1", "n2"}),
        ({"key": "zone", "operator": "DoesNotExist"}, {"n3"}),
        ({"key": "size", "operator": "Gt", "values": ["5"]}, {"n2"}),
        ({"key": "size", "operator": "Lt", "values": ["5"]}, {"n1"}),
    ],
)
def test_node_affinity(expression: dict[str, Any], wanted: set[str]) -> None:
    on = snapshot(
        node("n1", labels={"zone": "a", "size": "1"}), node("n2", labels={"zone": "b", "size": "10"}), node("n3")
    )
    assert possible(info("p", affinity=node_affinity(expression)), on) == wanted


def test_several_terms_are_alternatives_and_fields_can_be_asked_for() -> None:
    on = snapshot(node("n1", labels={"zone": "a"}), node("n2", labels={"zone": "b"}), node("n3"))
    either = node_affinity(
        {"key": "zone", "operator": "In", "values": ["a"]}, {"key": "zone", "operator": "DoesNotExist"}
    )
    assert possible(info("p", affinity=either), on) == {"n1", "n3"}
    name = {"key": "metadata.name", "operator": "In", "values": ["n2"]}
    fields = {"nodeAffinity": {EXPRESSIONS: {"nodeSelectorTerms": [{"matchFields": [name]}]}}}
    assert possible(info("p", affinity=fields), on) == {"n2"}
    nothing: dict[str, Any] = {"nodeAffinity": {EXPRESSIONS: {"nodeSelectorTerms": [{}]}}}
    assert isinstance(decide(info("p", affinity=nothing), on), Refusal)


def test_preferred_nodes_win_while_they_have_room() -> None:
    on = snapshot(*(node(f"n{n}") for n in range(5)), node("liked", labels={"disk": "ssd"}))
    preference = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    liking = {"nodeAffinity": {WISHES: [{"weight": 10, "preference": preference}]}}
    assert decide(info("p", affinity=liking), on) == "liked"


def test_tolerated_taints_do_not_matter_and_mild_ones_are_avoided() -> None:
    taint = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}
    on = snapshot(node("n1", taints=[taint]))
    assert isinstance(decide(info("p"), on), Refusal)
    for toleration in (
        {"key": "dedicated", "operator": "Equal", "value": "db", "effect": "NoSchedule"},
        {"key": "dedicated", "operator": "Exists"},
        {"operator": "Exists"},
    ):
        assert decide(info("p", tolerations=[toleration]), on) == "n1"
    mild = {"key": "slow", "effect": "PreferNoSchedule"}
    on = snapshot(node("n1", taints=[mild]), node("n2", cpu="2"))
    assert decide(info("p"), on) == "n2"


def test_a_node_that_is_not_ready_takes_pods_only_if_they_tolerate_that() -> None:
    on = snapshot(node("n1", ready="False"))
    assert str(decide(info("p"), on)) == (
        "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }."
    )
    assert decide(info("q", tolerations=[{"operator": "Exists"}]), on) == "n1"
    on.set_node(node("n1"))
    assert decide(info("p"), on) == "n1"


def test_host_ports_conflict_by_address_and_protocol() -> None:
    def wants(name: str, protocol: str = "TCP", **address: str) -> PodInfo:
        return info(name, ports=[{"containerPort": 80, "hostPort": 80, "protocol": protocol, **address}])

    on = snapshot(node("n1"))
    on.place(wants("a", hostIP="10.0.0.1"), "n1")
    assert decide(wants("b", hostIP="10.0.0.2"), on) == "n1"
    assert decide(wants("c", protocol="UDP"), on) == "n1"
    assert str(decide(wants("d"), on)) == (
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    )
    assert isinstance(decide(wants("e", hostIP="10.0.0.1"), on), Refusal)
    on.remove("uid-a")
    assert decide(wants("d"), on) == "n1"


def test_anti_affinity_holds_in_both_directions() -> None:
    on = snapshot(node("n1"), node("n2"))
    alone = info("a", labels={"app": "db"}, affinity={"podAntiAffinity": {EXPRESSIONS: [pod_term(app="db")]}})
    on.place(alone, "n1")
    again = info("b", labels={"app": "db"}, affinity={"podAntiAffinity": {EXPRESSIONS: [pod_term(app="db")]}})
    assert possible(again, on) == {"n2"}
    assert possible(info("c", labels={"app": "db"}), on) == {"n2"}
    assert possible(info("d", labels={"app": "web"}), on) == {"n1", "n2"}
    on.place(again, "n2")
    assert str(decide(info("e", labels={"app": "db"}), on)) == (
        "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules."
    )


def test_affinity_follows_pods_and_lets_the_first_of_a_group_in() -> None:
    zones = [node(f"n{n}", labels={"zone": zone}) for n, zone in enumerate("aab")]
    on = snapshot(*zones, node("nowhere"))
    near = {"podAffinity": {EXPRESSIONS: [pod_term("zone", app="web")]}}
    assert possible(info("first", labels={"app": "web"}, affinity=near), on) == {"n0", "n1", "n2"}
    assert str(decide(info("guest", labels={"app": "other"}, affinity=near), on)) == (
        "0/4 nodes are available: 4 node(s) didn't match pod affinity rules."
    )
    on.place(info("there", labels={"app": "web"}), "n0")
    assert possible(info("guest", labels={"app": "other"}, affinity=near), on) == {"n0", "n1"}


def test_preferences_about_other_pods_tip_the_scale() -> None:
    on = snapshot(node("n1"), node("n2"))
    on.place(info("cache", labels={"app": "cache"}), "n1")
    wish = {"weight": 100, "podAffinityTerm": pod_term(app="cache")}
    assert decide(info("p", affinity={"podAffinity": {WISHES: [wish]}}), on) == "n1"
    assert decide(info("q", affinity={"podAntiAffinity": {WISHES: [wish]}}), on) == "n2"


def test_spread_constraints_bound_the_skew() -> None:
    on = snapshot(*(node(f"n{n}", labels={"zone": zone}) for n, zone in enumerate("aab")), node("nowhere"))
    constraint = {
        "maxSkew": 1,
        "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }

    def web(name: str) -> PodInfo:
        return info(name, labels={"app": "web"}, topologySpreadConstraints=[constraint])

    on.place(web("p0"), "n0")
    assert possible(web("p1"), on) == {"n2"}
    on.place(web("p1"), "n2")
    assert possible(web("p2"), on) == {"n0", "n1", "n2"}
    on.set_node(node("n2", labels={"zone": "b"}, unschedulable=True))
    on.place(web("p2"), "n1")
    assert str(decide(web("p3"), on)) == (
        "0/4 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label), "
        "1 node(s) were unschedulable, 2 node(s) didn't match pod topology spread constraints."
    )


def test_pods_of_one_owner_are_spread_over_nodes() -> None:
    on = snapshot(*(node(f"n{n}") for n in range(4)))
    profile = Profile(random.Random(0))
    for number in range(8):
        pod = info(f"p{number}", owner="rs")
        choice = profile.decide(pod, on)
        assert isinstance(choice, str)
        on.place(pod, choice)
    assert on.owned("rs") is not None
    assert sorted(on.owned("rs")[list(on.rows.values())]) == [2, 2, 2, 2]  # type: ignore[index]


def test_the_emptier_and_the_more_balanced_node_win() -> None:
    on = snapshot(node("n1"), node("n2"))
    on.place(info("a", requests={"cpu": "1", "memory": "2Gi"}), "n1")
    assert decide(info("p", requests={"cpu": "1", "memory": "1Gi"}), on) == "n2"
    on = snapshot(node("n1", cpu="10", memory="10Gi"), node("n2", cpu="10", memory="10Gi"))
    on.place(info("cpu", requests={"cpu": "6", "memory": "1Gi"}), "n1")
    on.place(info("mem", requests={"cpu": "1", "memory": "6Gi"}), "n2")
    assert decide(info("p", requests={"cpu": "3", "memory": "500Mi"}), on) == "n2"


def test_pods_on_nodes_that_come_later_and_go_are_counted() -> None:
    on = snapshot(node("n1"))
    on.place(info("a", requests={"cpu": "4"}, owner="rs"), "n2")
    on.set_node(node("n2"))
    assert possible(info("p", requests={"cpu": "1"}), on) == {"n1"}
    on.remove_node("n2")
    on.set_node(node("n3"))
    assert possible(info("p", requests={"cpu": "1"}), on) == {"n1", "n3"}
    on.set_node(node("n2"))
    assert possible(info("p", requests={"cpu": "1"}), on) == {"n1", "n3"}


def test_init_containers_and_sidecars_count_as_they_run() -> None:
    def ask(cpu: str, **more: str) -> dict[str, Any]:
        return {"name": f"i{cpu}", "resources": {"requests": {"cpu": cpu}}, **more}

    plain = info("p", requests={"cpu": "1"}, initContainers=[ask("3"), ask("2")])
    assert plain.requests["cpu"] == 3000
    sidecar = info("p", requests={"cpu": "1"}, initContainers=[ask("500m", restartPolicy="Always"), ask("2")])
    assert sidecar.requests["cpu"] == 2500
    overhead = info("p", requests={"cpu": "1"}, overhead={"cpu": "250m"})
    assert overhead.requests["cpu"] == 1250
