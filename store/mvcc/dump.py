"""The whole state as a stream of bytes, and back. For snapshots.

MessagePack frames, each with its length (4 bytes, big-endian) before it: a head, then portions of records, leases and
outcomes of sessions, alarms, and how many records there were. Records are never altered, and a dump keeps compaction
from taking them out, so it is consistent as of the moment in which it was begun, however long it is read. Beginning one
copies nothing that grows with the number of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from kybern import __version__
from store.mvcc.errors import StoreError
from store.mvcc.keyspace import KeySpace
from store.mvcc.leases import Lease
from store.mvcc.outcomes import DeleteOutcome, OpOutcome, PutOutcome, RangeOutcome, SwapOutcome, TxnOutcome
from store.mvcc.records import Record
from store.mvcc.sessions import Session
from store.mvcc.walks import StateReplaced
from store.raft.interface import Levels

if TYPE_CHECKING:
    from store.mvcc.machine import StoreMachine

FORMAT = 3
# As 3, and the head names a level above 1: versions that know of no levels read none of this format.
LEVELLED = 4
# In 2, all outcomes of a session stood together.
_READABLE = (2, FORMAT, LEVELLED)
# A frame has at most so many rows, and ends once its records (or outcomes) have so many bytes: a frame is made in one
# turn of the loop, and a message to a client is made of it.
_PORTION = 1024
_PORTION_BYTES = 256 * 1024

_T = TypeVar("_T")
_Row = tuple[bytes, bytes, int, int, int, int]


class Head(msgspec.Struct, frozen=True):
    """What a dump begins with."""

    format: int
    revision: int
    compacted: int
    applied_index: int
    now_ms: int
    # How many keys exist.
    keys: int
    # The group's.
    level: int = 1


class BadDump(Exception):  # noqa: N818 - said of the data
    """The bytes are not a dump, or not a whole one."""


class OtherLevel(BadDump):
    """The dump is of a level that this version cannot apply."""


class Dump:
    """An iterator over the portions of a dump. `close` it when it is not read to its end.

    Raises StateReplaced when a leader's snapshot took the place of the state meanwhile.
    """

    def __init__(self, machine: StoreMachine) -> None:
        self._keys = machine.keys
        self._generation = machine.keys.generation
        self._keys.pin()
        self._pinned = True
        self._head = Head(
            format=FORMAT if machine.level == 1 else LEVELLED,
            revision=machine.keys.revision,
            compacted=machine.keys.compacted,
            applied_index=machine.applied_index,
            now_ms=machine.now_ms,
            keys=len(machine.keys.live),
            level=machine.level,
        )
        # Small tables that change in place; outcomes are values.
        tables: dict[str, Sequence[Any]] = {
            "leases": [(lease.id, lease.ttl, lease.renewals) for lease in machine.leases.leases.values()],
            # For readers of this format that do not know it, which skip it, not a part of the above.
            "grants": [(lease.id, lease.granted) for lease in machine.leases.leases.values() if lease.granted],
            "sessions": [
                (client, session.floor, list(session.outcomes.items()))
                for client, session in machine.sessions.sessions.items()
            ],
            "alarms": machine.alarms.matching(),
        }
        self._frames = self._generate(tables)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._frames)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let compaction go on."""
        if self._pinned:
            self._pinned = False
            self._keys.unpin()

    def __del__(self) -> None:
        self.close()

    def _generate(self, tables: Mapping[str, Sequence[Any]]) -> Iterator[bytes]:
        encoder = msgspec.msgpack.Encoder()

        def frame(item: object) -> bytes:
            encoded = encoder.encode(item)
            return len(encoded).to_bytes(4, "big") + encoded

        yield frame(msgspec.to_builtins(self._head))
        count = 0
        for name, records in self._records():
            for rows in _cut(map(_row, records), lambda row: len(row[0]) + len(row[1])):
                count += len(rows)
                yield frame((name, rows))
        for name, table in tables.items():
            if name != "sessions":
                for at in range(0, len(table), _PORTION):
                    yield frame((name, table[at : at + _PORTION]))
                continue
            for client, floor, kept in table:
                packed = ((number, msgspec.Raw(encoder.encode(_pack(outcome)))) for number, outcome in kept)
                for outcomes in _cut(packed, lambda item: len(item[1])):
                    yield frame((name, [(client, floor, outcomes)]))
                if not kept:
                    yield frame((name, [(client, floor, [])]))
        yield frame(("end", (count,)))

    def _records(self) -> Iterator[tuple[str, Sequence[Record]]]:
        keys, head = self._keys, self._head
        cursor: bytes | None = None
        # Before the first compaction the log has everything.
        ended = head.compacted == 0
        while not ended:
            self._check()
            base, cursor = keys.base_after(cursor, head.compacted, _PORTION)
            ended = cursor is None
            if base:
                yield "base", base
        self._check()
        at, end = keys.log.position(head.compacted), keys.log.position(head.revision + 1)
        for begin in range(at, end, _PORTION):
            self._check()
            yield "changes", keys.log.portion(begin, min(begin + _PORTION, end))

    def _check(self) -> None:
        if self._keys.generation != self._generation:
            raise StateReplaced


def dump(machine: StoreMachine) -> Dump:
    """The state as it is now, in portions; the machine may go on while they are read."""
    return Dump(machine)


