"""Rules in chains: what all services need together, put together and taken apart one service at a time.

Rules are written exactly as iptables-save prints them, so that what is wanted can be compared with what is there.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

# Every chain of ours begins with it; nothing else is ever changed but the hooks that lead into ours.
PREFIX = "KYB-"


class Chain(NamedTuple):
    """A chain of a table."""

    table: str
    name: str


class Entry(NamedTuple):
    """A rule in a chain that several owners write to; such a chain is a set, its rules have no order."""

    chain: Chain
    rule: str


class Hook(NamedTuple):
    """A rule in a chain of the system that leads into one of ours; it is kept at the top."""

    chain: Chain
    rule: str


@dataclass(frozen=True)
class Compiled:
    """One owner's share: chains of its own, and rules in chains that are shared."""

    chains: Mapping[Chain, tuple[str, ...]] = field(default_factory=dict)
    entries: frozenset[Entry] = frozenset()


NOTHING = Compiled()


def chain_name(kind: str, *identity: object) -> str:
    """A chain's name out of what it is for; iptables takes 28 characters at most."""
    digest = hashlib.sha256("\0".join(map(str, identity)).encode()).digest()
    return f"{PREFIX}{kind}-{base64.b32encode(digest).decode()[:16]}"


@dataclass
class Delta:
    """What changed in a book: chains that differ, and those of them that only have rules more than before."""

    changed: set[Chain] = field(default_factory=set)
    added: dict[Chain, list[str]] = field(default_factory=dict)


class RuleBook:
    """The rules of all owners. Remembers what changed since it was last asked for that."""

    def __init__(self) -> None:
        self._owners: dict[str, Compiled] = {}
        self._own: dict[Chain, tuple[str, ...]] = {}
        self._shared: dict[Chain, Counter[str]] = {}
        self._delta = Delta()

    def put(self, owner: str, share: Compiled) -> None:
        """Replace an owner's share; `NOTHING` removes it."""
        old = self._owners.pop(owner, NOTHING)
        if share is not NOTHING:
            self._owners[owner] = share
        for chain, rules in share.chains.items():
            if self._own.get(chain) != rules:
                self._own[chain] = rules
                self._differs(chain)
        for chain in old.chains.keys() - share.chains.keys():
            del self._own[chain]
            self._differs(chain)
        for entry in share.entries - old.entries:
            self._add(entry)
        for entry in old.entries - share.entries:
            self._remove(entry)

    def rules(self, chain: Chain) -> tuple[str, ...] | None:
        """The rules of a chain; None when nobody needs it."""
        own, shared = self._own.get(chain), self._shared.get(chain)
        if own is None and shared is None:
            return None
        return (own or ()) + tuple(sorted(shared or ()))

    def is_set(self, chain: Chain) -> bool:
        """Whether the order of the chain's rules means nothing."""
        return not self._own.get(chain)

    def chains(self) -> Iterable[Chain]:
        """Every chain that somebody needs."""
        return self._own.keys() | self._shared.keys()

    def take_delta(self) -> Delta:
        """What changed since the last call."""
        delta, self._delta = self._delta, Delta()
        return delta

    def _differs(self, chain: Chain) -> None:
        self._delta.changed.add(chain)
        self._delta.added.pop(chain, None)

    def _add(self, entry: Entry) -> None:
        chain, rule = entry
        shared = self._shared.get(chain)
        if shared is None:
            shared = self._shared[chain] = Counter()
            if chain not in self._own:
                self._differs(chain)
        shared[rule] += 1
        if shared[rule] > 1:
            return
        if chain not in self._delta.changed:
            self._delta.changed.add(chain)
            self._delta.added[chain] = []
        if chain in self._delta.added:
            self._delta.added[chain].append(rule)

    def _remove(self, entry: Entry) -> None:
        chain, rule = entry
        shared = self._shared[chain]
        shared[rule] -= 1
        if shared[rule] == 0:
            del shared[rule]
            self._differs(chain)
        if not shared:
            del self._shared[chain]
