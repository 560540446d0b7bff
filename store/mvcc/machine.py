"""The state machine: applies the log's commands to keys, leases and sessions.

Deterministic, and never raises: whatever a command holds, every member comes to the same state and outcome. Only what
came with another version raises `UnknownCommand`, which ends the member.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from google.protobuf.message import DecodeError

from kybern.pb.etcd import kv_pb2, lease_pb2, maintenance_pb2
from kybern.pb.v1 import store_pipe_pb2
from store.mvcc.alarms import AlarmTable, txn_grows
from store.mvcc.dump import Dump, Loader
from store.mvcc.errors import (
    COMPACTED,
    FUTURE_REVISION,
    LEASE_EXISTS,
    LEASE_NOT_FOUND,
    NO_SPACE,
    OUTCOME_FORGOTTEN,
    TTL_TOO_LARGE,
    UNREADABLE_COMMAND,
    StoreError,
)
from store.mvcc.keyspace import KeySpace
from store.mvcc.leases import MAX_TTL, Lease, LeaseTable
from store.mvcc.level import LEVEL, LOWEST_LEVEL
from store.mvcc.outcomes import (
    AlarmOutcome,
    BatchOutcome,
    CallOutcome,
    CompactOutcome,
    DeleteOutcome,
    LeaseOutcome,
    Outcome,
    PutOutcome,
    RangeOutcome,
    TxnOutcome,
)
from store.mvcc.ranges import read_range
from store.mvcc.sessions import SessionTable
from store.mvcc.swap import compare_and_swap, swap
from store.mvcc.txn import Transaction, check_delete, check_put, check_txn
from store.raft.interface import Applied, Levels, UnknownCommand


class LeaseObserver(Protocol):
    """Hears of leases as commands about them are applied."""

    def lease_renewed(self, lease: int, ttl: int) -> None:
        """A lease was granted or renewed: it now lives `ttl` seconds."""
        ...

    def lease_ended(self, lease: int) -> None:
        """A lease has ended."""
        ...


_LEVELS = Levels(LOWEST_LEVEL, LEVEL)
_UNKNOWN = "command {} is of a kind that this version does not know"


class _NoObserver:
    def lease_renewed(self, lease: int, ttl: int) -> None:
        """Nobody listens."""

    def lease_ended(self, lease: int) -> None:
        """Nobody listens."""


class StoreMachine:
    """The replicated state, and what is local to this member: who is told of changes."""

    def __init__(self, levels: Levels = _LEVELS) -> None:
        """`levels`: those that this software can apply."""
        self.levels = levels
        # The group's: part of the state.
        self.level = 1
        self.keys = KeySpace()
        self.leases = LeaseTable()
        self.sessions = SessionTable()
        self.alarms = AlarmTable()
        # The leader's clock as of the last command, in milliseconds since the epoch.
        self.now_ms = 0
        self.applied_index = 0
        self.lease_observer: LeaseObserver = _NoObserver()
        self._wakers: list[Callable[[], None]] = []
        self._loaded: list[Callable[[], None]] = []

    def on_caught_up(self, waker: Callable[[], None]) -> None:
        """Call `waker` after each batch of applied commands."""
        self._wakers.append(waker)

    def on_loaded(self, handler: Callable[[], None]) -> None:
        """Call `handler` after the whole state was replaced by that of a snapshot."""
        self._loaded.append(handler)

    # --- StateMachine

    def apply(self, command: bytes, applied: Applied) -> Outcome:
        """Apply one command.

        Raises:
            UnknownCommand: it, or a call in it, is of a kind that this version does not know: the state is of no use.
        """
        self.applied_index = applied.index
        self.now_ms = applied.now_ms
        try:
            message = store_pipe_pb2.StoreCommand.FromString(command)
        except DecodeError:
            # No version can read it, so this is what all answer. A client can cause it, by nesting too deeply.
            return UNREADABLE_COMMAND
        match message.WhichOneof("command"):
            case "calls":
                return self._calls(message.calls)
            case "batch":
                return self._batch(message.batch)
            case "txn":
                return self._txn(message.txn)
            case "put":
                return self._put(message.put)
            case "delete_range":
                return self._delete(message.delete_range)
            case "compact":
                return self._compact(message.compact.revision)
            case "lease_grant":
                return self._grant(message.lease_grant)
            case "lease_revoke":
                return self._revoke(message.lease_revoke)
            case "lease_renew":
                return self._renew(message.lease_renew.ID)
            case "alarm":
                return self._alarm(message.alarm)
            case _:
                # Another version would do something here: whatever was answered, the states would part.
                raise UnknownCommand(_UNKNOWN.format(applied.index))

    def rise(self, level: int) -> None:
        """The group has risen to a level; a lower one than the present changes nothing."""
        self.level = max(self.level, level)

    def caught_up(self) -> None:
        """Wake watchers."""
        for waker in self._wakers:
            waker()
        self.keys.trim()

    def dump(self) -> Dump:
        """The state as it is now, in portions; the machine may go on while they are read."""
        return Dump(self)

    def load(self) -> Loader:
        """Take a dump; its `finish` replaces the state."""
        return Loader(self)

    def replace_leases(self, leases: dict[int, Lease]) -> None:
        """The end of a load: who counts the leases' time, and who follows changes, is told of the new state."""
        gone = self.leases.leases.keys() - leases.keys()
        self.leases.leases = leases
        for number in gone:
            self.lease_observer.lease_ended(number)
        for lease in leases.values():
            self.lease_observer.lease_renewed(lease.id, lease.ttl)
        for handler in self._loaded:
            handler()

    # --- reading

    def range(self, request: kv_pb2.RangeRequest) -> RangeOutcome | StoreError:
        """Read keys as they are on this member."""
        return read_range(self.keys, request, revision=self.keys.revision)

    def read_txn(self, request: kv_pb2.TxnRequest) -> TxnOutcome | StoreError:
        """Do a transaction that holds nothing but reads."""
        return Transaction(self.keys, self.leases).txn(request)

    # --- commands

    def _batch(self, batch: store_pipe_pb2.StoreBatch) -> Outcome:
        if len(batch.ids) != len(batch.txns):
            return UNREADABLE_COMMAND
        calls = [store_pipe_pb2.PipeCall(id=number, txn=txn) for number, txn in zip(batch.ids, batch.txns, strict=True)]
        return self._calls(
            store_pipe_pb2.PipeRequest(client=batch.client, answered_below=batch.answered_below, calls=calls)
        )

    def _calls(self, request: store_pipe_pb2.PipeRequest) -> BatchOutcome:
        session = self.sessions.enter(request.client)
        session.forget_below(request.answered_below)
        keys, leases, full, known = self.keys, self.leases, self.alarms.no_space, session.outcomes
        outcomes: list[CallOutcome] = []
        for call in request.calls:
            number = call.id
            outcome = known.get(number)
            if outcome is None:
                if number < session.floor:
                    outcome = OUTCOME_FORGOTTEN
                elif call.HasField("swap"):
                    known[number] = outcome = NO_SPACE if full else compare_and_swap(keys, leases, call.swap)
                elif call.WhichOneof("call") is not None:
                    known[number] = outcome = self._txn(call.txn)
                else:
                    raise UnknownCommand(_UNKNOWN.format(self.applied_index))
            outcomes.append(outcome)
        session.limit()
        return BatchOutcome(outcomes)

    def _txn(self, request: kv_pb2.TxnRequest) -> TxnOutcome | StoreError:
        if self.alarms.no_space and txn_grows(request):
            return NO_SPACE
        plain = swap(self.keys, self.leases, request)
        if plain is not None:
            return plain
        # Whether or not the proposer has checked it.
        error = check_txn(request)
        if error is not None:
            return error
        transaction = Transaction(self.keys, self.leases)
        outcome = transaction.txn(request)
        transaction.finish()
        return outcome

    def _put(self, request: kv_pb2.PutRequest) -> PutOutcome | StoreError:
        transaction = Transaction(self.keys, self.leases)
        error = check_put(request) or self._check_space() or transaction.check_put_state(request)
        if error is not None:
            return error
        outcome = transaction.put(request)
        transaction.finish()
        return outcome

    def _delete(self, request: kv_pb2.DeleteRangeRequest) -> DeleteOutcome | StoreError:
        error = check_delete(request)
        if error is not None:
            return error
        transaction = Transaction(self.keys, self.leases)
        outcome = transaction.delete(request)
        transaction.finish()
        return outcome

    def _compact(self, revision: int) -> CompactOutcome | StoreError:
        # A store that was never compacted accepts 0 once, as etcd does; it changes nothing.
        if revision <= self.keys.compacted and (revision or self.keys.compacted):
            return COMPACTED
        if revision > self.keys.revision:
            return FUTURE_REVISION
        # Watchers must have what this takes away.
        self.caught_up()
        self.keys.compact(revision)
        return CompactOutcome(self.keys.revision)

    def _grant(self, request: lease_pb2.LeaseGrantRequest) -> LeaseOutcome | StoreError:
        if request.ID == 0:
            return UNREADABLE_COMMAND
        if request.TTL > MAX_TTL:
            return TTL_TOO_LARGE
        if request.ID in self.leases:
            return LEASE_EXISTS
        error = self._check_space()
        if error is not None:
            return error
        lease = self.leases.grant(request.ID, request.TTL, self.applied_index)
        self.lease_observer.lease_renewed(lease.id, lease.ttl)
        return LeaseOutcome(self.keys.revision, lease.id, lease.ttl)

    def _revoke(self, request: store_pipe_pb2.StoreLeaseRevoke) -> LeaseOutcome | StoreError:
        lease = self.leases.get(request.id)
        if lease is None:
            return LEASE_NOT_FOUND
        renewed = request.renewals >= 0 and request.renewals != lease.renewals
        another = request.granted and lease.granted and request.granted != lease.granted
        if renewed or another:
            # It was renewed, or granted anew, after the leader had found its time to be over, and lives on.
            return LeaseOutcome(self.keys.revision, lease.id, lease.ttl)
        self.leases.end(request.id)
        transaction = Transaction(self.keys, self.leases)
        transaction.delete_records([self.keys.live[key] for key in sorted(lease.keys)])
        revision = transaction.finish()
        self.lease_observer.lease_ended(request.id)
        return LeaseOutcome(revision, request.id, 0)

    def _renew(self, number: int) -> LeaseOutcome:
        lease = self.leases.get(number)
        if lease is None:
            return LeaseOutcome(self.keys.revision, number, 0)
        lease.renewals += 1
        self.lease_observer.lease_renewed(lease.id, lease.ttl)
        return LeaseOutcome(self.keys.revision, lease.id, lease.ttl)

    def _alarm(self, request: maintenance_pb2.AlarmRequest) -> AlarmOutcome | StoreError:
        match request.action:
            case maintenance_pb2.AlarmRequest.ACTIVATE:
                return AlarmOutcome(self.alarms.activate(request.memberID, request.alarm))
            case maintenance_pb2.AlarmRequest.DEACTIVATE:
                return AlarmOutcome(self.alarms.deactivate(request.memberID, request.alarm))
            case _:
                return UNREADABLE_COMMAND

    def _check_space(self) -> StoreError | None:
        return NO_SPACE if self.alarms.no_space else None
