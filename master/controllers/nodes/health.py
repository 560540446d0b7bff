"""Who is alive: signs of life by node, and what their absence allows. Pure but for the memory of what was seen.

Time is this process's monotonic clock. Nobody's wall clock is compared with another's, and a leader that has just begun
gives every node a full grace period.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

# Nodes that are lost one after the other are given up at this rate (per second): a fault that spreads is slowed down.
RATE = 0.1
# The same while so large a part of a large cluster is lost that the fault is likely to be on our side.
SLOW_RATE = 0.01
_MANY = 0.55
_LARGE = 50
_FEW = 2


@dataclass
class Vitals:
    """Signs of life. `grace` is the silence after which a node counts as lost, `interval` that of its renewals."""

    grace: float
    interval: float
    _signs: dict[str, Hashable] = field(default_factory=dict)
    _seen: dict[str, float] = field(default_factory=dict)
    # When anybody gave a sign last.
    _latest: float = 0.0

    def sign(self, node: str, sign: Hashable, now: float) -> bool:
        """The node's Lease and status say `sign`: if that is new (the result), the node is alive now."""
        if node in self._seen and self._signs.get(node) == sign:
            return False
        self._signs[node] = sign
        self._seen[node] = self._latest = now
        return True

    def forget(self, node: str) -> None:
        """The node is no more."""
        self._signs.pop(node, None)
        self._seen.pop(node, None)

    def silence(self, node: str, now: float) -> float:
        """Seconds since its last sign; 0 when it is not known."""
        return now - self._seen.get(node, now)

    def lost(self, node: str, now: float) -> bool:
        """Whether it was silent for the whole grace period."""
        return self.silence(node, now) >= self.grace

    def all_silent(self, now: float) -> bool:
        """Whether no node gave a sign lately although each should have: it is us who are cut off, or everything is."""
        patience = min(2 * self.interval, self.grace)
        return bool(self._seen) and now - self._latest >= patience

    def restart(self, now: float) -> None:
        """Everybody gets a full grace period: after all were silent, nobody's silence so far means anything."""
        for node in self._seen:
            self._seen[node] = now


def eviction_rate(total: int, lost: int) -> float:
    """Nodes per second that may be given up, when so many of the cluster's nodes are not ready."""
    if lost > _FEW and lost >= _MANY * total:
        return SLOW_RATE if total > _LARGE else 0.0
    return RATE


@dataclass
class Bucket:
    """Lets one through, then one per `1 / rate` seconds."""

    _next: float = 0.0

    def take(self, rate: float, now: float) -> float:
        """0 when one may pass now, and it is counted; otherwise the seconds to wait for (a while when none may)."""
        if rate <= 0:
            return 10.0
        if now < self._next:
            return self._next - now
        self._next = now + 1.0 / rate
        return 0.0