class Loader:
    """Takes a dump in portions, cut anywhere, and in the end puts its state in the place of a machine's."""

    def __init__(self, machine: StoreMachine) -> None:
        self._machine = machine
        self._buffer = bytearray()
        self._decoder = msgspec.msgpack.Decoder()
        self._head: Head | None = None
        self._keys = KeySpace()
        self._count = 0
        self._lease_keys: dict[int, set[bytes]] = {}
        self._leases: list[Lease] = []
        self._grants: dict[int, int] = {}
        self._sessions: dict[int, Session] = {}
        self._alarms: list[tuple[int, int]] = []
        self._ended = False

    def feed(self, part: bytes) -> None:
        """Take a portion.

        Raises:
            BadDump: when the bytes are not a dump.
        """
        buffer = self._buffer
        buffer += part
        at = 0
        try:
            while len(buffer) - at >= 4 and not self._ended:
                end = at + 4 + int.from_bytes(buffer[at : at + 4], "big")
                if len(buffer) < end:
                    break
                with memoryview(buffer) as view:
                    item = self._decoder.decode(view[at + 4 : end])
                self._take(item)
                at = end
        except (msgspec.MsgspecError, ValueError, TypeError, KeyError) as error:
            raise BadDump(f"the bytes are not a dump of the store: {error}") from error
        del buffer[:at]

    def finish(self) -> None:
        """Replace the machine's state.

        Raises:
            BadDump: when the dump is not whole; the machine is as it was.
        """
        if self._head is None or not self._ended:
            raise BadDump("the dump ends early")
        head, machine = self._head, self._machine
        machine.level = head.level
        machine.keys.adopt(self._keys, head.revision, head.compacted)
        machine.applied_index, machine.now_ms = head.applied_index, head.now_ms
        for lease in self._leases:
            lease.keys = self._lease_keys.get(lease.id, set())
            lease.granted = self._grants.get(lease.id, 0)
        machine.sessions.sessions.clear()
        machine.sessions.sessions.update(self._sessions)
        machine.alarms.replace(self._alarms)
        machine.replace_leases({lease.id: lease for lease in self._leases})

    def _take(self, item: Any) -> None:
        if self._head is None:
            self._head = msgspec.convert(item, Head)
            _check_head(self._head, self._machine.levels)
            return
        kind, rows = item
        match kind:
            case "base":
                records = [_record(row) for row in rows]
                self._count += len(records)
                self._move_leases(records)
                self._keys.load_base(records)
            case "changes":
                records = [_record(row) for row in rows]
                self._count += len(records)
                self._move_leases(records)
                self._keys.load_changes(records)
            case "leases":
                self._leases += [Lease(id_, ttl, renewals) for id_, ttl, renewals in rows]
            case "grants":
                self._grants.update(rows)
            case "sessions":
                for client, floor, kept in rows:
                    session = self._sessions.setdefault(client, Session(floor))
                    session.outcomes.update((number, _unpack(outcome)) for number, outcome in kept)
            case "alarms":
                self._alarms += [(member, alarm) for member, alarm in rows]
            case "end":
                if self._count != rows[0]:
                    raise BadDump(f"the dump has {self._count} records instead of {rows[0]}")
                self._ended = True

    def _move_leases(self, records: Sequence[Record]) -> None:
        """Note which keys live by which lease, from the records as they follow each other."""
        if not self._lease_keys and not any(record.lease for record in records):
            return
        live = self._keys.live
        latest: dict[bytes, int] = {}
        for record in records:
            key = record.key
            old = live.get(key)
            before = latest.get(key, old.lease if old is not None else 0)
            if before != record.lease:
                if before:
                    self._lease_keys[before].discard(key)
                if record.lease:
                    self._lease_keys.setdefault(record.lease, set()).add(key)
            latest[key] = record.lease


def _check_head(head: Head, levels: Levels) -> None:
    if head.format not in _READABLE:
        raise BadDump(f"the dump has format {head.format}; this version reads {LEVELLED}")
    if head.level not in levels:
        raise OtherLevel(
            f"it is of level {head.level} of the state machine, and this version of Kybern, {__version__}, applies "
            f"{levels}: use the version of the group that it was made of"
        )


def load(machine: StoreMachine, frames: Iterable[bytes]) -> None:
    """Replace a machine's state by a dump's. `frames` may be cut anywhere.

    Raises:
        BadDump: when the bytes are not a dump; the machine is as it was.
    """
    loader = Loader(machine)
    for part in frames:
        loader.feed(part)
    loader.finish()


def _cut(items: Iterable[_T], size: Callable[[_T], int]) -> Iterator[list[_T]]:
    """The items in portions that are neither too many nor too large."""
    portion: list[_T] = []
    total = 0
    for item in items:
        portion.append(item)
        total += size(item)
        if len(portion) == _PORTION or total >= _PORTION_BYTES:
            yield portion
            portion, total = [], 0
    if portion:
        yield portion


def _row(record: Record) -> _Row:
    return record.key, record.value, record.create, record.mod, record.version, record.lease


def _record(row: _Row) -> Record:
    return Record(*row, None)


def _optional(record: Record | None) -> _Row | None:
    return None if record is None else _row(record)


def _pack(outcome: OpOutcome | SwapOutcome | StoreError) -> tuple[Any, ...]:
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
        case SwapOutcome(revision, succeeded, current):
            return "swap", revision, succeeded, _optional(current)


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
        case ["swap", revision, succeeded, current]:
            return SwapOutcome(revision, succeeded, None if current is None else _record(current))
        case ["txn", revision, succeeded, responses]:
            return TxnOutcome(revision, succeeded, [_unpack(r) for r in responses])
        case _:
            raise ValueError("an outcome of a kind that this version does not know")
