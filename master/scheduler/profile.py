"""Which plugins take part, in which order, and how a decision is made of what they say. Pure but for the tie-break."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from master.scheduler.plugins.base import FilterPlugin, ScorePlugin
from master.scheduler.plugins.nodes import NodeAffinity, NodeUnschedulable, TaintToleration
from master.scheduler.plugins.resources import NodePorts, NodeResourcesBalancedAllocation, NodeResourcesFit, Shares
from master.scheduler.plugins.topology import InterPodAffinity, PodTopologySpread
from master.scheduler.pods import PodInfo
from master.scheduler.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why no node will do. `reasons` counts nodes by reason; a node may have several."""

    nodes: int
    reasons: Mapping[str, int]

    def __str__(self) -> str:
        if not self.nodes:
            return "no nodes available to schedule pods"
        listed = sorted(f"{count} {reason}" for reason, count in self.reasons.items())
        return f"0/{self.nodes} nodes are available: {', '.join(listed)}."


class Profile:
    """Decides for one pod at a time. The order of the filters is that of the reasons: a node gets its first one's."""

    def __init__(
        self,
        rng: random.Random,
        filters: Sequence[FilterPlugin] | None = None,
        scores: Sequence[ScorePlugin] | None = None,
    ) -> None:
        self._rng = rng
        shares = Shares()
        taints, affinity, fit = TaintToleration(), NodeAffinity(), NodeResourcesFit(shares)
        spread, pods = PodTopologySpread(), InterPodAffinity()
        self._filters: Sequence[FilterPlugin] = filters or (
            NodeUnschedulable(), taints, affinity, NodePorts(), fit, spread, pods,
        )  # fmt: skip
        self._scores: Sequence[ScorePlugin] = scores or (
            fit, NodeResourcesBalancedAllocation(shares), spread, affinity, taints, pods,
        )  # fmt: skip

    def decide(self, pod: PodInfo, snapshot: Snapshot) -> str | Refusal:
        """The name of the best node, or why there is none."""
        feasible = snapshot.valid.copy()
        for plugin in self._filters:
            mask = plugin.filter(pod, snapshot)
            if mask is not None:
                feasible &= mask
        rows = np.flatnonzero(feasible)
        if not len(rows):
            return self._refuse(pod, snapshot)
        if len(rows) == 1:
            return self._name(snapshot, int(rows[0]))
        total = np.zeros(len(rows), np.float64)
        for scorer in self._scores:
            points = scorer.score(pod, snapshot, rows)
            if points is not None:
                total += scorer.weight * points
        # Equally good up to rounding: one of them by chance, or all pods of a moment would go to the first.
        best = np.flatnonzero(total >= total.max() - 1e-6)
        return self._name(snapshot, int(rows[best[self._rng.randrange(len(best))]]))

    def _name(self, snapshot: Snapshot, row: int) -> str:
        node = snapshot.nodes[row]
        if node is None:
            raise AssertionError("a valid row has a node")
        return node.name

    def _refuse(self, pod: PodInfo, snapshot: Snapshot) -> Refusal:
        reasons: Counter[str] = Counter()
        left = np.flatnonzero(snapshot.valid)
        nodes = len(left)
        for plugin in self._filters:
            mask = plugin.filter(pod, snapshot)
            if mask is None or not len(left):
                continue
            good = mask[left]
            if not good.all():
                reasons += plugin.explain(pod, snapshot, left[~good])
                left = left[good]
        return Refusal(nodes, dict(reasons))
