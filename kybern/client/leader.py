"""Leadership through a Lease: at most one process acts, and it stops before another can begin.

The holder renews well before its lease ends. It counts from the moment before it sent the renewal, on a clock that goes
on while the process is stopped, and gives up `margin` before anyone else may take over. Others count from the moment
that they saw the Lease change, on their own clock: nobody compares wall clocks of two hosts. Beyond that, every write
of a leader carries the `Fence` of its reign, which the store's transaction checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.api.types import Lease
from kybern.api.types.base import decode
from kybern.client.acting import LeadershipLost
from kybern.client.interface import Client, Fence
from kybern.clock import Clock, rfc3339_micro
from kybern.key import Key

log = logging.getLogger(__name__)


@dataclass
class Leadership:
    """One reign. `fence` is for every write that is made during it."""

    _fence: Fence
    _clock: Clock
    _until: float

    def fence(self) -> Fence:
        """The reign's fence.

        Raises:
            LeadershipLost: when the lease may have passed to another by now.
        """
        if self._clock.monotonic() >= self._until:
            raise LeadershipLost
        return self._fence

    @property
    def remaining(self) -> float:
        """Seconds until this process must stop acting, unless it renews."""
        return self._until - self._clock.monotonic()

    def extend(self, until: float) -> None:
        """The lease was renewed."""
        self._until = until


class LeaderElector:
    """Takes part in the election for one Lease."""

    def __init__(
        self, client: Client, lease: Key, identity: str, clock: Clock, *, duration: float, renew: float | None = None
    ) -> None:
        self._client = client
        self._lease = lease
        self._identity = identity
        self._clock = clock
        self._duration = duration
        self._renew = renew if renew is not None else duration / 5
        # Between giving up and another's start: a fifth of the lease covers what is under way and clock drift.
        self._margin = duration / 5
        self._seen: tuple[str, float] = ("", 0.0)

    async def run(self, lead: Callable[[Leadership], Awaitable[None]]) -> None:
        """Campaign for ever; run `lead` during each reign and cancel it when the reign ends."""
        while True:
            leadership = await self._campaign()
            log.info("%s leads %s", self._identity, self._lease)
            try:
                await self._reign(leadership, lead)
            finally:
                await self._release()
            log.info("%s no longer leads %s", self._identity, self._lease)

    async def _campaign(self) -> Leadership:
        while True:
            with contextlib.suppress(StatusError):
                if (leadership := await self._try()) is not None:
                    return leadership
            await asyncio.sleep(self._renew)

    async def _try(self) -> Leadership | None:
        before = self._clock.monotonic()
        lease = await self._read()
        if lease is None:
            document = await self._client.create(resources.LEASES, self._document(None, 0), self._lease.namespace)
            return self._begin(document, before)
        version = lease.metadata.resource_version
        if self._seen[0] != version:
            self._seen = (version, before)
        held = lease.spec.holder_identity not in ("", self._identity)
        if held and before < self._seen[1] + (lease.spec.lease_duration_seconds or self._duration):
            return None
        # A reign of ours that we do not remember is another reign: pass through "nobody" so that it gets a new fence.
        if lease.spec.holder_identity == self._identity:
            document = await self._write(lease.metadata.resource_version, "", lease.spec.lease_transitions)
            version = decode(document, Lease).metadata.resource_version
        document = await self._write(version, self._identity, lease.spec.lease_transitions + 1)
        return self._begin(document, before)

    def _begin(self, document: bytes, before: float) -> Leadership:
        self._version = decode(document, Lease).metadata.resource_version
        self._transitions = decode(document, Lease).spec.lease_transitions
        fence = Fence(self._lease.namespace, self._lease.name, int(self._version))
        return Leadership(fence, self._clock, before + self._duration - self._margin)

    async def _reign(self, leadership: Leadership, lead: Callable[[Leadership], Awaitable[None]]) -> None:
        work = asyncio.ensure_future(lead(leadership))
        keeper = asyncio.ensure_future(self._keep(leadership))
        try:
            await asyncio.wait({work, keeper}, return_when=asyncio.FIRST_COMPLETED)
            if work.done() and not work.cancelled():
                work.result()
        finally:
            for task in (work, keeper):
                task.cancel()
            await asyncio.gather(work, keeper, return_exceptions=True)

    async def _keep(self, leadership: Leadership) -> None:
        """Renew until that fails for so long that the reign must end."""
        while True:
            await asyncio.sleep(min(self._renew, max(leadership.remaining, 0.0)))
            if leadership.remaining <= 0:
                log.warning("%s could not renew %s in time", self._identity, self._lease)
                return
            before = self._clock.monotonic()
            try:
                async with asyncio.timeout(leadership.remaining):
                    document = await self._write(self._version, self._identity, self._transitions)
            except TimeoutError:
                continue
            except StatusError as error:
                if error.reason == Reason.CONFLICT and not await self._still_ours():
                    return
                continue
            self._version = decode(document, Lease).metadata.resource_version
            leadership.extend(before + self._duration - self._margin)

    async def _still_ours(self) -> bool:
        """After a conflict: an earlier renewal may have been stored although its answer was lost."""
        with contextlib.suppress(StatusError):
            lease = await self._read()
            if lease is None or lease.spec.holder_identity != self._identity:
                return False
            if lease.spec.lease_transitions != self._transitions:
                return False
            self._version = lease.metadata.resource_version
        return True

    async def _release(self) -> None:
        """Give the lease back, so that another need not wait for its end; losing this race does no harm."""
        with contextlib.suppress(StatusError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._write(self._version, "", self._transitions)

    async def _read(self) -> Lease | None:
        try:
            return decode(await self._client.get(resources.LEASES, self._lease.name, self._lease.namespace), Lease)
        except StatusError as error:
            if error.reason == Reason.NOT_FOUND:
                return None
            raise

    async def _write(self, version: str, holder: str, transitions: int) -> bytes:
        document = self._document(holder, transitions)
        document["metadata"]["resourceVersion"] = version
        return await self._client.update(resources.LEASES, self._lease.name, document, self._lease.namespace)

    def _document(self, holder: str | None, transitions: int) -> dict[str, Any]:
        now = rfc3339_micro(self._clock.now())
        return {
            "apiVersion": resources.LEASES.api_version,
            "kind": resources.LEASES.kind,
            "metadata": {"name": self._lease.name, "namespace": self._lease.namespace},
            "spec": {
                "holderIdentity": self._identity if holder is None else holder,
                # Whole seconds on the wire, rounded up: the others may only wait longer than we act.
                "leaseDurationSeconds": -int(-self._duration // 1),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }
