"""Which pods a ReplicaSet creates and deletes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from kybern.api.types import Condition, ObjectMeta, Pod, PodSpec, PodStatus
from master.controllers import pods as pod_facts
from master.controllers.replicasets import BURST, plan

NOW = datetime(2026, 1, 1, tzinfo=UTC)
past = st.integers(0, 1000).map(lambda seconds: NOW - timedelta(seconds=seconds))


@st.composite
def pods(draw: st.DrawFn) -> list[Pod]:
    result = []
    for number in range(draw(st.integers(0, 12))):
        ready = draw(st.booleans())
        conditions = (Condition("Ready", "True", last_transition_time=draw(past)),) if ready else ()
        meta = ObjectMeta(
            name=f"p{number}",
            creation_timestamp=draw(past),
            deletion_timestamp=draw(st.one_of(st.none(), past)),
            annotations=draw(st.sampled_from([{}, {pod_facts.DELETION_COST: "5"}, {pod_facts.DELETION_COST: "x"}])),
        )
        phase = "Running" if ready else draw(st.sampled_from(["Pending", "Running", "Failed", "Succeeded"]))
        spec = PodSpec(node_name="n1" if ready else draw(st.sampled_from(["", "n1", "n2"])))
        result.append(Pod(metadata=meta, spec=spec, status=PodStatus(phase=phase, conditions=conditions)))
    return result


@given(owned=pods(), wanted=st.integers(0, 15))
def test_the_plan_reaches_the_count_and_keeps_what_serves(owned: list[Pod], wanted: int) -> None:
    step = plan(wanted, owned, {}, NOW)
    living = [p for p in owned if pod_facts.live(p)]
    assert len(living) + step.create - len(step.delete) == wanted
    assert not (step.create and step.delete)
    assert all(pod_facts.live(p) for p in step.delete)
    kept = [p for p in living if p not in step.delete]
    if any(p.ready for p in step.delete):
        assert all(p.ready for p in kept)
    if any(p.spec.node_name for p in step.delete):
        assert all(p.spec.node_name for p in kept)


@given(owned=pods(), wanted=st.integers(0, 15), order=st.randoms(use_true_random=False))
def test_the_plan_does_not_depend_on_the_order_of_the_cache(owned: list[Pod], wanted: int, order: object) -> None:
    shuffled = list(owned)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert plan(wanted, owned, {"n1": 2}, NOW) == plan(wanted, shuffled, {"n1": 2}, NOW)


@given(wanted=st.integers(0, 10_000))
def test_one_step_is_bounded(wanted: int) -> None:
    assert plan(wanted, [], {}, NOW).create == min(wanted, BURST)
