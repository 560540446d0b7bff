"""What the loop's timer notes, on clocks that stand still unless they are moved."""

from __future__ import annotations

import pytest

from store.server.lag import BOUNDS, Lag, LoopLag


class Clocks:
    def __init__(self) -> None:
        self.wall = 1000.0
        self.cpu = 5.0


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def lag(clocks: Clocks) -> LoopLag:
    # Other threads use as much again.
    return LoopLag(lambda: clocks.wall, lambda: clocks.cpu, lambda: 2 * clocks.cpu)


def tick(lag: LoopLag, clocks: Clocks, late: float, cpu: float) -> None:
    """The timer fires so much later than it should, after so much CPU time."""
    clocks.wall += 0.01 + late
    clocks.cpu += cpu
    lag.stop()
    lag.tick()


async def test_the_worst_delay_comes_with_the_cpu_time_of_its_own_turn(lag: LoopLag, clocks: Clocks) -> None:
    lag.start()
    for late, cpu in ((0.0, 0.001), (0.2, 0.19), (0.5, 0.02), (0.1, 0.1)):
        tick(lag, clocks, late, cpu)
    lag.stop()
    taken = lag.take()
    assert (taken.late, taken.late_cpu, taken.late_process, taken.cpu) == pytest.approx((0.5, 0.02, 0.04, 0.19))


async def test_who_takes_the_worst_begins_anew(lag: LoopLag, clocks: Clocks) -> None:
    lag.start()
    tick(lag, clocks, 0.3, 0.3)
    lag.take()
    tick(lag, clocks, 0.02, 0.01)
    lag.stop()
    assert lag.take().late == pytest.approx(0.02)
    assert lag.take() == Lag()
    assert lag.worst().late == pytest.approx(0.3), "who looks at the last minute is not disturbed by it"


async def test_what_is_older_than_a_minute_is_no_longer_the_worst(lag: LoopLag, clocks: Clocks) -> None:
    lag.start()
    tick(lag, clocks, 0.4, 0.4)
    for _ in range(20):
        clocks.wall += 5.0
        lag.stop()
        lag.start()
        tick(lag, clocks, 0.001, 0.001)
    lag.stop()
    assert lag.worst().late == pytest.approx(0.001)


async def test_the_histogram_counts_what_is_at_most_each_bound(lag: LoopLag, clocks: Clocks) -> None:
    lag.start()
    for late in (0.001, 0.03, 0.06, 9.0):
        tick(lag, clocks, late, 0.0)
    lag.stop()
    buckets, total = lag.histogram()
    assert [bound for bound, _ in buckets] == [*map(str, BOUNDS), "+Inf"]
    assert dict(buckets) == {
        "0.005": 1,
        "0.01": 1,
        "0.025": 1,
        "0.05": 2,
        "0.1": 3,
        "0.25": 3,
        "0.5": 3,
        "1.0": 3,
        "2.5": 3,
        "+Inf": 4,
    }
    assert total == pytest.approx(9.091)
