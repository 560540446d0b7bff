"""When leases end. Every member counts from the renewals that it applies; only the leader acts on it.

An expiry is a command in the log like any other. A new leader gives every lease its full time again: it cannot know
which renewals its predecessor was about to commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from kybern.clock import Clock
from kybern.pb.v1.store_pipe_pb2 import StoreCommand, StoreLeaseRevoke
from store.mvcc.outcomes import LeaseOutcome
from store.raft.interface import RaftUnavailable
from store.server.core import Core, Refused

log = logging.getLogger(__name__)

# Seconds between looks. A look that comes much later than that means that the process was stopped meanwhile.
_INTERVAL = 0.5
# How many leases are ended at a look: as many per second as etcd does (leaseRevokeRate).
_AT_ONCE = 500


class LeaseClock:
    """Implements `LeaseObserver`; `run` ends leases while this member leads."""

    def __init__(self, core: Core, clock: Clock) -> None:
        self._core = core
        self._clock = clock
        self._deadlines: dict[int, float] = {}
        self._looked = clock.monotonic()
        # Whether this member leads and has given every lease its full time.
        self._leads = False
        core.raft.on_leadership(self._leadership)

    def lease_renewed(self, lease: int, ttl: int) -> None:
        """As `LeaseObserver.lease_renewed`."""
        self._deadlines[lease] = self._clock.monotonic() + ttl

    def lease_ended(self, lease: int) -> None:
        """As `LeaseObserver.lease_ended`."""
        self._deadlines.pop(lease, None)

    def remaining(self, lease: int) -> int:
        """Whole seconds that a lease still has, never less than 0."""
        deadline = self._deadlines.get(lease)
        return 0 if deadline is None else max(0, int(deadline - self._clock.monotonic()))

    def overdue(self) -> list[int]:
        """Leases whose time is over.

        Time in which this process was stopped, or could commit nothing because its disk hung, is not counted: no
        renewal could come.
        """
        now = self._clock.monotonic()
        stopped = now - self._looked - (0.0 if self._core.raft.status().trouble else 2 * _INTERVAL)
        self._looked = now
        if stopped > 0:
            self._deadlines = {lease: deadline + stopped for lease, deadline in self._deadlines.items()}
        return [lease for lease, deadline in self._deadlines.items() if deadline <= now]

    async def run(self) -> None:
        """End leases for as long as the member runs."""
        if self._core.raft.is_leader:
            self._leadership(True)
        while True:
            await asyncio.sleep(_INTERVAL)
            overdue = self.overdue()
            if overdue and self._leads:
                # Renewals are counted now: one that is applied before the proposal is made saves the lease.
                ends = [
                    StoreLeaseRevoke(id=lease.id, renewals=lease.renewals, granted=lease.granted)
                    for lease in map(self._core.machine.leases.get, overdue[:_AT_ONCE])
                    if lease
                ]
                await asyncio.gather(*map(self._end, ends))

    async def _end(self, revoke: StoreLeaseRevoke) -> None:
        command = StoreCommand(lease_revoke=revoke)
        # Refused: somebody else ended it. Unavailable: whoever leads next will see to it.
        with contextlib.suppress(Refused, RaftUnavailable):
            await self._core.propose(command, LeaseOutcome)
            log.debug("lease %d has ended", revoke.id)

    def _leadership(self, leading: bool) -> None:
        self._leads = leading
        if not leading:
            return
        now = self._clock.monotonic()
        for lease in self._core.machine.leases.leases.values():
            self._deadlines[lease.id] = max(self._deadlines.get(lease.id, 0.0), now + lease.ttl)
