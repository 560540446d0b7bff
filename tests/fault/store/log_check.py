"""Operations and watches against the store's own list of changes, read back after the faults.

The list is a witness: every answer carries a revision, so each can be compared with the state at exactly that revision.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kybern.client.store import Change, KeyValue
from tests.fault.store.history import Operation


def by_lease(change: Change) -> int:
    """The lease of a key that was deleted; 0 for a change that is none, or a key without lease."""
    return change.previous.lease if change.deleted and change.previous is not None else 0


class Log:
    """All changes after revision `since`, and the state before them. Checks that it is a history at all."""

    def __init__(self, since: int, before: Mapping[bytes, KeyValue], changes: Sequence[Change]) -> None:
        self.since = since
        self.changes = changes
        self.state = dict(before)
        self.problems: list[str] = []
        self._by_key: dict[bytes, list[KeyValue]] = {key: [kv] for key, kv in before.items()}
        self._at: dict[int, Change] = {}
        self.revision = since
        self._lease = 0
        for change in changes:
            self._add(change)

    def _add(self, change: Change) -> None:
        value = change.value
        # The keys of a lease vanish in one revision.
        together = value.mod_revision == self.revision and by_lease(change) == self._lease != 0
        self._lease = by_lease(change)
        if value.mod_revision != self.revision + 1 and not together:
            self.problems.append(f"revision {value.mod_revision} follows {self.revision}")
        self.revision = value.mod_revision
        self._at[value.mod_revision] = change
        before = self.state.get(value.key)
        if change.previous != before:
            self.problems.append(f"revision {value.mod_revision}: previous is {change.previous}, not {before}")
        if change.deleted:
            self.state.pop(value.key, None)
        else:
            version, created = (before.version, before.create_revision) if before else (0, value.mod_revision)
            if (value.version, value.create_revision) != (version + 1, created):
                self.problems.append(f"revision {value.mod_revision}: version or creation is wrong: {value}")
            self.state[value.key] = value
        self._by_key.setdefault(value.key, []).append(value)

    def change_at(self, revision: int) -> Change | None:
        """What happened with a revision."""
        return self._at.get(revision)

    def get(self, key: bytes, revision: int) -> KeyValue | None:
        """A key as of a revision."""
        versions = self._by_key.get(key, [])
        place = bisect_right(versions, revision, key=lambda kv: kv.mod_revision)
        found = versions[place - 1] if place else None
        return found if found is not None and found.version else None

    def covered(self, operation: Operation) -> tuple[KeyValue, ...]:
        """What an operation's range held at its revision."""
        if operation.end is None:
            keys = [operation.key]
        else:
            keys = sorted(key for key in self._by_key if operation.covers(key))
        return tuple(kv for key in keys if (kv := self.get(key, operation.revision)) is not None)


@dataclass(slots=True)
class Verdict:
    """What is wrong, by kind."""

    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def check_operations(log: Log, operations: Sequence[Operation]) -> Verdict:
    """Compare every answer with the list, and the list with what was asked for."""
    verdict = Verdict(wrong=[*log.problems, *real_time(operations)])
    for operation in operations:
        if operation.known and operation.writes:
            change = log.change_at(operation.revision)
            if change is None or not _is_effect(change, operation):
                verdict.lost.append(f"acknowledged, but revision {operation.revision} is {change}: {operation}")
        elif operation.known and log.covered(operation) != operation.found:
            verdict.wrong.append(f"the state was {log.covered(operation)}: {operation}")
        elif operation.known and operation.kind == "cas" and _mod(log, operation) == operation.expected:
            verdict.wrong.append(f"the comparison holds: {operation}")
        if operation.known and operation.kind == "cas" and operation.succeeded:
            before = log.get(operation.key, operation.revision - 1)
            if (before.mod_revision if before else 0) != operation.expected:
                verdict.wrong.append(f"the comparison does not hold, the key was {before}: {operation}")
        if operation.known and operation.kind == "delete" and operation.found:
            before = log.get(operation.key, operation.revision - 1)
            if (before,) != operation.found:
                verdict.wrong.append(f"the key was {before}: {operation}")
    verdict.wrong.extend(_unasked(log, operations))
    return verdict


