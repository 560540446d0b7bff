"""Rollouts, played with any bounds and any order of pods becoming available: the bounds hold and the rollout ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kybern.api.types import Deployment, DeploymentSpec, DeploymentStrategy, ObjectMeta, ReplicaSet
from kybern.api.types.apps import ReplicaSetSpec, ReplicaSetStatus, RollingUpdate
from master.controllers.deployments import scaling
from master.controllers.deployments.revisions import DESIRED, MAX, Rollout, rollout, size_annotations

amounts = st.integers(0, 12)
shares = st.one_of(st.integers(0, 6), st.integers(0, 100).map(lambda n: f"{n}%"))


def template(version: int) -> dict[str, object]:
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": f"v{version}"}]}}


def deployment(replicas: int, version: int, surge: int | str, unavailable: int | str) -> Deployment:
    rolling = RollingUpdate(max_unavailable=unavailable, max_surge=surge)
    spec = DeploymentSpec(
        replicas=replicas, template=template(version), strategy=DeploymentStrategy("RollingUpdate", rolling)
    )
    return Deployment(metadata=ObjectMeta(name="web"), spec=spec)


def replica_set(version: int, size: int, available: int, notes: dict[str, str]) -> ReplicaSet:
    return ReplicaSet(
        metadata=ObjectMeta(name=f"web-{version:03}", annotations=notes),
        spec=ReplicaSetSpec(replicas=size, template=template(version)),
        status=ReplicaSetStatus(replicas=size, available_replicas=available),
    )


class Play:
    """ReplicaSets as sizes, and available pods of each; plans are carried out at once."""

    def __init__(self, replicas: int, surge: int | str, unavailable: int | str) -> None:
        self.wanted, self.surge, self.unavailable = replicas, surge, unavailable
        self.version = 1
        self.sizes: dict[int, int] = {}
        self.available: dict[int, int] = {}
        self.notes: dict[int, dict[str, str]] = {}

    def current(self) -> Rollout:
        sets = [replica_set(v, n, self.available[v], self.notes[v]) for v, n in self.sizes.items()]
        return rollout(deployment(self.wanted, self.version, self.surge, self.unavailable), sets)

    @property
    def bounds(self) -> scaling.Bounds:
        return scaling.bounds(self.current().deployment)

    def step(self) -> bool:
        """One reconciliation; whether it changed anything."""
        plan = scaling.plan(self.current(), old_pods=False)
        notes = size_annotations(self.wanted, self.bounds.surge)
        if plan.create is not None:
            self.sizes[self.version], self.available[self.version] = plan.create, 0
            self.notes[self.version] = notes
        for member, size in plan.scale:
            version = int(member.name.removeprefix("web-"))
            assert size >= 0
            lost = max(self.sizes[version] - size, 0)
            # ReplicaSets delete what does not serve first.
            missing = self.sizes[version] - self.available[version]
            self.available[version] -= max(lost - missing, 0)
            self.sizes[version] = size
            self.notes[version] = notes
        return plan.create is not None or bool(plan.scale)

    def settle(self) -> None:
        """Carry out plans until there is nothing more to do without the pods."""
        for _ in range(200):
            if not self.step():
                return
        raise AssertionError("plans without an end")

    def grow(self, data: st.DataObject) -> None:
        """Some pods become available."""
        for version, size in self.sizes.items():
            self.available[version] = data.draw(st.integers(self.available[version], size))

    def all_available(self) -> None:
        self.available = dict(self.sizes)


@given(replicas=amounts, surge=shares, unavailable=shares, data=st.data())
def test_a_rollout_stays_within_its_bounds_and_ends(
    replicas: int, surge: int | str, unavailable: int | str, data: st.DataObject
) -> None:
    play = Play(replicas, surge, unavailable)
    play.settle()
    play.all_available()
    for _ in range(data.draw(st.integers(1, 3))):
        play.version += 1
        for _ in range(data.draw(st.integers(0, 4))):
            served = sum(play.available.values())
            play.step()
            least = min(served, replicas - play.bounds.unavailable)
            assert sum(play.available.values()) >= least
            assert sum(play.sizes.values()) <= replicas + play.bounds.surge
            play.grow(data)
    for _ in range(100):
        if not play.step() and play.available == play.sizes:
            break
        assert sum(play.sizes.values()) <= replicas + play.bounds.surge
        play.all_available()
    assert {v: n for v, n in play.sizes.items() if n} == ({play.version: replicas} if replicas else {})


@given(before=amounts, after=amounts, surge=shares, unavailable=shares, data=st.data())
def test_scaling_in_the_middle_of_a_rollout_gives_every_set_its_share(
    before: int, after: int, surge: int | str, unavailable: int | str, data: st.DataObject
) -> None:
    play = Play(before, surge, unavailable)
    play.settle()
    play.all_available()
    play.version = 2
    for _ in range(data.draw(st.integers(0, 6))):
        play.step()
        play.grow(data)
    play.wanted = after
    sizes = dict(play.sizes)
    if scaling.resized(play.current()):
        play.step()
        active = {v: n for v, n in sizes.items() if n}
        if len(active) > 1:
            changes = {v: play.sizes[v] - sizes[v] for v in active}
            # All in one direction, and never more than is allowed.
            assert not (min(changes.values()) < 0 < max(changes.values()))
            assert sum(play.sizes.values()) <= max(after + play.bounds.surge, sum(sizes.values()))
        assert not scaling.resized(play.current())
    for _ in range(200):
        if not play.step() and play.available == play.sizes:
            break
        play.all_available()
    assert {v: n for v, n in play.sizes.items() if n} == ({2: after} if after else {})


@given(replicas=amounts, surge=shares, unavailable=shares)
def test_bounds_let_something_move(replicas: int, surge: int | str, unavailable: int | str) -> None:
    bounds = scaling.bounds(deployment(replicas, 1, surge, unavailable))
    assert 0 <= bounds.unavailable <= replicas
    assert bounds.surge >= 0
    assert replicas == 0 or bounds.surge + bounds.unavailable > 0


@given(sizes=st.lists(st.integers(0, 20), min_size=1, max_size=5), before=st.integers(1, 40), after=st.integers(1, 40))
def test_shares_add_up(sizes: list[int], before: int, after: int) -> None:
    """Whatever the sets were, the change of the whole is shared out completely."""
    notes = {DESIRED: str(before), MAX: str(before)}
    sets = [replica_set(n, size, 0, notes) for n, size in enumerate(sizes, 1)]
    current = rollout(deployment(after, 1, 0, 1), sets)
    if len(current.active) < 2 or before == after:
        return
    planned = {s.name: n for s, n in scaling.spread(current)}
    total = sum(planned.get(s.name, s.spec.replicas) for s in sets)
    assert total == after
