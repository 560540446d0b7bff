"""What applying a command or reading a range comes to: light objects, made into messages only where somebody asked."""

from __future__ import annotations

from collections.abc import Sequence

from kybern.struct import Frozen
from store.mvcc.errors import StoreError
from store.mvcc.records import Record


class RangeOutcome(Frozen, gc=False):
    """Keys that were read as of `revision`; `count` is how many the range has, `more` that the limit cut it."""

    revision: int
    records: Sequence[Record]
    more: bool
    count: int
    keys_only: bool


class PutOutcome(Frozen, gc=False):
    """A key was set at `revision`; `previous` is there when it was asked for and existed."""

    revision: int
    previous: Record | None


class DeleteOutcome(Frozen, gc=False):
    """`deleted` keys went at `revision`; `previous` has them when they were asked for."""

    revision: int
    deleted: int
    previous: Sequence[Record]


class TxnOutcome(Frozen, gc=False):
    """One branch of a transaction was done, with an outcome per operation."""

    revision: int
    succeeded: bool
    responses: Sequence[RangeOutcome | PutOutcome | DeleteOutcome | TxnOutcome]


class SwapOutcome(Frozen, gc=False):
    """A key was set at `revision`, or it was not: then `current` is what it is, when that was asked for."""

    revision: int
    succeeded: bool
    current: Record | None


CallOutcome = TxnOutcome | SwapOutcome | StoreError


class BatchOutcome(Frozen):
    """Outcomes of a batch's calls, in order."""

    outcomes: Sequence[CallOutcome]


class CompactOutcome(Frozen, gc=False):
    """History before a revision is forgotten; `revision` is the store's."""

    revision: int


class LeaseOutcome(Frozen, gc=False):
    """A lease was granted, renewed or ended. `ttl` is in seconds; 0 when a renewal found no lease."""

    revision: int
    lease: int
    ttl: int


class AlarmOutcome(Frozen, gc=False):
    """Alarms that were raised or cleared: number of the member, and kind."""

    alarms: Sequence[tuple[int, int]]


OpOutcome = RangeOutcome | PutOutcome | DeleteOutcome | TxnOutcome
Outcome = OpOutcome | BatchOutcome | CompactOutcome | LeaseOutcome | AlarmOutcome | StoreError
