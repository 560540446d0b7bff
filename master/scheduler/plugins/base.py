"""Extension points, named as kube-scheduler names them. A plugin looks at all nodes at once.

A new plugin is a small class here or elsewhere, and a row in master/scheduler/profile.py.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from master.scheduler.pods import PodInfo
from master.scheduler.snapshot import Floats, Ints, Mask, Snapshot


class FilterPlugin(Protocol):
    """Rules nodes out."""

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        """True for the rows that will do; None when all will."""
        ...

    def explain(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Counter[str]:
        """Why each of these rows, all of which it ruled out, will not do: reasons and how many nodes they hold for."""
        ...


class ScorePlugin(Protocol):
    """Compares the nodes that will do."""

    # How much it counts beside the others.
    weight: float

    def score(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Floats | None:
        """Points from 0 to 100 for each of the rows; None when it has no preference."""
        ...
