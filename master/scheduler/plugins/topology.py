"""Plugins about where other pods are."""

from __future__ import annotations

from collections import Counter

import numpy as np

from master.scheduler.pods import PodInfo, Spread, Term
from master.scheduler.snapshot import Floats, Ints, Mask, Snapshot, in_domains


class PodTopologySpread:
    """Keeps pods spread over domains: as their constraints say, and pods of one owner over nodes in any case."""

    weight = 2.0

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        """See FilterPlugin."""
        required = [s for s in pod.spreads if s.required]
        if not required:
            return None
        result: Mask = np.ones(len(snapshot.valid), np.bool_)
        for spread in required:
            result &= self._even(pod, snapshot, spread)
        return result

    def _even(self, pod: PodInfo, snapshot: Snapshot, spread: Spread) -> Mask:
        ids, domains = snapshot.domains(spread.topology)
        eligible = snapshot.valid & (ids >= 0)
        if not pod.choice.any:
            choice = pod.choice
            eligible &= snapshot.where(choice, lambda node: choice.matches(node.metadata.labels, node.name))
        if not eligible.any():
            return eligible
        sums = in_domains(ids, domains, np.where(eligible, snapshot.count(spread.matcher), 0))
        least = int(sums[eligible].min())
        if len(np.unique(ids[eligible])) < spread.least_domains:
            least = 0
        itself = int(spread.matcher.matches(pod.namespace, pod.labels))
        result: Mask = (ids >= 0) & (sums + itself - least <= spread.most)
        return result

    def explain(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Counter[str]:
        """See FilterPlugin."""
        missing = np.zeros(len(rows), np.bool_)
        for spread in pod.spreads:
            if spread.required:
                missing |= snapshot.domains(spread.topology)[0][rows] < 0
        text = "node(s) didn't match pod topology spread constraints"
        without = int(np.count_nonzero(missing))
        return +Counter({f"{text} (missing required label)": without, text: len(rows) - without})

    def score(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Floats | None:
        """See ScorePlugin."""
        crowd = np.zeros(len(rows), np.float64)
        wished = [s for s in pod.spreads if not s.required]
        for spread in wished:
            ids, domains = snapshot.domains(spread.topology)
            crowd += in_domains(ids, domains, snapshot.count(spread.matcher))[rows]
        if not wished and pod.owner:
            siblings = snapshot.owned(pod.owner)
            if siblings is None:
                return None
            crowd = siblings[rows].astype(np.float64)
        most, least = crowd.max(), crowd.min()
        return 100.0 * (most - crowd) / (most - least) if most > least else None


class InterPodAffinity:
    """Rules out nodes too far from pods that must be near, or too near to pods that must not; scores preferences."""

    weight = 2.0

    def filter(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        """See FilterPlugin."""
        near, far, repelled = self._near(pod, snapshot), self._far(pod, snapshot), self._repelled(pod, snapshot)
        masks = [m for m in (near, far, repelled) if m is not None]
        if not masks:
            return None
        result: Mask = np.logical_and.reduce(masks)
        return result

    def _near(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        if not pod.affinity:
            return None
        result: Mask = np.ones(len(snapshot.valid), np.bool_)
        for term in pod.affinity:
            ids, _ = snapshot.domains(term.topology)
            there = _around(snapshot, term, snapshot.count(term.matcher))
            if not there.any() and term.matcher.matches(pod.namespace, pod.labels):
                # The first of a group that wants to be together may be anywhere.
                result &= ids >= 0
            else:
                result &= there > 0
        return result

    def _far(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        if not pod.anti_affinity:
            return None
        result: Mask = np.ones(len(snapshot.valid), np.bool_)
        for term in pod.anti_affinity:
            result &= _around(snapshot, term, snapshot.count(term.matcher)) == 0
        return result

    def _repelled(self, pod: PodInfo, snapshot: Snapshot) -> Mask | None:
        terms = snapshot.repelling(pod)
        if not terms:
            return None
        result: Mask = np.ones(len(snapshot.valid), np.bool_)
        for term, counts in terms:
            result &= _around(snapshot, term, counts) == 0
        return result

    def explain(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Counter[str]:
        """See FilterPlugin."""
        reasons: Counter[str] = Counter()
        left = rows
        for mask, reason in (
            (self._near(pod, snapshot), "node(s) didn't match pod affinity rules"),
            (self._far(pod, snapshot), "node(s) didn't match pod anti-affinity rules"),
            (self._repelled(pod, snapshot), "node(s) didn't satisfy existing pods anti-affinity rules"),
        ):
            if mask is not None:
                reasons[reason] += int(np.count_nonzero(~mask[left]))
                left = left[mask[left]]
        return +reasons

    def score(self, pod: PodInfo, snapshot: Snapshot, rows: Ints) -> Floats | None:
        """See ScorePlugin."""
        if not pod.preferred and not pod.avoided:
            return None
        points = np.zeros(len(rows), np.float64)
        for terms, sign in ((pod.preferred, 1), (pod.avoided, -1)):
            for term in terms:
                points += sign * term.weight * _around(snapshot, term, snapshot.count(term.matcher))[rows]
        most, least = points.max(), points.min()
        return 100.0 * (points - least) / (most - least) if most > least else None


def _around(snapshot: Snapshot, term: Term, counts: Ints) -> Ints:
    ids, domains = snapshot.domains(term.topology)
    return in_domains(ids, domains, counts)
