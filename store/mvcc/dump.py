"""The whole state as a stream of bytes, and back. For snapshots.

MessagePack frames, each with its length (4 bytes, big-endian) before it: a head, then portions of records, leases and
outcomes of sessions, alarms. Records are never altered, so a dump is consistent as of the moment in which it was begun,
however long it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from store.mvcc.errors import StoreError
from store.mvcc.leases import Lease
from store.mvcc.machine import StoreMachine
from store.mvcc.outcomes import DeleteOutcome, OpOutcome, PutOutcome, RangeOutcome, TxnOutcome
from store.mvcc.records import Record
from store.mvcc.sessions import Session

FORMAT = 1
_PORTION = 512

_Row = tuple[bytes, bytes, int, int, int, int]


class Head(msgspec.Struct, frozen=True):
    """What a dump begins with."""

    format: int
    revision: int
    compacted: int
    applied_index: int
    now_ms: int
    records: int


class BadDump(Exception):  # noqa: N818 - said of the data
    """The bytes are not a dump, or not a whole one."""


def dump(machine: StoreMachine) -> Iterator[bytes]:
    """The state as it is now, in portions; the machine may go on while they are read."""
    base = machine.keys.base()
    changes = machine.keys.log.all()
    head = Head(
        format=FORMAT,
        revision=machine.keys.revision,
        compacted=machine.keys.compacted,
        applied_index=machine.applied_index,
        now_ms=machine.now_ms,
        records=len(base) + len(changes),
    )
    leases = [(lease.id, lease.ttl, lease.renewals, sorted(lease.keys)) for lease in machine.leases.leases.values()]
    sessions = [
        (client, session.floor, [(number, _pack(outcome)) for number, outcome in session.outcomes.items()])
        for client, session in machine.sessions.sessions.items()
    ]
    return _frames(head, base, changes, {"leases": leases, "sessions": sessions, "alarms": machine.alarms.matching()})


def load(machine: StoreMachine, frames: Iterable[bytes]) -> None:
    """Replace a machine's state by a dump's. `frames` may be cut anywhere.

    Raises:
        BadDump: when the bytes are not a dump; the machine is as it was.
    """
    items = _unframe(frames)
    try:
        head = msgspec.convert(next(items), Head)
        if head.format != FORMAT:
            raise BadDump(f"the dump has format {head.format}; this version reads {FORMAT}")
        base: list[Record] = []
        changes: list[Record] = []
        leases: list[Lease] = []
        sessions: list[tuple[int, Session]] = []
        alarms: list[tuple[int, int]] = []
        for kind, rows in items:
            match kind:
                case "base":
                    base += [_record(row) for row in rows]
                case "changes":
                    changes += [_record(row) for row in rows]
                case "leases":
                    leases += [Lease(id_, ttl, renewals, set(keys)) for id_, ttl, renewals, keys in rows]
                case "sessions":
                    sessions += [(c, Session(floor, {n: _unpack(o) for n, o in kept})) for c, floor, kept in rows]
                case "alarms":
                    alarms += [(member, kind) for member, kind in rows]
                case "end":
                    break
        else:
            raise BadDump("the dump ends early")
    except (msgspec.MsgspecError, ValueError, TypeError, StopIteration, KeyError) as error:
        raise BadDump(f"the bytes are not a dump of the store: {error}") from error
    if len(base) + len(changes) != head.records:
        raise BadDump(f"the dump has {len(base) + len(changes)} records instead of {head.records}")
    machine.keys.load(head.revision, head.compacted, base, changes)
    machine.applied_index, machine.now_ms = head.applied_index, head.now_ms
    machine.leases.leases = {lease.id: lease for lease in leases}
    machine.sessions.sessions.clear()
    machine.sessions.sessions.update(sessions)
    machine.alarms.replace(alarms)


def _frames(
    head: Head, base: Sequence[Record], changes: Sequence[Record], tables: Mapping[str, Sequence[Any]]
) -> Iterator[bytes]:
    encoder = msgspec.msgpack.Encoder()

    def frame(item: object) -> bytes:
        encoded = encoder.encode(item)
        return len(encoded).to_bytes(4, "big") + encoded

    yield frame(msgspec.to_builtins(head))
    for name, records in (("base", base), ("changes", changes)):
        for at in range(0, len(records), _PORTION):
            yield frame((name, [_row(r) for r in records[at : at + _PORTION]]))
    for name, rows in tables.items():
        for at in range(0, len(rows), _PORTION):
            yield frame((name, rows[at : at + _PORTION]))
    yield frame(("end", ()))


def _unframe(frames: Iterable[bytes]) -> Iterator[Any]:
    decoder = msgspec.msgpack.Decoder()
    buffer = bytearray()
    for part in frames:
        buffer += part
        while len(buffer) >= 4:
            length = int.from_bytes(buffer[:4], "big")
            if len(buffer) < 4 + length:
                break
            yield decoder.decode(bytes(buffer[4 : 4 + length]))
            del buffer[: 4 + length]


def _row(record: Record) -> _Row:
    return record.key, record.value, record.create, record.mod, record.version, record.lease


def _record(row: _Row) -> Record:
    key, value, create, mod, version, lease = row
    return Record(key, value, create, mod, version, lease, None)


def _optional(record: Record | None) -> _Row | None:
    return None if record is None else _row(record)


def _pack(outcome: OpOutcome | StoreError) -> tuple[Any, ...]:
    match outcome:
        case StoreError(code, message):
            return "error", code, message
        case PutOutcome(revision, previous):
            return "put", revision, _optional(previous)
        case DeleteOutcome(revision, deleted, many):
            return "delete", revision, deleted, [_row(r) for r in many]
        case RangeOutcome(revision, records, more, count, keys_only):
            return "range", revision, [_row(r) for r in records], more, count, keys_only
        case TxnOutcome(revision, succeeded, responses):
            return "txn", revision, succeeded, [_pack(r) for r in responses]


def _unpack(packed: Any) -> Any:
    match packed:
        case ["error", code, message]:
            return StoreError(code, message)
        case ["put", revision, previous]:
            return PutOutcome(revision, None if previous is None else _record(previous))
        case ["delete", revision, deleted, many]:
            return DeleteOutcome(revision, deleted, [_record(row) for row in many])
        case ["range", revision, rows, more, count, keys_only]:
            return RangeOutcome(revision, [_record(row) for row in rows], more, count, keys_only)
        case ["txn", revision, succeeded, responses]:
            return TxnOutcome(revision, succeeded, [_unpack(r) for r in responses])
        case _:
            raise ValueError("an outcome of a kind that this version does not know")
