"""Which leases there are and which keys live by them. Time is not kept here: see `store.server.expiry`."""

from __future__ import annotations

from dataclasses import dataclass, field

# Seconds. The shortest must outlast a change of leader; the longest is etcd's.
MIN_TTL = 2
MAX_TTL = 9_000_000_000


@dataclass(slots=True)
class Lease:
    """A lease of `ttl` seconds.

    `renewals` counts renewals, so that an expiry can tell that it came too late, and `granted` is the number of the
    command that granted it (0: not known), so that it can tell that it was meant for an earlier lease of that number.
    """

    id: int
    ttl: int
    renewals: int = 0
    keys: set[bytes] = field(default_factory=set)
    granted: int = 0


class LeaseTable:
    """All leases by number."""

    def __init__(self) -> None:
        self.leases: dict[int, Lease] = {}

    def __contains__(self, lease: int) -> bool:
        return lease in self.leases

    def get(self, lease: int) -> Lease | None:
        """The lease with a number."""
        return self.leases.get(lease)

    def grant(self, lease: int, ttl: int, command: int) -> Lease:
        """Add a lease; its number must be free. `command` is the number of the command that asks for it."""
        added = Lease(lease, max(ttl, MIN_TTL), granted=command)
        self.leases[lease] = added
        return added

    def end(self, lease: int) -> None:
        """Take a lease out."""
        self.leases.pop(lease, None)

    def move(self, key: bytes, old: int, new: int) -> None:
        """A key that lived by `old` lives by `new` now (0: by none)."""
        if old == new:
            return
        if old and (was := self.leases.get(old)) is not None:
            was.keys.discard(key)
        if new and (now := self.leases.get(new)) is not None:
            now.keys.add(key)
