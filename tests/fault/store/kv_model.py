"""The store as a model for `linear`: a group of keys is one object, whose state is its keys and a revision.

Nothing is taken from the store but what clients were told. Revisions only grow: a write has a new one, a read one that
is not less than any before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tests.fault.store.history import NEVER, Operation
from tests.fault.store.linear import Call, Undecided, find_order


@dataclass(frozen=True, slots=True)
class State:
    """Keys with value and mod_revision, sorted, and the highest revision that was seen by now."""

    revision: int = 0
    keys: tuple[tuple[bytes, bytes, int], ...] = ()

    def get(self, key: bytes) -> tuple[bytes, int] | None:
        """Value and mod_revision."""
        for name, value, revision in self.keys:
            if name == key:
                return value, revision
        return None

    def changed(self, revision: int, key: bytes, value: bytes | None) -> State:
        """The state after a write."""
        rest = [entry for entry in self.keys if entry[0] != key]
        if value is not None:
            rest.append((key, value, revision))
        return State(revision, tuple(sorted(rest)))


def step(state: State, operation: Operation) -> State | None:
    """The state after an operation, None when the store could not have answered so."""
    current = state.get(operation.key)
    if not operation.known:
        return _effect_of_unknown(state, operation, current)
    if operation.writes:
        if operation.revision <= state.revision:
            return None
    elif operation.revision < state.revision:
        return None
    match operation.kind:
        case "put":
            return state.changed(operation.revision, operation.key, operation.value)
        case "cas" if operation.succeeded:
            holds = (current[1] if current else 0) == operation.expected
            return state.changed(operation.revision, operation.key, operation.value) if holds else None
        case "delete" if operation.found:
            return state.changed(operation.revision, operation.key, None) if _sees(state, operation) else None
    if operation.kind == "cas" and (current[1] if current else 0) == operation.expected:
        return None
    return State(operation.revision, state.keys) if _sees(state, operation) else None


def _effect_of_unknown(state: State, operation: Operation, current: tuple[bytes, int] | None) -> State | None:
    """An unknown deletion; other unknown writes were settled by `settle`. One without effect is left out instead."""
    if operation.kind != "delete" or current is None:
        return None
    # Its revision is not known; that it has one more than the last says nothing that a later answer could contradict.
    return state.changed(state.revision, operation.key, None)


def _sees(state: State, operation: Operation) -> bool:
    there = tuple(entry for entry in state.keys if operation.covers(entry[0]))
    return there == tuple((kv.key, kv.value, kv.mod_revision) for kv in operation.found)


def settle(operations: Sequence[Operation]) -> list[Operation]:
    """What must and may have happened.

    A value is written once, so an unknown write whose value somebody saw did happen, with the revision that was seen
    (its end stays unknown); one that nobody saw explains nothing that anybody saw: clients compare with what they saw.
    """
    seen = {kv.value: kv.mod_revision for operation in operations for kv in operation.found}
    settled: list[Operation] = []
    for operation in operations:
        if operation.known or (operation.outcome == "unknown" and operation.kind == "delete"):
            settled.append(operation)
        elif operation.outcome == "unknown" and operation.would_write and operation.value in seen:
            settled.append(
                Operation(
                    client=operation.client,
                    kind=operation.kind,
                    key=operation.key,
                    value=operation.value,
                    expected=operation.expected,
                    began=operation.began,
                    ended=NEVER,
                    outcome="ok",
                    succeeded=True,
                    revision=seen[operation.value],
                )
            )
    return settled


def check(
    operations: Iterable[Operation], group_of: Callable[[bytes], bytes], initial: Mapping[bytes, State]
) -> list[str]:
    """What is not linearizable, by group of keys; `initial` are the states that groups had before."""
    groups: dict[bytes, list[Operation]] = {}
    for operation in operations:
        groups.setdefault(group_of(operation.key), []).append(operation)
    problems = []
    for name, members in groups.items():
        try:
            if not linearizable(members, initial.get(name, State())):
                problems.append(f"{name.decode()}: {len(members)} operations have no order that explains the answers")
        except Undecided as undecided:
            problems.append(f"{name.decode()}: undecided: {undecided}")
    return problems


def linearizable(operations: Sequence[Operation], initial: State) -> bool:
    """Whether one group's operations are linearizable.

    Raises:
        Undecided: when the search takes too long.
    """
    calls = [
        # Revisions order what has one; a write comes before the reads of its revision.
        Call(
            operation.began,
            operation.ended,
            operation,
            optional=not operation.known,
            rank=operation.revision * 2 + (not operation.writes),
        )
        for operation in settle(operations)
    ]
    return find_order(calls, initial, step) is not None
