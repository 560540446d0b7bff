"""What leases promise: their keys live until the last acknowledged renewal runs out, and no longer than they.

Times are seconds of the harness's monotonic clock. A renewal counts from when it was asked for: the store cannot have
made it earlier. That a key is gone counts from when somebody was told: it cannot have been later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kybern.client.store import Change, KeyValue

KEYS = b"l/"
KEYS_END = b"l0"


@dataclass(slots=True)
class Lease:
    """One lease as its client knows it."""

    id: int
    ttl: int
    # When acknowledged grants and renewals were asked for.
    renewed: list[float] = field(default_factory=list)
    # When the last call that may have renewed it was over, whatever became of it.
    touched: float = 0.0
    keys: list[bytes] = field(default_factory=list)
    # When a call was answered that there is no such lease.
    refused: list[float] = field(default_factory=list)
    # When the client began to revoke it.
    revoked: float | None = None

    @property
    def protected(self) -> float:
        """Until when it must live."""
        return max(self.renewed) + self.ttl


def check_lives(leases: Iterable[Lease], gone: Mapping[bytes, float]) -> list[str]:
    """Leases that ended before their time, or were renewed after it. `gone`: when a key's deletion was first told."""
    problems = []
    for lease in leases:
        ends = [(when, "the lease was said to be gone") for when in lease.refused]
        ends += [(gone[key], f"{key.decode()} was gone") for key in lease.keys if key in gone]
        for when, what in ends:
            if when < lease.protected and (lease.revoked is None or when < lease.revoked):
                problems.append(f"lease {lease.id:x}: {what} {lease.protected - when:.2f} s before its time")
            if max(lease.renewed) > when:
                problems.append(f"lease {lease.id:x}: renewed {max(lease.renewed) - when:.2f} s after {what}")
    return problems


def check_keys(before: Mapping[bytes, KeyValue], changes: Sequence[Change], known: Mapping[bytes, int]) -> list[str]:
    """The list of changes: the keys of a lease vanish together, once and for all, and nobody else's key vanishes so.

    `known`: the lease that a client gave to a key.
    """
    problems = []
    state = {key: kv for key, kv in before.items() if kv.lease}
    ended: dict[int, int] = {}
    for number, change in enumerate(changes):
        key, previous, revision = change.value.key, change.previous, change.value.mod_revision
        state.pop(key, None)
        if not change.deleted and change.value.lease:
            state[key] = change.value
            if change.value.lease in ended:
                problems.append(
                    f"{key.decode()} came at {revision}, after its lease's end at {ended[change.value.lease]}"
                )
        if change.deleted and previous is not None and previous.lease:
            ended.setdefault(previous.lease, revision)
            if ended[previous.lease] != revision:
                problems.append(f"{key.decode()} vanished at {revision}, its lease ended at {ended[previous.lease]}")
            if known.get(key) != previous.lease:
                problems.append(f"{key.decode()} vanished at {revision} with lease {previous.lease:x}, not its own")
            last = number + 1 == len(changes) or changes[number + 1].value.mod_revision != revision
            if last and (left := [other for other, kv in state.items() if kv.lease == previous.lease]):
                problems.append(f"at {revision} lease {previous.lease:x} ended, and its keys {left} stayed")
    return problems


def check_leftovers(state: Mapping[bytes, KeyValue], live: Iterable[int]) -> list[str]:
    """Keys whose lease is not there. `live` are the leases as of a moment before `state`, with none granted since."""
    there = set(live)
    return [
        f"{key.decode()} is there at {kv.mod_revision}, its lease {kv.lease:x} is not"
        for key, kv in state.items()
        if kv.lease and kv.lease not in there
    ]


def overdue(leases: Iterable[Lease], live: Iterable[int], now: float, healed: float, patience: float) -> list[str]:
    """Leases that live on although nobody renewed them, `patience` seconds after their time since the faults' end."""
    there = set(live)
    return [
        f"lease {lease.id:x} of {lease.ttl} s lives {now - max(lease.touched, healed):.1f} s after its last renewal"
        for lease in leases
        if lease.id in there and now > max(lease.touched, healed) + lease.ttl + patience
    ]
