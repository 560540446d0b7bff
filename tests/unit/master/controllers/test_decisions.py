"""The pure parts of controllers: taints, signs of life, owners, revisions, conditions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from kybern.api.tolerations import tolerates
from kybern.api.types import (
    Condition,
    Deployment,
    DeploymentSpec,
    Node,
    NodeSpec,
    NodeStatus,
    Object,
    ObjectMeta,
    OwnerReference,
    ReplicaSet,
    Taint,
    Toleration,
)
from kybern.api.types.apps import ReplicaSetSpec
from kybern.client.interface import Propagation
from master.controllers import conditions
from master.controllers.deployments import revisions
from master.controllers.garbage.references import Action, Decision, Owner, decide
from master.controllers.nodes import taints
from master.controllers.nodes.health import RATE, SLOW_RATE, Bucket, Vitals, eviction_rate

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GONE = Taint("node.kubernetes.io/unreachable", "", "NoExecute")


# --- taints


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        (Toleration(operator="Exists"), True),
        (Toleration(key=GONE.key, operator="Exists"), True),
        (Toleration(key=GONE.key, operator="Exists", effect="NoExecute"), True),
        (Toleration(key=GONE.key, operator="Exists", effect="NoSchedule"), False),
        (Toleration(key="other", operator="Exists"), False),
        (Toleration(key=GONE.key), True),
        (Toleration(key=GONE.key, value="x"), False),
        (Toleration(), False),
    ],
)
def test_tolerations(toleration: Toleration, fits: bool) -> None:
    assert tolerates(toleration, GONE) is fits


def test_the_shortest_toleration_counts_and_a_taint_without_one_evicts_at_once() -> None:
    other = Taint("other", "", "NoExecute")
    long, short = (Toleration(GONE.key, "Exists", toleration_seconds=s) for s in (60, 5))
    ever = Toleration("other", "Exists")
    assert taints.patience([], [GONE]) == 0
    assert taints.patience([long, short], [GONE]) == 5
    assert taints.patience([long], [GONE, other]) == 0
    assert taints.patience([long, ever], [GONE, other]) == 60
    assert taints.patience([ever], [other]) is None
    assert taints.patience([Toleration("other", "Exists", toleration_seconds=-3)], [other]) == 0


def node(ready: str | None, *present: Taint, unschedulable: bool = False, **pressures: str) -> Node:
    stated = [Condition("Ready", ready)] if ready is not None else []
    stated += [Condition(kind, value) for kind, value in pressures.items()]
    return Node(
        metadata=ObjectMeta(name="n1"),
        spec=NodeSpec(taints=present, unschedulable=unschedulable),
        status=NodeStatus(conditions=tuple(stated)),
    )


def test_taints_follow_the_state_and_leave_those_of_others() -> None:
    theirs = Taint("dedicated", "db", "NoExecute")
    assert taints.merged(node("True", theirs), taints.wanted(node("True"), evict=False), NOW) is None
    sick = node("Unknown", theirs, unschedulable=True, DiskPressure="True", MemoryPressure="False")
    after = taints.merged(sick, taints.wanted(sick, evict=True), NOW)
    assert after is not None
    assert after[0] == theirs
    assert {(t.key.rpartition("/")[2], t.effect) for t in after[1:]} == {
        ("unreachable", "NoSchedule"),
        ("unreachable", "NoExecute"),
        ("unschedulable", "NoSchedule"),
        ("disk-pressure", "NoSchedule"),
    }
    well = node("True", *after)
    assert taints.merged(well, taints.wanted(well, evict=False), NOW) == (theirs,)
    assert taints.problem(node("False")) == taints.problem(node(None)) == taints.NOT_READY


# --- signs of life


def test_silence_is_counted_from_the_last_new_sign() -> None:
    vitals = Vitals(grace=20, interval=5)
    assert vitals.sign("a", 1, now=0)
    assert not vitals.sign("a", 1, now=15)
    assert not vitals.lost("a", 19.9)
    assert vitals.lost("a", 20)
    assert vitals.sign("a", 2, now=21)
    assert not vitals.lost("a", 40)
    assert not vitals.lost("never seen", 1000)


def test_everybody_is_silent_only_while_nobody_gives_a_sign() -> None:
    vitals = Vitals(grace=20, interval=5)
    assert not vitals.all_silent(1000)
    for name in "abc":
        vitals.sign(name, 1, now=0)
    assert not vitals.all_silent(9.9)
    assert vitals.all_silent(10)
    vitals.sign("b", 2, now=11)
    assert not vitals.all_silent(20)
    vitals.restart(30)
    assert not any(vitals.lost(name, 49) for name in "abc")
    vitals.forget("a")
    assert not vitals.lost("a", 1000)


def test_many_losses_at_once_slow_evictions_down() -> None:
    assert eviction_rate(10, 2) == RATE
    assert eviction_rate(3, 2) == RATE
    assert eviction_rate(10, 6) == 0
    assert eviction_rate(100, 60) == SLOW_RATE
    assert eviction_rate(100, 10) == RATE
    bucket = Bucket()
    assert bucket.take(0.1, now=100) == 0
    assert bucket.take(0.1, now=104) == 6
    assert bucket.take(0.1, now=110) == 0
    assert bucket.take(0.0, now=1000) > 0


# --- owners


def ref(uid: str, *, blocks: bool = False) -> OwnerReference:
    return OwnerReference("v1", "ConfigMap", uid, uid, block_owner_deletion=blocks)


def item(*refs: OwnerReference, uid: str = "me", finalizers: tuple[str, ...] = (), deleting: bool = False) -> Object:
    meta = ObjectMeta(
        uid=uid, owner_references=refs, finalizers=finalizers, deletion_timestamp=NOW if deleting else None
    )
    return Object(metadata=meta)


def test_one_living_owner_is_enough() -> None:
    a, b, c = ref("a"), ref("b"), ref("c")
    mine = item(a, b, c)
    assert decide(mine, [(a, Owner.THERE), (b, Owner.THERE), (c, Owner.THERE)], []).action is Action.NOTHING
    loose = decide(mine, [(a, Owner.GONE), (b, Owner.THERE), (c, Owner.WAITING)], [])
    assert loose == Decision(Action.LOOSEN, keep=(b,))
    assert decide(item(), [], []).action is Action.NOTHING


def test_nothing_is_deleted_on_behalf_of_a_kind_that_nobody_serves() -> None:
    a, b = ref("a"), ref("b")
    assert decide(item(a), [(a, Owner.UNKNOWN)], []).action is Action.NOTHING
    assert decide(item(a, b), [(a, Owner.UNKNOWN), (b, Owner.GONE)], []) == Decision(Action.LOOSEN, keep=(a,))


def test_the_way_of_deletion_is_handed_down() -> None:
    a = ref("a")
    gone = [(a, Owner.GONE)]
    assert decide(item(a), gone, []) == Decision(Action.DELETE, propagation=Propagation.BACKGROUND)
    assert decide(item(a, finalizers=("orphan",)), gone, []).propagation is Propagation.ORPHAN
    waiting = [(a, Owner.WAITING)]
    child = item(ref("me"), uid="child")
    assert decide(item(a), waiting, [child]).propagation is Propagation.FOREGROUND
    assert decide(item(a), waiting, []).propagation is Propagation.BACKGROUND


def test_a_deletion_in_the_foreground_waits_for_those_that_block_it() -> None:
    owner = item(finalizers=("foregroundDeletion",), deleting=True)
    blocking = item(ref("me", blocks=True), uid="child")
    assert decide(owner, [], [blocking]).action is Action.NOTHING
    assert decide(owner, [], [item(ref("me"), uid="child")]).action is Action.RELEASE_FOREGROUND
    assert decide(item(finalizers=("orphan",), deleting=True), [], [blocking]).action is Action.ORPHAN_DEPENDENTS
    assert decide(item(deleting=True), [], [blocking]).action is Action.NOTHING


# --- revisions


def template(image: str, **labels: str) -> dict[str, object]:
    return {"metadata": {"labels": {"app": "web", **labels}}, "spec": {"containers": [{"name": "c", "image": image}]}}


def test_hashes_are_stable_and_depend_on_template_and_collisions_alone() -> None:
    first = revisions.template_hash(template("v1"), 0)
    assert first == "xqmpsvwjm4"
    assert revisions.template_hash(template("v1", **{revisions.HASH: "abc"}), 0) == first
    assert revisions.template_hash(template("v2"), 0) != first
    assert revisions.template_hash(template("v1"), 1) != first


def test_the_oldest_of_several_sets_with_the_template_is_the_new_one() -> None:
    def made(name: str, image: str, age: int) -> ReplicaSet:
        meta = ObjectMeta(name=name, creation_timestamp=NOW - timedelta(days=age))
        return ReplicaSet(metadata=meta, spec=ReplicaSetSpec(template=template(image, **{revisions.HASH: name})))

    web = Deployment(spec=DeploymentSpec(template=template("v1")))
    current = revisions.rollout(web, [made("a", "v1", 1), made("b", "v1", 2), made("c", "v0", 3)])
    assert current.new is not None
    assert current.new.name == "b"
    assert [s.name for s in current.old] == ["c", "a"]


def test_annotations_are_inherited_but_for_those_that_are_the_deployments_own() -> None:
    annotations = {
        "kubernetes.io/change-cause": "set image",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        revisions.REVISION: "7",
    }
    web = Deployment(metadata=ObjectMeta(annotations=annotations))
    assert revisions.inherited(web) == {"kubernetes.io/change-cause": "set image"}


# --- conditions


def test_a_transition_time_moves_with_the_status_alone() -> None:
    before = conditions.with_condition((), Condition("Ready", "True", "A"), NOW)
    later = NOW + timedelta(minutes=1)
    same = conditions.with_condition(before, Condition("Ready", "True", "B"), later)
    assert (same[0].reason, same[0].last_transition_time) == ("B", NOW)
    changed = conditions.with_condition(same, Condition("Ready", "False", "C"), later)
    assert changed[0].last_transition_time == later
    assert conditions.document(changed[0]) == {
        "type": "Ready",
        "status": "False",
        "reason": "C",
        "lastTransitionTime": "2026-01-01T00:01:00Z",
    }
    assert conditions.document(Condition("Ready"))["status"] == "Unknown"
