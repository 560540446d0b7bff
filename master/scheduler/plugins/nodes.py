"""Plugins about nodes alone: their names, labels and taints."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np

from kybern.api.tolerations import tolerated
from kybern.api.types import Node, Taint
from master.scheduler.pods import NodeTerm, PodInfo
from master.scheduler.snapshot import Floats, Ints, Mask, Snapshot

UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_FORBIDDING = ("NoSchedule", "NoExecute")


class NodeUnschedulable:
    """Rules out cordoned nodes, unless the pod tolerates that."""

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        """See FilterPlugin."""
        if not snapshot.unschedulable.any() or tolerated(Taint(UNSCHEDULABLE, "", "NoSchedule"), pod.tolerations):
            return None
        return ~snapshot.unschedulable

    def explain(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Counter[str]:
        """See FilterPlugin."""
        return Counter({"node(s) were unschedulable": len(rows)})


class TaintToleration:
    """Rules out nodes with a taint that the pod does not tolerate; among the rest prefers those without."""

    weight = 3.0

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        """See FilterPlugin."""
        if len(snapshot.taint_sets) == 1:
            return None

        def compute() -> Mask:
            good = [self._first(pod, taints) is None for taints in snapshot.taint_sets]
            return np.array(good, np.bool_)[snapshot.taints]

        return snapshot.static(("taints", pod.tolerations), compute)

    def _first(self, pod: PodInfo, taints: tuple[Taint, ...]) -> Taint | None:
        return next((t for t in taints if t.effect in _FORBIDDING and not tolerated(t, pod.tolerations)), None)

    def explain(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Counter[str]:
        """See FilterPlugin."""
        reasons: Counter[str] = Counter()
        for number, nodes in Counter(snapshot.taints[rows].tolist()).items():
            taint = self._first(pod, snapshot.taint_sets[number])
            if taint is not None:
                reasons[f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"] += nodes
        return reasons

    def score(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Floats | None:
        """See ScorePlugin."""
        if len(snapshot.taint_sets) == 1:
            return None

        def compute() -> Floats:
            bad = [
                sum(t.effect == "PreferNoSchedule" and not tolerated(t, pod.tolerations) for t in taints)
                for taints in snapshot.taint_sets
            ]
            return np.array(bad, np.float64)[snapshot.taints]

        bad = snapshot.static(("preferred taints", pod.tolerations), compute)[rows]
        most = bad.max()
        return 100.0 * (1.0 - bad / most) if most > 0 else None


class NodeAffinity:
    """Rules out nodes that the pod's node selector and affinity do not allow; prefers those that it prefers."""

    weight = 2.0

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        """See FilterPlugin."""
        choice = pod.choice
        if choice.any:
            return None
        return snapshot.where(choice, lambda node: choice.matches(node.metadata.labels, node.name))

    def explain(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Counter[str]:
        """See FilterPlugin."""
        return Counter({"node(s) didn't match Pod's node affinity/selector": len(rows)})

    def score(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Floats | None:
        """See ScorePlugin."""
        if not pod.preferred_nodes:
            return None
        total = np.zeros(len(rows), np.float64)
        for term in pod.preferred_nodes:
            total += term.weight * snapshot.where(term, partial(_meets, term))[rows]
        most = total.max()
        return 100.0 * total / most if most > 0 else None


def _meets(term: NodeTerm, node: Node) -> bool:
    return term.matches(node.metadata.labels, node.name)