def _is_effect(change: Change, operation: Operation) -> bool:
    if change.value.key != operation.key:
        return False
    return change.deleted if operation.kind == "delete" else change.value.value == operation.value


def _mod(log: Log, operation: Operation) -> int:
    found = log.get(operation.key, operation.revision)
    return found.mod_revision if found is not None else 0


def _unasked(log: Log, operations: Sequence[Operation]) -> list[str]:
    """Changes that nobody asked for, or that happened more often than they were asked for."""
    asked: Counter[tuple[bytes, bytes | None]] = Counter()
    for operation in operations:
        if operation.would_write and (operation.outcome == "unknown" or (operation.known and operation.writes)):
            asked[operation.key, None if operation.kind == "delete" else operation.value] += 1
    problems = []
    for change in log.changes:
        if by_lease(change):
            # `lease_check` sees whether that was right; clients of the load delete no such keys.
            continue
        what = (change.value.key, None if change.deleted else change.value.value)
        asked[what] -= 1
        if asked[what] < 0:
            problems.append(f"nobody asked for this, or not so often: {change}")
    return problems


def real_time(operations: Iterable[Operation]) -> list[str]:
    """Answers whose revision is less than that of an answer that was there before they were asked for."""
    known = [operation for operation in operations if operation.known]
    problems = []
    highest, witness = 0, None
    ended = sorted(known, key=lambda operation: operation.ended)
    place = 0
    revisions: dict[int, Operation] = {}
    for operation in sorted(known, key=lambda operation: operation.began):
        while place < len(ended) and ended[place].ended < operation.began:
            if ended[place].revision > highest:
                highest, witness = ended[place].revision, ended[place]
            place += 1
        if operation.revision < highest + operation.writes:
            problems.append(f"older than what {witness} saw before: {operation}")
        if operation.writes:
            other = revisions.setdefault(operation.revision, operation)
            if other is not operation:
                problems.append(f"two writes have one revision: {other} and {operation}")
    return problems


@dataclass(slots=True)
class Watched:
    """What one watch of [start, end) after revision `since` was told: all there is, as it says, up to `upto`."""

    name: str
    start: bytes
    end: bytes
    since: int
    upto: int
    changes: list[Change] = field(default_factory=list)


def check_watch(log: Log, watched: Watched) -> list[str]:
    """Whether a watch was told everything, once, in order, as it was."""
    expected = [
        change
        for change in log.changes
        if watched.since < change.value.mod_revision <= watched.upto and watched.start <= change.value.key < watched.end
    ]
    if watched.changes == expected:
        return []
    seen = [(change.value.mod_revision, change.value.key) for change in watched.changes]
    should = [(change.value.mod_revision, change.value.key) for change in expected]
    problems = []
    if seen != sorted(seen):
        problems.append("out of order")
    if len(set(seen)) != len(seen):
        problems.append(f"repeated: {sorted(key for key, count in Counter(seen).items() if count > 1)[:3]}")
    if missing := sorted(set(should) - set(seen)):
        problems.append(f"missing: {len(missing)}, first {missing[:3]}")
    if extra := sorted(set(seen) - set(should)):
        problems.append(f"never happened: {len(extra)}, first {extra[:3]}")
    if not problems:
        different = next((a, b) for a, b in zip(watched.changes, expected, strict=True) if a != b)
        problems.append(f"told {different[0]}, was {different[1]}")
    return [f"{watched.name} after {watched.since} up to {watched.upto}: {problem}" for problem in problems]


def lost_keys(operations: Iterable[Operation], present: Mapping[bytes, bytes]) -> list[bytes]:
    """Keys that were acknowledged to be set, by calls that nothing undoes, and are not there with that value."""
    return [
        operation.key
        for operation in operations
        if operation.known and operation.writes and present.get(operation.key) != operation.value
    ]
