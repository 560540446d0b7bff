"""What members have told each other that they keep, so that an older copy of a data directory is told from it.

A virtual machine that is set back to a snapshot, a directory that comes out of a backup, a disk that had not kept what
it had confirmed: their member has forgotten what it acknowledged, and would help elect a leader without it. The others
remember, for as long as they run.
"""

from __future__ import annotations

from typing import Protocol

from kybern.struct import Frozen


class Standing(Frozen, array_like=True, forbid_unknown_fields=True):
    """Term, vote in it (empty: none), and the log up to an entry, by its index and term."""

    term: int = 0
    voted_for: str = ""
    index: int = 0
    index_term: int = 0


NOTHING = Standing()


def lacks(said: Standing, known: Standing) -> str:
    """What a member has forgotten that stands at `said`, and once stood at `known`; empty when nothing.

    `known` is up to an entry that was committed, so no leader can have taken it back. `said` is up to the log's end.
    """
    if said.term < known.term:
        return f"it was in term {known.term} and is in term {said.term}"
    if said.term == known.term and known.voted_for and said.voted_for != known.voted_for:
        return f"it voted for {known.voted_for} in term {known.term} and does not know"
    if said.index < known.index or (said.index_term, said.index) < (known.index_term, known.index):
        return f"it had the log up to entry {known.index} of term {known.index_term} and has it up to {said.index}"
    return ""


def both(one: Standing, other: Standing) -> Standing:
    """The most of what two say of the same member."""
    vote = max(one, other, key=lambda standing: (standing.term, standing.voted_for))
    log = max(one, other, key=lambda standing: (standing.index_term, standing.index))
    return Standing(vote.term, vote.voted_for, log.index, log.index_term)


def voted(standing: Standing) -> Standing:
    """The part that holds whatever becomes of the log: its end may yet be cut off."""
    return Standing(standing.term, standing.voted_for)


class Holder(Protocol):
    """A member's own Raft, which knows where it stands itself, and what others have acknowledged to it."""

    def holds(self) -> Standing:
        """Where this member stands, up to its log's durable end."""
        ...

    def vouches(self) -> Standing:
        """Where it will never stand behind: up to what is durable here and known to be committed."""
        ...

    def acknowledged(self, peer: str) -> Standing:
        """What a peer has of what is committed, by its acknowledgements in this term."""
        ...


class Standings:
    """Where the other members stood when they were heard last, by name and data directory; until `join` of nobody."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, Standing]] = {}
        self._holder: Holder | None = None

    def join(self, holder: Holder) -> None:
        """Take part: this is the member's own Raft."""
        self._holder = holder

    def holds(self) -> Standing:
        """Where this member stands: for a hello."""
        return self._holder.holds() if self._holder is not None else NOTHING

    def vouches(self) -> Standing:
        """Where this member will never stand behind: for a ping."""
        return self._holder.vouches() if self._holder is not None else NOTHING

    def heard(self, peer: str, directory_id: int, standing: Standing) -> None:
        """A member with this data directory says that it will never stand behind that."""
        self._known[peer] = directory_id, both(self.of(peer, directory_id), standing)

    def note(self, peer: str, directory_id: int) -> None:
        """Keep what a member has acknowledged to this one, since its connection ends, or another one begins."""
        if self._holder is not None:
            self.heard(peer, directory_id, self._holder.acknowledged(peer))

    def of(self, peer: str, directory_id: int) -> Standing:
        """Where a member with this data directory must stand at least."""
        known = self._known.get(peer)
        return known[1] if known is not None and known[0] == directory_id else NOTHING
