"""Plugins about what nodes have and pods ask for."""

from __future__ import annotations

from collections import Counter

import numpy as np

from master.scheduler.pods import PODS, PodInfo
from master.scheduler.snapshot import Floats, Ints, Mask, Snapshot


class NodeResourcesFit:
    """Rules out nodes that have too little left of something; prefers those that have the most left."""

    weight = 1.0

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
        used = _shares(pod, snapshot, rows)
        result: Floats = 100.0 * (1.0 - (used[0] + used[1]) / 2.0)
        return result


class NodeResourcesBalancedAllocation:
    """Prefers nodes whose CPU and memory are used up evenly afterwards."""

    weight = 1.0

    def score(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Floats | None:
        """See ScorePlugin."""
        used = _shares(pod, snapshot, rows)
        result: Floats = 100.0 * (1.0 - np.abs(used[0] - used[1]) / 2.0)
        return result


def _shares(pod: PodInfo, snapshot: Snapshot, rows: Ints) -> tuple[Floats, Floats]:
    """Shares of CPU and memory in use once the pod is there; 1 where there is none, or too little."""
    result = []
    for column in (0, 1):
        capacity = snapshot.allocatable[rows, column].astype(np.float64)
        share = np.ones(len(rows), np.float64)
        np.divide(snapshot.usual[rows, column] + pod.usual[column], capacity, out=share, where=capacity > 0)
        result.append(np.minimum(share, 1.0, out=share))
    return result[0], result[1]


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
