"""Plugins about what nodes have and pods ask for."""

from __future__ import annotations

from collections import Counter

import numpy as np

from master.scheduler.pods import PODS, PodInfo
from master.scheduler.snapshot import Floats, Ints, Mask, Snapshot


class Shares:
    """Shares of CPU and memory in use once the pod is there, at most 1. Two plugins want them for the same decision."""

    def __init__(self) -> None:
        self._asked: tuple[PodInfo, Ints] | None = None
        self._answer: tuple[Floats, Floats] | None = None

    def of(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> tuple[Floats, Floats]:
        """The shares for each of the rows."""
        if self._answer is None or self._asked is None or self._asked[0] is not pod or self._asked[1] is not rows:
            self._asked = pod, rows
            self._answer = self._share(0, pod, snapshot, rows), self._share(1, pod, snapshot, rows)
        return self._answer

    def _share(self, column: int, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Floats:
        result: Floats = (snapshot.usual[:, column][rows] + pod.usual[column]) * snapshot.share[:, column][rows]
        return np.minimum(result, 1.0, out=result)


class NodeResourcesFit:
    """Rules out nodes that have too little left of something; prefers those that have the most left."""

    weight = 1.0

    def __init__(self, shares: Shares) -> None:
        self._shares = shares

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        """See FilterPlugin."""
        wanted = snapshot.row_of_requests(pod.requests)
        # Only what is asked for counts: a node that is over in something else may still take the pod.
        columns = np.flatnonzero(wanted)
        result: Mask = np.ones(len(snapshot.valid), np.bool_)
        for column in columns:
            result &= snapshot.requested[:, column] + wanted[column] <= snapshot.allocatable[:, column]
        return result

    def explain(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Counter[str]:
        """See FilterPlugin."""
        wanted = snapshot.row_of_requests(pod.requests)
        reasons: Counter[str] = Counter()
        for name, column in snapshot.columns.items():
            if not wanted[column]:
                continue
            short = snapshot.requested[rows, column] + wanted[column] > snapshot.allocatable[rows, column]
            if nodes := int(np.count_nonzero(short)):
                reasons["Too many pods" if name == PODS else f"Insufficient {name}"] += nodes
        return reasons

    def score(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Floats | None:
        """See ScorePlugin: least allocated."""
        cpu, memory = self._shares.of(pod, snapshot, rows)
        result: Floats = 100.0 - 50.0 * (cpu + memory)
        return result


class NodeResourcesBalancedAllocation:
    """Prefers nodes whose CPU and memory are used up evenly afterwards."""

    weight = 1.0

    def __init__(self, shares: Shares) -> None:
        self._shares = shares

    def score(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Floats | None:
        """See ScorePlugin."""
        cpu, memory = self._shares.of(pod, snapshot, rows)
        result: Floats = 100.0 - 50.0 * np.abs(cpu - memory)
        return result


class NodePorts:
    """Rules out nodes on which a port that the pod wants of the node is taken."""

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        """See FilterPlugin."""
        taken = [
            row
            for port in pod.ports
            for row, addresses in snapshot.ports.get((port.protocol, port.port), {}).items()
            if any(port.conflicts(address) for address in addresses)
        ]
        if not taken:
            return None
        result: Mask = np.ones(len(snapshot.valid), np.bool_)
        result[taken] = False
        return result

    def explain(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Counter[str]:
        """See FilterPlugin."""
        return Counter({"node(s) didn't have free ports for the requested pod ports": len(rows)})
