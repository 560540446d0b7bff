"""From a packet to its answer: the zone's own names at once, everything else by asking upstream."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import dnslib

from node.dns import wire
from node.dns.cache import Entry, ZoneCache
from node.dns.directory import InformerDirectory
from node.dns.records import Answer, Labels, Rcode, Record, Type
from node.dns.zone import Zone

log = logging.getLogger(__name__)

# An answer with several records is kept in at most this many orders.
_ORDERS = 8
# Services that are names for services that are names: this many, then it is a circle.
_MAX_ALIASES = 8


class Asker(Protocol):
    """Who is asked about names that are not the cluster's (see `node.dns.upstream.Forwarder`)."""

    def cached(self, query: bytes, *, tcp: bool) -> bytes | None:
        """The answer, if it is known."""
        ...

    async def ask(self, query: bytes, *, tcp: bool) -> bytes | None:
        """The answer; None when there is none in time."""
        ...


class Responder:
    """Answers packets. `answer_now` never waits; what it cannot answer goes through `answer_later`."""

    def __init__(self, zone: Zone, directory: InformerDirectory, forwarder: Asker) -> None:
        self._zone = zone
        self._directory = directory
        self._forwarder = forwarder
        self._caches = {tcp: ZoneCache() for tcp in (False, True)}
        directory.on_change(self._forget)

    def answer_now(self, data: bytes, *, tcp: bool) -> bytes | wire.Query | None:
        """The answer; the question itself when somebody else must be asked; None when nothing is to be said."""
        entry = self._caches[tcp].get(data[2:])
        if entry is not None:
            return data[:2] + entry.next()
        try:
            query = wire.parse_query(data)
        except wire.Drop:
            return None
        except wire.Refusal as refusal:
            return refusal.packet
        name = query.name
        if self._zone.owns(name) and not self._directory.is_complete:
            # A name that is missing now may be there in a second; "no such name" would be believed for longer.
            return wire.refuse(query, Rcode.SERVFAIL)
        answer = self._zone.lookup(name, query.kind)
        if answer is None:
            return self._forwarder.cached(data, tcp=tcp) or query
        if answer.alias is not None and query.kind not in (Type.CNAME, Type.ANY):
            return query
        return self._keep(query, answer, tcp=tcp)

    async def answer_later(self, query: wire.Query, *, tcp: bool) -> bytes:
        """The answer to a question that `answer_now` gave back."""
        answer = self._zone.lookup(query.name, query.kind)
        if answer is None or answer.alias is None:
            reply = await self._forwarder.ask(query.data, tcp=tcp)
            return wire.refuse(query, Rcode.SERVFAIL) if reply is None else reply
        return await self._follow(query, answer, tcp=tcp)

    def _keep(self, query: wire.Query, answer: Answer, *, tcp: bool) -> bytes:
        limit = query.limit(tcp=tcp)
        packets = [wire.encode(query, turned, self._zone.apex, limit)[2:] for turned in _orders(answer)]
        entry = Entry(packets, answer.tags)
        self._caches[tcp].put(query.data[2:], entry)
        return query.data[:2] + packets[0]

    async def _follow(self, query: wire.Query, answer: Answer, *, tcp: bool) -> bytes:
        """An ExternalName Service: its CNAME, and what the name that it stands for has to say."""
        chain: list[Record] = []
        target: Labels | None = None
        current: Answer | None = answer
        while current is not None and current.alias is not None:
            chain += current.answers
            target = current.alias
            if len(chain) > _MAX_ALIASES:
                log.warning("%s stands for itself, through %d Services", ".".join(query.name), len(chain))
                return wire.refuse(query, Rcode.SERVFAIL)
            current = self._zone.lookup(target, query.kind)
        if current is not None:
            # The end of the chain is a name of the zone.
            whole = replace(current, answers=(*chain, *current.answers))
            return wire.encode(query, whole, self._zone.apex, query.limit(tcp=tcp))
        try:
            asked = wire.question(target or (), query.kind, 0)
            reply = await self._forwarder.ask(asked, tcp=tcp)
            if reply is not None and wire.rcode_of(reply) in (Rcode.NOERROR, Rcode.NXDOMAIN):
                return wire.encode_alias(query, chain, reply, query.limit(tcp=tcp))
        except (dnslib.DNSError, ValueError) as error:
            log.debug("the answer for %s cannot be used: %s", ".".join(target or ()), error)
        return wire.refuse(query, Rcode.SERVFAIL)

    def _forget(self, tags: Sequence[str]) -> None:
        for cache in self._caches.values():
            cache.forget(tags)


def _orders(answer: Answer) -> list[Answer]:
    """The answer with its records turned round, so that each comes first in some."""
    count = len(answer.answers)
    if count < 2:
        return [answer]
    step = max(1, count // _ORDERS)
    starts = range(0, count, step)[:_ORDERS]
    return [replace(answer, answers=answer.answers[start:] + answer.answers[:start]) for start in starts]
