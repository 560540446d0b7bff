"""Who is next, and when a refused pod is tried again."""

from __future__ import annotations

import asyncio

from kybern.clock import LoopClock, run_virtual
from master.scheduler.queue import FLUSH, SchedulingQueue
from tests.unit.master.scheduler.objects import info


def test_priority_comes_first_and_then_age() -> None:
    async def main() -> None:
        queue = SchedulingQueue(LoopClock())
        for name, priority in (("a", 0), ("b", 10), ("c", 0), ("d", 10)):
            queue.add(info(name, priority=priority))
        assert [(await queue.pop()).key.name for _ in range(4)] == ["b", "d", "a", "c"]

    run_virtual(main())


def test_a_refused_pod_waits_for_a_change_and_for_its_back_off() -> None:
    async def main() -> None:
        clock = LoopClock()
        queue = SchedulingQueue(clock)
        queue.add(info("a"))
        waits = []
        for _ in range(6):
            queue.refuse((await queue.pop()).uid)
            began = clock.monotonic()
            queue.changed()
            await queue.pop()
            waits.append(round(clock.monotonic() - began))
            queue.add(info("a"))
        assert waits == [1, 2, 4, 8, 10, 10]

    run_virtual(main())


def test_without_any_change_it_is_tried_again_in_the_end() -> None:
    async def main() -> None:
        clock = LoopClock()
        queue = SchedulingQueue(clock)
        queue.add(info("a"))
        queue.refuse((await queue.pop()).uid)
        assert queue.take() is None
        began = clock.monotonic()
        await queue.pop()
        assert clock.monotonic() - began == FLUSH

    run_virtual(main())


def test_a_change_during_the_decision_counts() -> None:
    async def main() -> None:
        clock = LoopClock()
        queue = SchedulingQueue(clock)
        queue.add(info("a"))
        pod = await queue.pop()
        queue.changed()
        queue.refuse(pod.uid)
        await queue.pop()
        assert clock.monotonic() == 1.0

    run_virtual(main())


def test_removed_pods_are_not_handed_out_and_changed_ones_come_as_they_are() -> None:
    async def main() -> None:
        queue = SchedulingQueue(LoopClock())
        queue.add(info("a"))
        queue.add(info("b"))
        queue.remove("uid-a")
        queue.add(info("b", labels={"x": "y"}))
        assert (await queue.pop()).labels == {"x": "y"}
        assert queue.take() is None
        queue.refuse("uid-b")
        queue.remove("uid-b")
        queue.changed()
        await asyncio.sleep(100)
        assert queue.take() is None

    run_virtual(main())


def test_a_pod_that_could_not_be_bound_is_tried_again_by_itself() -> None:
    async def main() -> None:
        clock = LoopClock()
        queue = SchedulingQueue(clock)
        queue.add(info("a"))
        queue.retry((await queue.pop()).uid)
        await queue.pop()
        assert clock.monotonic() == 1.0

    run_virtual(main())
