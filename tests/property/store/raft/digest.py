"""What is sent in one world of each kind, as a digest: `python -m tests.property.store.raft.digest FOLDER SEED`."""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

from pysyncobj import syncobj as stock

from store.raft import core
from tests.property.store.raft import test_membership, test_world
from tests.property.store.raft.test_membership import ChangingWorld
from tests.property.store.raft.world import World

_ROUNDS = 30


class Digest:
    """Of all messages of a world, in their order."""

    def __init__(self, world: World) -> None:
        self._hash = hashlib.sha256()
        self._count = 0
        world.heard = self._add
        stock.monotonicTime = lambda: world.now

    def _add(self, now: float, source: str, target: str, message: bytes) -> None:
        self._hash.update(f"{now:.3f} {source} {target} {len(message)} ".encode() + message)
        self._count += 1

    def __str__(self) -> str:
        return f"{self._count} {self._hash.hexdigest()}"


def main(folder: Path, seed: int) -> None:
    """Print a line for each world."""
    core._APPEND_BYTES = 60
    plain = World(_made(folder / "plain"), random.Random(seed), ("a", "b", "c", "d", "e"))
    digest = Digest(plain)
    test_world.play(plain, seed, _ROUNDS)
    print("plain", digest)
    founders = ("a", "b", "c")
    changing = ChangingWorld(_made(folder / "changing"), random.Random(seed), founders, founders=founders)
    digest = Digest(changing)
    test_membership.play(changing, seed, _ROUNDS)
    print("changing", digest)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
