"""Alarms: what a person must see to. Part of the replicated state, so that all members refuse the same commands.

NOSPACE is raised by the member that finds its quota exceeded, and stays until it is disarmed: whoever freed space says
so. While it is on, what makes the store grow is refused; deletions, compactions and reads go on.
"""

from __future__ import annotations

from collections.abc import Iterable

from kybern.pb.etcd import kv_pb2, maintenance_pb2
from kybern.pb.v1.store_pipe_pb2 import StoreCommand

NOSPACE = maintenance_pb2.NOSPACE

# A member's number and the kind of alarm.
Alarm = tuple[int, int]


class AlarmTable:
    """The alarms that are on."""

    def __init__(self) -> None:
        self._on: set[Alarm] = set()

    @property
    def no_space(self) -> bool:
        """Whether any member is out of space."""
        return bool(self._on) and any(kind == NOSPACE for _, kind in self._on)

    def matching(self, member: int = 0, kind: int = maintenance_pb2.NONE) -> list[Alarm]:
        """Alarms of a member (0: of any) and of a kind (NONE: of any), in order."""
        return sorted(a for a in self._on if member in (0, a[0]) and kind in (maintenance_pb2.NONE, a[1]))

    def activate(self, member: int, kind: int) -> list[Alarm]:
        """Raise an alarm; it may be on already."""
        self._on.add((member, kind))
        return [(member, kind)]

    def deactivate(self, member: int, kind: int) -> list[Alarm]:
        """Clear the alarms that match; returns them."""
        found = self.matching(member, kind)
        self._on.difference_update(found)
        return found

    def replace(self, alarms: Iterable[Alarm]) -> None:
        """Have these on and no others."""
        self._on = set(alarms)


def grows(command: StoreCommand) -> bool:
    """Whether a command can make the store larger."""
    match command.WhichOneof("command"):
        case "delete_range" | "compact" | "lease_revoke" | "lease_renew" | "alarm":
            return False
        case "txn":
            return txn_grows(command.txn)
        case "batch":
            return any(txn_grows(txn) for txn in command.batch.txns)
        case "calls":
            return any(call.HasField("swap") or txn_grows(call.txn) for call in command.calls.calls)
        case _:
            return True


def txn_grows(request: kv_pb2.TxnRequest) -> bool:
    """Whether either branch of a transaction sets a key, as etcd judges it."""
    return any(
        op.HasField("request_put") or (op.HasField("request_txn") and txn_grows(op.request_txn))
        for branch in (request.success, request.failure)
        for op in branch
    )
