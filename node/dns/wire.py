"""Questions out of packets, and answers into packets (RFC 1035, RFC 6891)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import cast

import dnslib

from node.dns.records import TTL, Answer, Labels, Rcode, Record, Srv, Type

# What fits into a UDP packet without fragments nearly everywhere (the DNS flag day 2020), and without EDNS (RFC 1035).
UDP_PAYLOAD = 1232
PLAIN_PAYLOAD = 512
TCP_PAYLOAD = 65535

_HEADER = struct.Struct("!HHHHHH")
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSION_DESIRED = 0x8000, 0x0400, 0x0200, 0x0100
_RECURSION_AVAILABLE, _CHECKING_DISABLED = 0x0080, 0x0010
_OPCODE = 0x7800
_IN, _ANY_CLASS = 1, 255
_MAX_NAME = 255
_ZONE_TRANSFERS = (251, 252)


class Drop(Exception):  # noqa: N818 - not an error: nothing is to be said
    """The packet is no question; an answer could start a loop with whoever sent it."""


class Refusal(Exception):  # noqa: N818 - an answer, in the end
    """The question cannot be answered; `packet` says so."""

    def __init__(self, packet: bytes) -> None:
        super().__init__()
        self.packet = packet


@dataclass(frozen=True)
class Query:
    """One question."""

    data: bytes
    # The labels as they were asked: the answer repeats their case.
    labels: tuple[bytes, ...]
    kind: int
    flags: int
    # Where the question section ends in `data`.
    end: int
    # What the client says that it can take over UDP; None without EDNS.
    payload: int | None

    @property
    def name(self) -> Labels:
        """The labels in lower case, for comparing."""
        return tuple(label.decode("latin-1").lower() for label in self.labels)

    def limit(self, *, tcp: bool) -> int:
        """How long the answer may be."""
        if tcp:
            return TCP_PAYLOAD
        return PLAIN_PAYLOAD if self.payload is None else max(PLAIN_PAYLOAD, min(self.payload, UDP_PAYLOAD))


def parse_query(data: bytes) -> Query:
    """Read a packet.

    Raises:
        Drop: when it is not even the beginning of a question, or is an answer itself.
        Refusal: when it is not a question that can be answered.
    """
    if len(data) < _HEADER.size:
        raise Drop
    _, flags, questions, answers, authorities, extra = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        raise Drop
    if flags & _OPCODE:
        raise Refusal(_bare(data, Rcode.NOTIMP))
    if questions != 1 or answers or authorities:
        raise Refusal(_bare(data, Rcode.FORMERR))
    try:
        labels, offset = _name(data, _HEADER.size)
        kind, klass = struct.unpack_from("!HH", data, offset)
        end = offset + 4
        payload, version = _edns(data, end, extra)
    except (struct.error, IndexError, ValueError):
        raise Refusal(_bare(data, Rcode.FORMERR)) from None
    query = Query(data, labels, kind, flags, end, payload)
    if version:
        raise Refusal(refuse(query, Rcode.BADVERS))
    if klass not in (_IN, _ANY_CLASS) or kind in _ZONE_TRANSFERS:
        raise Refusal(refuse(query, Rcode.REFUSED))
    return query


def refuse(query: Query, rcode: Rcode) -> bytes:
    """An answer without records."""
    record = _reply(query, rcode, authoritative=False)
    return bytes(record.pack())


def encode(query: Query, answer: Answer, apex: Labels, limit: int) -> bytes:
    """The answer in at most `limit` bytes: additional records are left out first, then answers, with the TC flag."""
    answers = [_resource(query, record) for record in answer.answers]
    additional = [_resource(query, record) for record in answer.additional]
    negative = not answers

    def build(count: int, *, extra: bool) -> bytes:
        record = _reply(query, answer.rcode, authoritative=True)
        record.header.tc = int(count < len(answers))
        record.add_answer(*answers[:count])
        if negative:
            # It says for how long "no" may be believed (RFC 2308).
            record.add_auth(_soa(query, apex, apex))
        if extra:
            record.add_ar(*additional)
        return bytes(record.pack())

    packet = build(len(answers), extra=True)
    if len(packet) > limit and additional:
        packet = build(len(answers), extra=False)
    if len(packet) > limit:
        packet = _most(len(answers), limit, lambda count: build(count, extra=False))
    return packet


def encode_alias(query: Query, alias: Sequence[Record], reply: bytes, limit: int) -> bytes:
    """CNAME records of the zone, followed by what somebody else (`reply`) says about where they lead.

    Raises:
        dnslib.DNSError: when the reply cannot be read.
    """
    there = dnslib.DNSRecord.parse(reply)
    answers = [_resource(query, record) for record in alias] + list(there.rr)

    def build(count: int) -> bytes:
        record = _reply(query, Rcode(there.header.rcode & 0xF), authoritative=False)
        record.header.tc = int(count < len(answers) or bool(there.header.tc))
        record.add_answer(*answers[:count])
        record.add_auth(*there.auth)
        return bytes(record.pack())

    packet = build(len(answers))
    return packet if len(packet) <= limit else _most(len(answers), limit, build)


def question(name: Labels, kind: int, identity: int) -> bytes:
    """A packet that asks for a name, with EDNS."""
    header = _HEADER.pack(identity, _RECURSION_DESIRED, 1, 0, 0, 1)
    encoded = b"".join(bytes([len(label)]) + label.encode("latin-1") for label in name)
    edns = b"\0" + struct.pack("!HHIH", Type.OPT, UDP_PAYLOAD, 0, 0)
    return header + encoded + b"\0" + struct.pack("!HH", kind, _IN) + edns


def question_of(data: bytes) -> bytes:
    """The question section's bytes; empty when there is none that can be read."""
    try:
        _, end = _name(data, _HEADER.size)
    except (IndexError, ValueError):
        return b""
    return data[_HEADER.size : end + 4]


