"""What is sent in one world of each kind, as a digest: `python -m tests.property.store.raft.digest FOLDER SEED`."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pysyncobj import syncobj as stock

from store.raft import core
from tests.property.store.raft import test_hosts, test_membership, test_world
from tests.property.store.raft.test_membership import ChangingWorld
from tests.property.store.raft.world import World

_ROUNDS = 30


class Digest:
    """Of all messages of a world, in their order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._count = 0

    def add(self, now: float, source: str, target: str, message: bytes) -> None:
        """Something arrived."""
        self._hash.update(f"{now:.9f} {source} {target} {len(message)} ".encode() + message)
        self._count += 1

    def __str__(self) -> str:
        return f"{self._count} {self._hash.hexdigest()}"


def main(folder: Path, seed: int) -> None:
    """Print a line for each world."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(core, "_APPEND_BYTES", 60)
        plain = World(_made(folder / "plain"), random.Random(seed), ("a", "b", "c", "d", "e"))
        print("plain", _digest_of(plain, patched, lambda: test_world.play(plain, seed, _ROUNDS)))
        founders = ("a", "b", "c")
        changing = ChangingWorld(_made(folder / "changing"), random.Random(seed), founders, founders=founders)
        print("changing", _digest_of(changing, patched, lambda: test_membership.play(changing, seed, _ROUNDS)))
    with pytest.MonkeyPatch.context() as patched:
        cluster = test_hosts.make(_made(folder / "hosts"), seed, patched)
        digest = Digest()
        cluster.hosts.heard = digest.add
        test_hosts.play(cluster, founders, _ROUNDS)
        print("hosts", digest)


def _digest_of(world: World, patched: pytest.MonkeyPatch, play: Callable[[], None]) -> Digest:
    digest = Digest()
    world.heard = digest.add
    patched.setattr(stock, "monotonicTime", lambda: world.now)
    play()
    return digest


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
