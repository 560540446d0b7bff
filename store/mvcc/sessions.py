"""Outcomes of clients' numbered transactions, kept until the client has seen them, so that sending again is harmless.

Part of the replicated state: every member answers a repetition alike, whichever it reaches.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from store.mvcc.outcomes import CallOutcome

# Bounds of memory, not of use: a cluster has a handful of clients, each with fewer calls in flight.
MAX_SESSIONS = 256
MAX_OUTCOMES = 4096


@dataclass(slots=True)
class Session:
    """One client: outcomes by number, none of them below `floor`; at most MAX_OUTCOMES."""

    floor: int = 0
    outcomes: dict[int, CallOutcome] = field(default_factory=dict)

    def limit(self) -> None:
        """With too many outcomes, forget those of the lowest numbers."""
        while len(self.outcomes) > MAX_OUTCOMES:
            lowest = min(self.outcomes)
            del self.outcomes[lowest]
            self.floor = max(self.floor, lowest + 1)

    def forget_below(self, number: int) -> None:
        """Drop the outcomes that the client has seen."""
        if number > self.floor:
            self.floor = number
            # A new one is cheaper than taking out what was seen, which is most of it.
            self.outcomes = {n: outcome for n, outcome in self.outcomes.items() if n >= number}


class SessionTable:
    """Sessions by the client's number; the one that was used longest ago goes first."""

    def __init__(self) -> None:
        self.sessions: OrderedDict[int, Session] = OrderedDict()

    def enter(self, client: int) -> Session:
        """The client's session, now the most recently used."""
        session = self.sessions.get(client)
        if session is None:
            session = self.sessions[client] = Session()
            if len(self.sessions) > MAX_SESSIONS:
                self.sessions.popitem(last=False)
        else:
            self.sessions.move_to_end(client)
        return session
