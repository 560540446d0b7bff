"""What is remembered, and until when."""

from __future__ import annotations

import asyncio

import dnslib

from kybern.clock import LoopClock, run_virtual
from node.dns.cache import LONGEST, Entry, ForwardCache, ZoneCache, lifetime
from node.dns.records import Rcode, Type


def reply(*ttls: int, rcode: Rcode = Rcode.NOERROR, soa: tuple[int, int] | None = None) -> bytes:
    record = dnslib.DNSRecord.question("www.example.org").reply()
    record.header.rcode = rcode
    for ttl in ttls:
        record.add_answer(dnslib.RR("www.example.org", Type.A, 1, ttl, dnslib.A("192.0.2.1")))
    if soa is not None:
        record.add_auth(dnslib.RR("example.org", Type.SOA, 1, soa[0], dnslib.SOA("a", "b", (1, 2, 3, 4, soa[1]))))
    record.add_ar(dnslib.EDNS0(udp_len=1232))
    return bytes(record.pack())


def test_a_change_forgets_what_was_made_from_it_and_nothing_else() -> None:
    cache = ZoneCache()
    cache.put(b"one", Entry([b"1"], frozenset({"service a/x"})))
    cache.put(b"two", Entry([b"2"], frozenset({"service a/x", "namespace a"})))
    cache.put(b"three", Entry([b"3"], frozenset({"service a/y"})))
    cache.forget(["namespace a", "service nobody/knows"])
    assert (cache.get(b"one") is not None, cache.get(b"two"), len(cache)) == (True, None, 2)
    cache.forget(["service a/x"])
    assert cache.get(b"one") is None
    assert cache.get(b"three") is not None


def test_the_number_of_answers_is_bounded() -> None:
    cache = ZoneCache(10)
    for number in range(100):
        cache.put(str(number).encode(), Entry([b""], frozenset({"tag"})))
    assert len(cache) == 10
    assert cache.get(b"99") is not None
    cache.forget(["tag"])
    assert len(cache) == 0


def test_the_orders_take_turns() -> None:
    entry = Entry([b"a", b"b", b"c"], frozenset())
    assert sorted(entry.next() for _ in range(6)) == [b"a", b"a", b"b", b"b", b"c", b"c"]


def test_lifetimes() -> None:
    def seconds(packet: bytes) -> int | None:
        found = lifetime(packet)
        return None if found is None else found[0]

    assert seconds(reply(20, 10)) == 10
    assert seconds(reply(86400)) == LONGEST
    assert seconds(reply(0)) == 0
    # A "no" is believed for as long as the zone's SOA says, and not at all without one.
    assert seconds(reply(rcode=Rcode.NXDOMAIN, soa=(900, 7))) == 7
    assert seconds(reply(soa=(3, 900))) == 3
    assert seconds(reply(soa=(900, 900))) == 10
    assert seconds(reply()) is None
    assert seconds(reply(20, rcode=Rcode.SERVFAIL)) is None
    truncated = bytearray(reply(20))
    truncated[2] |= 2
    assert seconds(bytes(truncated)) is None
    for length in range(len(reply(20)) - 1):
        assert seconds(reply(20)[:length]) is None


def test_ttls_are_counted_down_and_the_answer_ends_with_them() -> None:
    async def main() -> None:
        cache = ForwardCache(LoopClock())
        cache.put(b"q", reply(20, 25, soa=(600, 600)))
        await asyncio.sleep(7.5)
        kept = cache.get(b"q")
        assert kept is not None
        read = dnslib.DNSRecord.parse(b"\0\0" + kept)
        assert [r.ttl for r in read.rr] == [13, 18]
        assert [r.ttl for r in read.auth] == [593]
        await asyncio.sleep(12.6)
        assert cache.get(b"q") is None
        assert len(cache) == 0

    run_virtual(main())


def test_the_number_of_forwarded_answers_is_bounded() -> None:
    async def main() -> None:
        cache = ForwardCache(LoopClock(), 5)
        for number in range(50):
            cache.put(str(number).encode(), reply(20))
        assert len(cache) == 5
        cache.put(b"failure", reply(20, rcode=Rcode.SERVFAIL))
        assert cache.get(b"failure") is None

    run_virtual(main())
