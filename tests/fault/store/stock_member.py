"""One process of a key-value store on the stock `SyncObj`, with journal and dump: what the harness is tried on.

`python -m tests.fault.store.stock_member NUMBER FOLDER CONTROL PORT PORT PORT`: ports of the members for one another,
and CONTROL for commands, a line each: `put KEY VALUE`, `compact`, `dump`, `leader`.
"""

from __future__ import annotations

import importlib
import os
import socketserver
import sys
import threading
from typing import Any

# The project's types of this package tell of nothing but what the store uses.
_stock: Any = importlib.import_module("pysyncobj")
_Base: Any = _stock.SyncObj

# Makes a dump take some tenths of a second: random bytes do not compress.
_BALLAST = 5 << 20
_WAIT = 10.0


class Store(_Base):  # type: ignore[misc] # an untyped package
    """Keys and values, and a ballast that makes dumps long."""

    def __init__(self, me: str, others: list[str], conf: Any) -> None:
        super().__init__(me, others, conf)
        self.data: dict[str, str] = {}
        self.ballast = os.urandom(_BALLAST)

    @_stock.replicated  # type: ignore[untyped-decorator]
    def put(self, key: str, value: str) -> None:
        """Set a key."""
        self.data[key] = value


class Control(socketserver.StreamRequestHandler):
    """Commands of one connection, one after the other."""

    store: Store

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(self._answer(line.decode().split()).encode() + b"\n")

    def _answer(self, words: list[str]) -> str:
        match words:
            case ["put", key, value]:
                return self._put(key, value)
            case ["compact"]:
                self.store.forceLogCompaction()
                return "ok"
            case ["leader"]:
                return "yes" if self.store._isLeader() and self.store.isReady() else "no"
            case ["dump"]:
                return " ".join(f"{k}={v}" for k, v in dict(self.store.data).items())
        return "what?"

    def _put(self, key: str, value: str) -> str:
        done = threading.Event()
        errors: list[Any] = []

        def told(_result: object, error: object) -> None:
            errors.append(error)
            done.set()

        self.store.put(key, value, callback=told)
        return "ok" if done.wait(_WAIT) and not errors[0] else "unknown"


def main() -> None:
    """Serve until killed."""
    number, folder, control = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    addresses = [f"127.0.0.1:{port}" for port in sys.argv[4:]]
    conf = _stock.SyncObjConf(
        journalFile=f"{folder}/journal{number}",
        fullDumpFile=f"{folder}/dump{number}",
        # Compaction when it is asked for alone.
        logCompactionMinEntries=10**9,
        logCompactionMinTime=10**9,
        raftMinTimeout=0.4,
        raftMaxTimeout=0.9,
        appendEntriesPeriod=0.02,
        connectionRetryTime=0.2,
    )
    Control.store = Store(addresses[number], addresses[:number] + addresses[number + 1 :], conf)
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", control), Control) as server:
        server.daemon_threads = True
        server.serve_forever()


if __name__ == "__main__":
    main()
