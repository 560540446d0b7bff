"""What clients did and were told: the input of all checks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from kybern.client.store import KeyValue

Kind = Literal["put", "cas", "delete", "read"]
# ok: the answer is known. unknown: it may have happened, at any time since it began. refused: it surely did not happen.
Outcome = Literal["ok", "unknown", "refused"]

# After all counts of the clock.
NEVER = 1e18


class Operation(msgspec.Struct, kw_only=True):
    """One call. Values that are written are unique in a history.

    put     sets `key` to `value`
    cas     the same if the key's mod_revision is `expected` (0: absent); otherwise reads it into `found`
    delete  deletes `key`; `found` is what it was (empty: it was absent, nothing happened)
    read    reads [key, end) into `found` (no end: the key alone)

    `began` and `ended` are numbers of one clock; `revision` is the store's with the answer, for a write its own.
    """

    client: str
    kind: Kind
    key: bytes
    end: bytes | None = None
    value: bytes = b""
    expected: int = 0
    began: float
    ended: float = NEVER
    outcome: Outcome = "unknown"
    succeeded: bool = False
    revision: int = 0
    found: tuple[KeyValue, ...] = ()

    @property
    def known(self) -> bool:
        """Whether the answer is known."""
        return self.outcome == "ok"

    @property
    def writes(self) -> bool:
        """Whether an answered call changed something."""
        return (
            self.kind == "put"
            or (self.kind == "cas" and self.succeeded)
            or (self.kind == "delete" and bool(self.found))
        )

    @property
    def would_write(self) -> bool:
        """Whether it is a call that can change something."""
        return self.kind != "read"

    def covers(self, key: bytes) -> bool:
        """Whether it looks at or changes a key."""
        return key == self.key if self.end is None else self.key <= key < self.end


class History:
    """Operations in the order in which they began. The clock counts events: no two happen at once."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._clock = itertools.count(1)

    def begin(self, client: str, kind: Kind, key: bytes, **fields: object) -> Operation:
        """Note that a call is about to be made."""
        operation = Operation(client=client, kind=kind, key=key, began=next(self._clock), **fields)  # type: ignore[arg-type]
        self.operations.append(operation)
        return operation

    def end(
        self, operation: Operation, revision: int, *, succeeded: bool = True, found: Iterable[KeyValue] = ()
    ) -> None:
        """Note its answer."""
        operation.ended = next(self._clock)
        operation.outcome = "ok"
        operation.revision = revision
        operation.succeeded = succeeded
        operation.found = tuple(found)

    def refuse(self, operation: Operation) -> None:
        """Note that it surely did not happen."""
        operation.ended = next(self._clock)
        operation.outcome = "refused"

    def save(self, path: Path) -> None:
        """Write one JSON object per operation."""
        path.write_bytes(b"\n".join(map(msgspec.json.encode, self.operations)) + b"\n")


def load(path: Path) -> list[Operation]:
    """Read what `History.save` wrote."""
    return [msgspec.json.decode(line, type=Operation) for line in path.read_bytes().splitlines()]
