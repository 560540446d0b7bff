"""Packets: what is read from them and what is written into them, checked with another library's eyes."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import dnslib
import pytest

from node.dns import wire
from node.dns.records import Answer, Rcode, Record, Srv, Type, labels_of

APEX = ("cluster", "local")
NAME = labels_of("db.prod.svc.cluster.local")


def ask(name: str = "db.prod.svc.cluster.local", kind: str = "A", *, edns: int = 0) -> bytes:
    record = dnslib.DNSRecord.question(name, kind)
    if edns:
        record.add_ar(dnslib.EDNS0(udp_len=edns))
    return bytes(record.pack())


def answer(count: int) -> Answer:
    return Answer(
        answers=tuple(Record(NAME, Type.A, IPv4Address(f"10.244.{n // 250}.{n % 250}")) for n in range(count))
    )


def refusal(data: bytes) -> dnslib.DNSRecord:
    with pytest.raises(wire.Refusal) as refused:
        wire.parse_query(data)
    return dnslib.DNSRecord.parse(refused.value.packet)


def test_a_question_is_read_with_its_case_and_edns() -> None:
    query = wire.parse_query(ask("Db.PROD.svc.cluster.local", "AAAA", edns=4096))
    assert query.labels[:2] == (b"Db", b"PROD")
    assert (query.name, query.kind, query.payload) == (NAME, Type.AAAA, 4096)
    assert query.limit(tcp=False) == wire.UDP_PAYLOAD
    assert wire.parse_query(ask()).limit(tcp=False) == 512
    assert wire.parse_query(ask(edns=600)).limit(tcp=False) == 600
    assert wire.parse_query(ask(edns=100)).limit(tcp=False) == 512
    assert query.limit(tcp=True) == 65535


def test_answers_repeat_the_questions_case_and_id() -> None:
    data = ask("Db.PROD.svc.cluster.local")
    packet = wire.encode(wire.parse_query(data), answer(2), APEX, 512)
    read = dnslib.DNSRecord.parse(packet)
    assert packet[:2] == data[:2]
    assert [str(r.rname) for r in read.rr] == ["Db.PROD.svc.cluster.local."] * 2
    assert [str(r.rdata) for r in read.rr] == ["10.244.0.0", "10.244.0.1"]
    assert {r.ttl for r in read.rr} == {5}
    assert (read.header.aa, read.header.ra, read.header.rd, read.header.qr) == (1, 1, 1, 1)
    assert str(read.q.qname) == "Db.PROD.svc.cluster.local."


def test_every_kind_of_record_can_be_written() -> None:
    pod = labels_of("db-0.db.prod.svc.cluster.local")
    records = {
        Record(NAME, Type.CNAME, labels_of("www.example.org")): "www.example.org.",
        Record(NAME, Type.PTR, pod): "db-0.db.prod.svc.cluster.local.",
        Record(NAME, Type.NS, labels_of("ns.dns.cluster.local")): "ns.dns.cluster.local.",
        Record(NAME, Type.TXT, "1.1.0"): '"1.1.0"',
        Record(NAME, Type.SRV, Srv(5432, pod)): "0 100 5432 db-0.db.prod.svc.cluster.local.",
    }
    for record, text in records.items():
        query = wire.parse_query(ask(kind=record.type.name))
        [read] = dnslib.DNSRecord.parse(wire.encode(query, Answer(answers=(record,)), APEX, 512)).rr
        assert (read.rtype, str(read.rdata)) == (record.type, text)


@pytest.mark.parametrize("rcode", [Rcode.NOERROR, Rcode.NXDOMAIN])
def test_a_no_says_for_how_long_it_holds(rcode: Rcode) -> None:
    read = dnslib.DNSRecord.parse(wire.encode(wire.parse_query(ask(edns=1232)), Answer(rcode), APEX, 1232))
    [soa] = read.auth
    assert (read.header.rcode, soa.rtype, str(soa.rname), soa.ttl) == (rcode, Type.SOA, "cluster.local.", 5)
    assert soa.rdata.times[-1] == 5
    # Who speaks EDNS gets EDNS.
    assert [r.rtype for r in read.ar] == [Type.OPT]


@pytest.mark.parametrize(("edns", "limit"), [(0, 512), (700, 700), (4096, 1232)])
def test_what_does_not_fit_is_cut_at_a_record_and_says_so(edns: int, limit: int) -> None:
    query = wire.parse_query(ask(edns=edns))
    packet = wire.encode(query, answer(200), APEX, query.limit(tcp=False))
    read = dnslib.DNSRecord.parse(packet)
    assert limit - 20 < len(packet) <= limit
    assert read.header.tc == 1
    assert 20 < len(read.rr) < 100
    whole = dnslib.DNSRecord.parse(wire.encode(query, answer(200), APEX, query.limit(tcp=True)))
    assert (whole.header.tc, len(whole.rr)) == (0, 200)


def test_additional_records_are_left_out_before_answers_are_cut() -> None:
    extra = tuple(Record(labels_of(f"x{n}.cluster.local"), Type.A, IPv4Address("10.244.0.1")) for n in range(40))
    found = Answer(answers=answer(10).answers, additional=extra)
    read = dnslib.DNSRecord.parse(wire.encode(wire.parse_query(ask()), found, APEX, 512))
    assert (read.header.tc, len(read.rr), len(read.ar)) == (0, 10, 0)


def test_what_is_no_question_gets_no_answer() -> None:
    for data in (b"", b"\0" * 11, bytes(dnslib.DNSRecord.question("a.b").reply().pack())):
        with pytest.raises(wire.Drop):
            wire.parse_query(data)


def header(flags: int = 0x0100, counts: tuple[int, int, int, int] = (1, 0, 0, 0)) -> bytes:
    return struct.pack("!HHHHHH", 0x1234, flags, *counts)


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        (header(), Rcode.FORMERR),
        (header() + b"\x05abc", Rcode.FORMERR),
        (header() + b"\xc0\x0c\0\1\0\1", Rcode.FORMERR),
        (header() + b"\x3fa" * 30, Rcode.FORMERR),
        (header() + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1", Rcode.FORMERR),
        (header(counts=(0, 0, 0, 0)), Rcode.FORMERR),
        (header(counts=(2, 0, 0, 0)) + b"\1a\0\0\1\0\1" * 2, Rcode.FORMERR),
        (header(counts=(1, 1, 0, 0)) + b"\1a\0\0\1\0\1", Rcode.FORMERR),
        (header(counts=(1, 0, 0, 1)) + b"\1a\0\0\1\0\1" + b"\0\0\x29\4\xd0\0\0\0\0\0\xff", Rcode.FORMERR),
        (header(counts=(1, 0, 0, 2)) + b"\1a\0\0\1\0\1" + b"\0\0\x29\4\xd0\0\0\0\0\0\0" * 2, Rcode.FORMERR),
        (header(0x2000) + b"\1a\0\0\1\0\1", Rcode.NOTIMP),
        (header() + b"\1a\0\0\1\0\3", Rcode.REFUSED),
        (header() + b"\1a\0\0\xfc\0\1", Rcode.REFUSED),
    ],
    ids=[
        "nothing but a header",
        "a name that ends too soon",
        "a compressed question",
        "labels without an end",
        "a name that is too long",
        "no question",
        "two questions",
        "an answer in a question",
        "an option that ends too soon",
        "two OPT records",
        "another opcode",
        "class CHAOS",
        "a zone transfer",
    ],
)
def test_bad_questions_are_refused_with_a_reason(data: bytes, rcode: Rcode) -> None:
    read = refusal(data)
    assert (read.header.id, read.header.rcode, read.header.qr) == (0x1234, rcode, 1)


def test_an_unknown_version_of_edns_is_refused() -> None:
    data = header(counts=(1, 0, 0, 1)) + b"\1a\0\0\1\0\1" + b"\0\0\x29\4\xd0\0\1\0\0\0\0"
    read = refusal(data)
    assert (read.header.rcode, read.ar[0].ttl >> 24) == (0, 1)


def test_an_answer_is_recognised_by_id_and_question() -> None:
    query = ask()
    reply = bytes(dnslib.DNSRecord.parse(query).reply().pack())
    assert wire.is_answer_to(query, reply)
    assert not wire.is_answer_to(query, query)
    assert not wire.is_answer_to(query, b"\0\0" + reply[2:]) or query[:2] == b"\0\0"
    assert not wire.is_answer_to(query, query[:2] + bytes(dnslib.DNSRecord.question("x.y").reply().pack())[2:])
    assert not wire.is_answer_to(query, reply[:12])


def test_an_alias_is_followed_by_what_somebody_else_said() -> None:
    query = wire.parse_query(ask("outside.default.svc.cluster.local"))
    alias = Record(labels_of("outside.default.svc.cluster.local"), Type.CNAME, labels_of("www.example.org"))
    there = dnslib.DNSRecord.parse(wire.question(labels_of("www.example.org"), Type.A, 7)).reply()
    there.add_answer(dnslib.RR("www.example.org", Type.A, 1, 60, dnslib.A("192.0.2.1")))
    read = dnslib.DNSRecord.parse(wire.encode_alias(query, [alias], bytes(there.pack()), 512))
    assert [(str(r.rname), str(r.rdata)) for r in read.rr] == [
        ("outside.default.svc.cluster.local.", "www.example.org."),
        ("www.example.org.", "192.0.2.1"),
    ]