def rcode_of(data: bytes) -> int:
    """The result code in a packet's header."""
    return data[3] & 0xF


def is_truncated(data: bytes) -> bool:
    """Whether the answer did not fit."""
    return bool(data[2] & (_TRUNCATED >> 8))


def is_answer_to(query: bytes, data: bytes) -> bool:
    """Whether a packet answers that query: same id, same question."""
    if len(data) < _HEADER.size or data[:2] != query[:2] or not data[2] & 0x80:
        return False
    asked = question_of(query)
    return question_of(data).lower() == asked.lower()


# --- within


def _most(count: int, limit: int, build: Callable[[int], bytes]) -> bytes:
    """The packet with the most answers that fits."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        if len(build(middle)) <= limit:
            low = middle
        else:
            high = middle - 1
    return build(low)


def _name(data: bytes, offset: int) -> tuple[tuple[bytes, ...], int]:
    """Labels of an uncompressed name, and where it ends. Questions have no use for compression."""
    labels = []
    start = offset
    while (length := data[offset]) != 0:
        if length > 63 or offset + 1 + length > len(data) or offset - start > _MAX_NAME:
            raise ValueError("not a name")
        labels.append(data[offset + 1 : offset + 1 + length])
        offset += 1 + length
    return tuple(labels), offset + 1


def _edns(data: bytes, offset: int, records: int) -> tuple[int | None, int]:
    """The client's payload size and EDNS version from the OPT record among the additional records."""
    found: int | None = None
    version = 0
    for _ in range(records):
        labels, offset = _name(data, offset)
        kind, klass, ttl, length = struct.unpack_from("!HHIH", data, offset)
        offset += 10 + length
        if offset > len(data):
            raise ValueError("a record ends behind the packet")
        if kind == Type.OPT:
            if found is not None or labels:
                raise ValueError("more than one OPT record, or one with a name")
            found, version = klass, ttl >> 16 & 0xFF
    return found, version


def _bare(data: bytes, rcode: Rcode) -> bytes:
    """An answer to a question that could not be read."""
    identity, flags = struct.unpack_from("!HH", data)
    kept = flags & (_OPCODE | _RECURSION_DESIRED)
    return _HEADER.pack(identity, _RESPONSE | kept | rcode, 0, 0, 0, 0)


def _reply(query: Query, rcode: Rcode, *, authoritative: bool) -> dnslib.DNSRecord:
    identity = int.from_bytes(query.data[:2], "big")
    flags = _RESPONSE | _RECURSION_AVAILABLE | (query.flags & (_RECURSION_DESIRED | _CHECKING_DISABLED))
    if authoritative:
        flags |= _AUTHORITATIVE
    header = dnslib.DNSHeader(identity, flags | (rcode & 0xF))
    record = dnslib.DNSRecord(header, q=dnslib.DNSQuestion(dnslib.DNSLabel(query.labels), query.kind, _IN))
    if query.payload is not None:
        record.add_ar(dnslib.EDNS0(udp_len=UDP_PAYLOAD, ext_rcode=rcode >> 4))
    return record


def _resource(query: Query, record: Record) -> dnslib.RR:
    name = _spelled(query, record.name)
    if record.type is Type.SOA:
        return _soa(query, record.name, record.name)
    return dnslib.RR(name, int(record.type), _IN, TTL, _data(query, record))


def _data(query: Query, record: Record) -> dnslib.RD:
    if record.type is Type.A:
        return dnslib.A(tuple(cast(IPv4Address, record.data).packed))
    if record.type is Type.TXT:
        return dnslib.TXT(cast(str, record.data))
    if record.type is Type.SRV:
        srv = cast(Srv, record.data)
        return dnslib.SRV(srv.priority, srv.weight, srv.port, _spelled(query, srv.target))
    name = _spelled(query, cast(Labels, record.data))
    kinds = {Type.CNAME: dnslib.CNAME, Type.PTR: dnslib.PTR, Type.NS: dnslib.NS}
    return kinds[record.type](name)


def _spelled(query: Query, name: Labels) -> dnslib.DNSLabel:
    """A name with the question's case where it is the question's name or ends like it, as DNS servers do."""
    labels = [label.encode("latin-1") for label in name]
    asked = query.labels
    for count in range(min(len(labels), len(asked)), 0, -1):
        if [label.lower() for label in asked[-count:]] == labels[-count:]:
            labels[-count:] = asked[-count:]
            break
    return dnslib.DNSLabel(labels)


def _soa(query: Query, name: Labels, apex: Labels) -> dnslib.RR:
    server = _spelled(query, ("ns", "dns", *apex))
    mailbox = _spelled(query, ("hostmaster", *apex))
    # Serial, refresh, retry, expire (nobody transfers this zone), and for how long "no" may be believed.
    data = dnslib.SOA(server, mailbox, (1, 7200, 1800, 86400, TTL))
    return dnslib.RR(_spelled(query, name), int(Type.SOA), _IN, TTL, data)
