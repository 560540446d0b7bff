"""Copies of the state for clients, who may read them slowly or not at all.

What a copy still needs is not taken out by compactions, so a client must not keep it for as long as it likes: a copy
that is not read ends, and so does one that keeps more than the state itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from store.mvcc.dump import Dump
from store.mvcc.errors import StoreError
from store.mvcc.machine import StoreMachine
from store.mvcc.walks import StateReplaced
from store.server.core import Refused

# Seconds without a portion being taken after which a copy ends, and between looks.
PATIENCE = 30.0
_INTERVAL = 1.0
# Changes that compactions would have taken out meanwhile; as many as there are keys are allowed in any case.
_MOST_HELD = 200_000

_NOT_READ = StoreError(
    "ABORTED", f"kybern-store: the snapshot was not read for {PATIENCE:.0f} s and is given up; ask for another one"
)
_TOO_SLOW = StoreError(
    "ABORTED", "kybern-store: the snapshot is read too slowly for what is written meanwhile and is given up"
)
_REPLACED = StoreError(
    "UNAVAILABLE", "kybern-store: this member took over the leader's state meanwhile; ask for another snapshot"
)


class ClientDump:
    """A dump that is watched while it is read; made on the loop. `close` it in the end."""

    def __init__(self, machine: StoreMachine) -> None:
        self._keys = machine.keys
        self._dump = Dump(machine)
        self._loop = asyncio.get_running_loop()
        self._taken = self._loop.time()
        self._error: StoreError | None = None
        self._timer = self._loop.call_later(_INTERVAL, self._look)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The next portion.

        Raises:
            Refused: when it was given up, or the state was replaced.
        """
        if self._error is not None:
            raise Refused(self._error)
        self._taken = self._loop.time()
        try:
            return next(self._dump)
        except StateReplaced:
            self._give_up(_REPLACED)
            raise Refused(_REPLACED) from None

    def close(self) -> None:
        """Keep nothing any more."""
        self._timer.cancel()
        self._dump.close()

    def _look(self) -> None:
        if self._loop.time() - self._taken >= PATIENCE:
            self._give_up(_NOT_READ)
        elif self._keys.superfluous > max(_MOST_HELD, len(self._keys.live)):
            self._give_up(_TOO_SLOW)
        else:
            self._timer = self._loop.call_later(_INTERVAL, self._look)

    def _give_up(self, error: StoreError) -> None:
        self._error = error
        self.close()
