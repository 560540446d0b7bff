"""Encoded answers that can be given again: those of the zone until something changes, others' until their time ends."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kybern.clock import Clock
from node.dns.records import Rcode, Type

# Bounds of memory: an answer has some hundred bytes.
ZONE_ENTRIES = 10_000
FORWARD_ENTRIES = 10_000
# Seconds for which an upstream's answer is kept at most, and a "no" at most.
LONGEST = 30
LONGEST_NEGATIVE = 10

_HEADER = 12
_SECTIONS = struct.Struct("!HHHH")


@dataclass
class Entry:
    """The same answer with its records in several orders, without the two bytes of the id; `next` rotates."""

    packets: Sequence[bytes]
    tags: frozenset[str]
    turn: int = 0

    def next(self) -> bytes:
        """One of the packets; clients that take the first record are spread."""
        self.turn += 1
        return self.packets[self.turn % len(self.packets)]


class ZoneCache:
    """Answers by question (the packet without its id), forgotten by tag. The oldest go when there are too many."""

    def __init__(self, entries: int = ZONE_ENTRIES) -> None:
        self._limit = entries
        self._entries: dict[bytes, Entry] = {}
        self._tagged: dict[str, set[bytes]] = {}

    def get(self, question: bytes) -> Entry | None:
        """The answer to exactly these bytes."""
        return self._entries.get(question)

    def put(self, question: bytes, entry: Entry) -> None:
        """Remember an answer."""
        if len(self._entries) >= self._limit:
            self._remove(next(iter(self._entries)))
        self._entries[question] = entry
        for tag in entry.tags:
            self._tagged.setdefault(tag, set()).add(question)

    def forget(self, tags: Iterable[str]) -> None:
        """Drop the answers that carry any of the tags."""
        for tag in tags:
            for question in list(self._tagged.get(tag, ())):
                self._remove(question)

    def __len__(self) -> int:
        return len(self._entries)

    def _remove(self, question: bytes) -> None:
        entry = self._entries.pop(question)
        for tag in entry.tags:
            questions = self._tagged[tag]
            questions.discard(question)
            if not questions:
                del self._tagged[tag]


@dataclass
class _Kept:
    packet: bytearray
    since: float
    until: float
    # Where the TTLs are in the packet, and what they were.
    ttls: list[tuple[int, int]] = field(default_factory=list)


class ForwardCache:
    """Answers of upstream servers, with their TTLs counted down."""

    def __init__(self, clock: Clock, entries: int = FORWARD_ENTRIES) -> None:
        self._clock = clock
        self._limit = entries
        self._entries: dict[bytes, _Kept] = {}

    def get(self, question: bytes) -> bytes | None:
        """The answer without its id, if there is one that is still good."""
        kept = self._entries.get(question)
        if kept is None:
            return None
        now = self._clock.monotonic()
        if now >= kept.until:
            del self._entries[question]
            return None
        age = int(now - kept.since)
        for offset, ttl in kept.ttls:
            struct.pack_into("!I", kept.packet, offset, max(0, ttl - age))
        return bytes(kept.packet[2:])

    def put(self, question: bytes, packet: bytes) -> None:
        """Remember an answer for as long as it says, within bounds; failures and what cannot be read are not kept."""
        found = lifetime(packet)
        if found is None:
            return
        seconds, ttls = found
        if seconds <= 0:
            return
        if len(self._entries) >= self._limit:
            del self._entries[next(iter(self._entries))]
        now = self._clock.monotonic()
        self._entries[question] = _Kept(bytearray(packet), now, now + seconds, ttls)

    def __len__(self) -> int:
        return len(self._entries)


def lifetime(packet: bytes) -> tuple[int, list[tuple[int, int]]] | None:
    """For how many seconds an answer may be kept, and its TTLs by position; None when it must not be kept at all."""
    try:
        rcode = packet[3] & 0xF
        if rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN) or packet[2] & 0x02:
            return None
        questions, answers, authorities, extra = _SECTIONS.unpack_from(packet, 4)
        offset = _HEADER
        for _ in range(questions):
            offset = _skip_name(packet, offset) + 4
        ttls: list[tuple[int, int]] = []
        negative: int | None = None
        for number in range(answers + authorities + extra):
            offset = _skip_name(packet, offset)
            kind, _, ttl, length = struct.unpack_from("!HHIH", packet, offset)
            if kind != Type.OPT:
                ttls.append((offset + 4, ttl))
            if kind == Type.SOA and number >= answers:
                (minimum,) = struct.unpack_from("!I", packet, offset + 10 + length - 4)
                negative = min(ttl, minimum)
            offset += 10 + length
        if offset > len(packet):
            return None
    except (struct.error, IndexError):
        return None
    if answers and rcode == Rcode.NOERROR:
        return min(LONGEST, *(ttl for _, ttl in ttls)), ttls
    # RFC 2308: a "no" without an SOA is not to be kept.
    return None if negative is None else (min(LONGEST_NEGATIVE, negative), ttls)


def _skip_name(packet: bytes, offset: int) -> int:
    while (length := packet[offset]) != 0:
        if length & 0xC0:
            return offset + 2
        offset += 1 + length
    return offset + 1
