"""How long to wait before trying again."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass
class Backoff:
    """Exponential back-off with jitter: `base`, then `factor` times as much each time, at most `cap` seconds.

    Jitter takes away up to `jitter` of a wait (0.2: a fifth), so that clients that failed together do not come back
    together. `rng` is passed in to make tests and simulations repeatable.
    """

    base: float = 0.1
    cap: float = 30.0
    factor: float = 2.0
    jitter: float = 0.2
    rng: random.Random | None = None
    failures: int = 0

    def next(self) -> float:
        """Count one more failure and return the seconds to wait for."""
        # Bounded exponent: 2.0 ** 1100 is an OverflowError, and a peer can be away for days.
        wait = min(self.cap, self.base * self.factor ** min(self.failures, 64))
        self.failures += 1
        rng = self.rng or random
        return wait * (1.0 - self.jitter * rng.random())

    def reset(self) -> None:
        """Forget the failures: it worked."""
        self.failures = 0
