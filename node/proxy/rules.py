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
    """A rule in a chain that several owners write to; rules with a lower order come first."""

    chain: Chain
    order: int
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


class RuleBook:
    """The rules of all owners. Remembers which chains changed since they were last taken."""

    def __init__(self) -> None:
        self._owners: dict[str, Compiled] = {}
        self._own: dict[Chain, tuple[str, ...]] = {}
        self._shared: dict[Chain, Counter[tuple[int, str]]] = {}
        self._dirty: set[Chain] = set()

    def put(self, owner: str, share: Compiled) -> None:
        """Replace an owner's share; `NOTHING` removes it."""
        old = self._owners.pop(owner, NOTHING)
        if share == old and share is not NOTHING:
            self._owners[owner] = old
            return
        if share is not NOTHING:
            self._owners[owner] = share
        for chain, rules in share.chains.items():
            if self._own.get(chain) != rules:
                self._own[chain] = rules
                self._dirty.add(chain)
        for chain in old.chains.keys() - share.chains.keys():
            del self._own[chain]
            self._dirty.add(chain)
        for entry in share.entries - old.entries:
            self._count(entry, 1)
        for entry in old.entries - share.entries:
            self._count(entry, -1)

    def rules(self, chain: Chain) -> tuple[str, ...] | None:
        """The rules of a chain; None when nobody needs it."""
        own, shared = self._own.get(chain), self._shared.get(chain)
        if own is None and shared is None:
            return None
        return (own or ()) + tuple(rule for _, rule in sorted(shared or ()))

    def chains(self) -> Iterable[Chain]:
        """Every chain that somebody needs."""
        return self._own.keys() | self._shared.keys()

    def take_dirty(self) -> set[Chain]:
        """The chains that changed since the last call."""
        dirty, self._dirty = self._dirty, set()
        return dirty

    def _count(self, entry: Entry, change: int) -> None:
        rules = self._shared.setdefault(entry.chain, Counter())
        key = (entry.order, entry.rule)
        before = rules[key]
        rules[key] = before + change
        if rules[key] == 0:
            del rules[key]
        if (before == 0) != (before + change == 0):
            self._dirty.add(entry.chain)
        if not rules:
            del self._shared[entry.chain]
