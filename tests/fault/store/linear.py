"""Is there an order of overlapping operations, each between its begin and its end, that a model could have answered?

The search of Wing and Gong with Lowe's memory of what was tried: take any operation that began before the first end of
those that are left, let the model take it, go on; go back where the model refuses. A set of operations and a state that
led nowhere once is not tried again. Operations that may not have happened are tried last, and may be left over.
What the answers tell of the order (`rank`) is kept to: without it, histories that are wrong take too long to refute.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)
T = TypeVar("T")


class Undecided(Exception):  # noqa: N818 - neither yes nor no
    """The search was given up: too many orders."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """An operation. `optional`: it may not have happened. The others happen in the order of their `rank`."""

    began: float
    ended: float
    what: T
    optional: bool = False
    rank: int = 0


def find_order(
    calls: Sequence[Call[T]], initial: S, step: Callable[[S, T], S | None], *, limit: int = 200_000
) -> list[T] | None:
    """An order that the model accepts, or None: the history is not linearizable.

    `step` is the model: the state after an operation with its answer, None when it could not have answered so.

    Raises:
        Undecided: after `limit` steps.
    """
    search = _Search(calls)
    tried: set[tuple[int, S]] = set()
    # One frame per operation taken: the state before it, and what else could be taken instead.
    state = initial
    path: list[tuple[S, int, list[int]]] = []
    choices = search.candidates()
    for _ in range(limit):
        if search.complete:
            return [calls[at].what for _, at, _ in path]
        taken = False
        while choices:
            at = choices.pop()
            after = step(state, calls[at].what)
            if after is None:
                continue
            key = (search.done | 1 << at, after)
            if key in tried:
                continue
            tried.add(key)
            path.append((state, at, choices))
            search.take(at)
            state, choices = after, search.candidates()
            taken = True
            break
        if taken:
            continue
        if not path:
            return None
        state, at, choices = path.pop()
        search.give_back(at)
    raise Undecided(f"{len(calls)} operations, {len(tried)} states")


class _Search:
    """Which operations are taken, as bits, and which can be next."""

    def __init__(self, calls: Sequence[Call[T]]) -> None:
        self._calls = calls
        self._by_begin = sorted(range(len(calls)), key=lambda at: calls[at].began)
        certain = [at for at in range(len(calls)) if not calls[at].optional]
        self._by_end = sorted(certain, key=lambda at: calls[at].ended)
        self._by_rank = sorted(certain, key=lambda at: calls[at].rank)
        self.done = 0
        # All before these places are taken.
        self._first_begin = 0
        self._first_end = 0
        self._first_rank = 0

    @property
    def complete(self) -> bool:
        """Whether nothing is left that must have happened."""
        self._forward()
        return self._first_end == len(self._by_end)

    def candidates(self) -> list[int]:
        """What can be next, best last."""
        self._forward()
        if self._first_end == len(self._by_end):
            return []
        lowest = self._calls[self._by_rank[self._first_rank]].rank
        horizon = self._calls[self._by_end[self._first_end]].ended
        found: list[int] = []
        for at in self._by_begin[self._first_begin :]:
            if self._calls[at].began > horizon:
                break
            call = self._calls[at]
            if not self.done >> at & 1 and (call.optional or call.rank == lowest):
                found.append(at)
        found.sort(key=lambda at: (self._calls[at].optional, self._calls[at].ended), reverse=True)
        return found

    def take(self, at: int) -> None:
        """Mark as taken."""
        self.done |= 1 << at

    def give_back(self, at: int) -> None:
        """Undo `take`."""
        self.done &= ~(1 << at)
        self._first_begin = self._first_end = self._first_rank = 0

    def _forward(self) -> None:
        while self._first_end < len(self._by_end) and self.done >> self._by_end[self._first_end] & 1:
            self._first_end += 1
        while self._first_rank < len(self._by_rank) and self.done >> self._by_rank[self._first_rank] & 1:
            self._first_rank += 1
        while self._first_begin < len(self._by_begin) and self.done >> self._by_begin[self._first_begin] & 1:
            self._first_begin += 1
