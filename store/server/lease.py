"""etcdserverpb.Lease."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterable
from typing import Any

from kybern.pb.etcd import lease_pb2
from kybern.pb.v1.store_pipe_pb2 import StoreCommand, StoreLeaseRevoke
from store.mvcc.errors import LEASE_EXISTS
from store.mvcc.outcomes import LeaseOutcome
from store.server.core import Context, Core, Guard, Refused, handlers
from store.server.expiry import LeaseClock

SERVICE = "etcdserverpb.Lease"


def lease_handlers(core: Core, clock: LeaseClock, guard: Guard) -> Any:
    """The service, for adding to a server."""
    service = LeaseService(core, clock)
    return handlers(
        SERVICE,
        {
            "LeaseGrant": guard.unary(service.grant, lease_pb2.LeaseGrantRequest),
            "LeaseRevoke": guard.unary(service.revoke, lease_pb2.LeaseRevokeRequest),
            "LeaseKeepAlive": guard.stream(service.keep_alive, lease_pb2.LeaseKeepAliveRequest),
            "LeaseTimeToLive": guard.unary(service.time_to_live, lease_pb2.LeaseTimeToLiveRequest),
            "LeaseLeases": guard.unary(service.leases, lease_pb2.LeaseLeasesRequest),
        },
    )


class LeaseService:
    """Grants, renewals and revocations are commands in the log, so that any member can take them."""

    def __init__(self, core: Core, clock: LeaseClock) -> None:
        self._core = core
        self._clock = clock

    async def grant(self, request: lease_pb2.LeaseGrantRequest, context: Context) -> lease_pb2.LeaseGrantResponse:
        """Make a lease; without a number it gets a random one."""
        while True:
            command = StoreCommand(
                lease_grant=lease_pb2.LeaseGrantRequest(TTL=request.TTL, ID=request.ID or secrets.randbits(62) | 1)
            )
            try:
                outcome = await self._core.propose(command, LeaseOutcome)
                break
            except Refused as refused:
                if request.ID or refused.error is not LEASE_EXISTS:
                    raise
        return lease_pb2.LeaseGrantResponse(
            header=self._core.header(outcome.revision), ID=outcome.lease, TTL=outcome.ttl
        )

    async def revoke(self, request: lease_pb2.LeaseRevokeRequest, context: Context) -> lease_pb2.LeaseRevokeResponse:
        """End a lease and delete its keys."""
        command = StoreCommand(lease_revoke=StoreLeaseRevoke(id=request.ID, renewals=-1))
        outcome = await self._core.propose(command, LeaseOutcome)
        return lease_pb2.LeaseRevokeResponse(header=self._core.header(outcome.revision))

    async def keep_alive(self, requests: AsyncIterable[lease_pb2.LeaseKeepAliveRequest], context: Context) -> None:
        """Renew leases until the client closes the stream."""
        async for request in requests:
            outcome = await self._core.propose(StoreCommand(lease_renew=request), LeaseOutcome)
            response = lease_pb2.LeaseKeepAliveResponse(
                header=self._core.header(outcome.revision), ID=outcome.lease, TTL=outcome.ttl
            )
            await context.write(response.SerializeToString())

    async def time_to_live(
        self, request: lease_pb2.LeaseTimeToLiveRequest, context: Context
    ) -> lease_pb2.LeaseTimeToLiveResponse:
        """How long a lease still has, as this member counts it."""
        await self._core.raft.read_barrier()
        lease = self._core.machine.leases.get(request.ID)
        header = self._core.header()
        if lease is None:
            return lease_pb2.LeaseTimeToLiveResponse(header=header, ID=request.ID, TTL=-1)
        return lease_pb2.LeaseTimeToLiveResponse(
            header=header,
            ID=lease.id,
            TTL=self._clock.remaining(lease.id),
            grantedTTL=lease.ttl,
            keys=sorted(lease.keys) if request.keys else (),
        )

    async def leases(self, request: lease_pb2.LeaseLeasesRequest, context: Context) -> lease_pb2.LeaseLeasesResponse:
        """All leases."""
        await self._core.raft.read_barrier()
        numbers = sorted(self._core.machine.leases.leases)
        return lease_pb2.LeaseLeasesResponse(
            header=self._core.header(), leases=[lease_pb2.LeaseStatus(ID=number) for number in numbers]
        )
