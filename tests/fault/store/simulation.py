"""Histories by random choice, of clients of a store that does nothing wrong; and what goes wrong in them on demand."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from kybern.client.store import Change, KeyValue
from tests.fault.store.history import NEVER, Kind, Operation

KEYS = (b"g/0", b"g/1", b"g/2")
_END = b"g0"


@dataclass
class Perfect:
    """The store: each operation happens at one moment."""

    revision: int = 1
    state: dict[bytes, KeyValue] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    def do(self, operation: Operation) -> None:
        """Do it and write the answer into it."""
        before = self.state.get(operation.key)
        match operation.kind:
            case "read":
                operation.found = tuple(self.state[key] for key in sorted(self.state) if operation.covers(key))
            case "delete":
                operation.found = () if before is None else (before,)
                if before is not None:
                    self._write(operation.key, None)
            case "cas" if (before.mod_revision if before else 0) != operation.expected:
                operation.found = () if before is None else (before,)
            case _:
                operation.succeeded = True
                self._write(operation.key, operation.value)
        operation.revision = self.revision

    def _write(self, key: bytes, value: bytes | None) -> None:
        self.revision += 1
        before = self.state.pop(key, None)
        if value is None:
            after = KeyValue(key, b"", 0, self.revision, 0)
        else:
            created, version = (before.create_revision, before.version) if before else (self.revision, 0)
            after = self.state[key] = KeyValue(key, value, created, self.revision, version + 1)
        self.changes.append(Change(after, before))


def simulate(rng: random.Random, count: int, clients: int = 4) -> tuple[list[Operation], Perfect]:
    """Operations of concurrent clients, some with unknown outcomes, and the store after them."""
    store = Perfect()
    operations: list[Operation] = []
    # What each client does now, and whether it has happened already.
    running: dict[int, tuple[Operation, bool]] = {}
    clock = 0
    while len(operations) < count or running:
        clock += 1
        _let_late_ones_happen(rng, store, running, clients)
        client = rng.randrange(clients)
        if client not in running:
            if len(operations) < count:
                operation = _ask(rng, client, clock, operations)
                operations.append(operation)
                running[client] = (operation, False)
            continue
        operation, happened = running[client]
        if rng.random() < 0.1:
            # Nobody will know; it may still happen later, or never.
            running[client + clients * len(operations) + clock * 1000] = (operation, happened)
            del running[client]
        elif not happened:
            store.do(operation)
            running[client] = (operation, True)
        else:
            operation.ended, operation.outcome = clock, "ok"
            del running[client]
    return operations, store


def _let_late_ones_happen(
    rng: random.Random, store: Perfect, running: dict[int, tuple[Operation, bool]], clients: int
) -> None:
    for number in [number for number in running if number >= clients]:
        operation, happened = running[number]
        if happened or rng.random() < 0.2:
            del running[number]
            if not happened and rng.random() < 0.5:
                store.do(operation)
            # Nobody was told.
            operation.succeeded, operation.found, operation.revision, operation.ended = False, (), 0, NEVER


def _ask(rng: random.Random, client: int, clock: int, earlier: list[Operation]) -> Operation:
    kind: Kind = rng.choice(("put", "cas", "delete", "read", "read"))
    key = rng.choice(KEYS)
    # What one compares with one has been told.
    told = [o.revision for o in earlier if o.known and o.writes and o.key == key]
    told += [kv.mod_revision for o in earlier if o.known for kv in o.found if kv.key == key]
    expected = max(told) if told and rng.random() < 0.7 else 0
    wide = kind == "read" and rng.random() < 0.5
    return Operation(
        client=str(client),
        kind=kind,
        key=b"g/" if wide else key,
        end=_END if wide else None,
        value=b"v%d" % len(earlier) if kind in ("put", "cas") else b"",
        expected=expected,
        began=clock,
    )
