"""How much a member does in one turn of its loop."""

from __future__ import annotations

from collections.abc import Iterator

from store.raft.applying import Applying
from store.raft.entries import Run, encode_group
from store.raft.interface import Applied, Levels, Loading
from store.raft.proposals import Proposals


class Counter:
    """A machine that counts."""

    levels = Levels()
    level = 1

    def __init__(self) -> None:
        self.applied = 0

    def apply(self, command: bytes, applied: Applied) -> object:
        self.applied += 1
        return None

    def rise(self, level: int) -> None:
        raise AssertionError("nothing rises here")

    def caught_up(self) -> None:
        """Nobody waits."""

    def dump(self) -> Iterator[bytes]:
        return iter(())

    def load(self) -> Loading:
        raise AssertionError("nothing is loaded here")


def cost(*commands: bytes) -> int:
    """What an entry of these commands takes of a turn."""
    machine = Counter()
    applying = Applying(machine, Proposals(2, lambda taken: None))
    work, awaited = applying.entry(1, encode_group(1000, [Run(1, 1, commands)]))
    assert (machine.applied, applying.command_index, applying.now_ms) == (len(commands), len(commands), 1000)
    # Another member proposed them.
    assert awaited
    return work


def test_small_commands_count_by_their_number() -> None:
    assert cost(*[b"x" * 100] * 50) == 50


def test_a_batch_of_transactions_takes_as_much_of_a_turn_as_its_bytes() -> None:
    # One command with many transactions is not one command's worth of work.
    assert cost(bytes(512 * 1024)) >= 1024
    assert cost(*[bytes(4096)] * 10) >= 80
