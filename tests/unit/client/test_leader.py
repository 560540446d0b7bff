"""Leader election on virtual time, against the API in memory."""

from __future__ import annotations

import asyncio

import pytest

from kybern.api import resources
from kybern.api.errors import unavailable
from kybern.client.acting import LeadershipLost
from kybern.client.fake import FakeClient
from kybern.client.leader import LeaderElector, Leadership
from kybern.clock import LoopClock, run_virtual
from kybern.key import Key

LEASE = Key("kube-system", "kybern-master")


class Candidate:
    """Takes part, and records its reigns."""

    def __init__(self, client: FakeClient, name: str) -> None:
        self.name = name
        self.reigns: list[Leadership] = []
        self.leading = False
        self.elector = LeaderElector(client, LEASE, name, LoopClock(), duration=5.0)

    async def lead(self, leadership: Leadership) -> None:
        self.reigns.append(leadership)
        self.leading = True
        try:
            await asyncio.Event().wait()
        finally:
            self.leading = False


def test_one_leads_and_hands_over_when_it_ends() -> None:
    async def main() -> None:
        client = FakeClient()
        one, two = Candidate(client, "m1"), Candidate(client, "m2")
        first = asyncio.create_task(one.elector.run(one.lead))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(two.elector.run(two.lead))
        await asyncio.sleep(60)
        assert (one.leading, two.leading) == (True, False)
        first.cancel()
        await asyncio.sleep(2)
        assert (one.leading, two.leading) == (False, True)
        assert two.reigns[0].fence().revision > one.reigns[0]._fence.revision
        second.cancel()

    run_virtual(main())


def test_a_leader_that_cannot_renew_stops_before_another_starts() -> None:
    async def main() -> None:
        client, broken = FakeClient(), FakeClient()
        one, two = Candidate(client, "m1"), Candidate(client, "m2")
        first = asyncio.create_task(one.elector.run(one.lead))
        await asyncio.sleep(1)
        one.elector._client = broken
        broken.fail_next("*", unavailable("cut off"), times=1000)
        second = asyncio.create_task(two.elector.run(two.lead))
        overlap = False
        for _ in range(1000):
            await asyncio.sleep(0.01)
            overlap = overlap or (one.leading and two.leading)
        assert not overlap
        assert (one.leading, two.leading) == (False, True)
        with pytest.raises(LeadershipLost):
            one.reigns[0].fence()
        first.cancel()
        second.cancel()

    run_virtual(main())


def test_the_fence_is_the_revision_at_which_the_holder_changed() -> None:
    async def main() -> None:
        client = FakeClient()
        one = Candidate(client, "m1")
        task = asyncio.create_task(one.elector.run(one.lead))
        await asyncio.sleep(0.1)
        begun = int(client.all(resources.LEASES)[0]["metadata"]["resourceVersion"])
        await asyncio.sleep(30)
        assert one.reigns[0].fence().revision == begun
        assert int(client.all(resources.LEASES)[0]["metadata"]["resourceVersion"]) > begun
        task.cancel()

    run_virtual(main())
