"""The zone against a flat list of records, and the responder against arbitrary packets."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

import dnslib
import hypothesis.strategies as st
from hypothesis import given, settings

from node.dns import wire
from node.dns.directory import InformerDirectory
from node.dns.records import Labels, Rcode, Record, Srv, Type, labels_of
from node.dns.responder import Responder
from node.dns.zone import Zone
from tests.unit.dns.cluster import MemoryDirectory, pod
from tests.unit.proxy.objects import SETTINGS, service_document, slice_document

DOMAIN = "cluster.local"
Flat = dict[tuple[str, Type], set[str]]

names = st.sampled_from(["a", "b", "c-1"])
namespaces = st.sampled_from(["default", "prod"])
kinds = st.sampled_from(["ClusterIP", "headless", "headless with all"])
pods = st.lists(
    st.builds(
        lambda n, host, ready: pod(f"10.244.1.{n}", host, ready=ready),
        st.integers(2, 9),
        st.sampled_from(["", "h-0", "h-1"]),
        st.booleans(),
    ),
    max_size=4,
    unique_by=lambda p: p["addresses"][0],
)


@st.composite
def clusters(draw: st.DrawFn) -> tuple[MemoryDirectory, Flat, set[str]]:
    """A cluster, its records as the specification lists them, and the names that exist without any."""
    flat: Flat = defaultdict(set)
    flat[f"dns-version.{DOMAIN}", Type.TXT].add("1.1.0")
    flat[f"ns.dns.{DOMAIN}", Type.A].add(str(SETTINGS.dns))
    flat[DOMAIN, Type.NS].add(f"ns.dns.{DOMAIN}")
    exist = {f"svc.{DOMAIN}", f"pod.{DOMAIN}"}
    services, slices = [], []
    for number, (name, namespace) in enumerate(sorted(draw(st.sets(st.tuples(names, namespaces), max_size=4)))):
        kind, members = draw(kinds), draw(pods)
        own = f"{name}.{namespace}.svc.{DOMAIN}"
        ip = "None" if kind != "ClusterIP" else f"10.96.0.{20 + number}"
        everybody = kind == "headless with all"
        ports: list[dict[str, Any]] = [{"name": "http", "port": 80}, {"port": 81}]
        services.append(
            service_document(name, ip, namespace=namespace, ports=ports, publishNotReadyAddresses=everybody)
        )
        slices.append(
            slice_document(members, service=name, namespace=namespace, ports=[{"name": "http", "port": 8080}])
        )
        exist.add(f"{namespace}.svc.{DOMAIN}")
        if kind == "ClusterIP":
            flat[own, Type.A].add(ip)
            flat[f"_http._tcp.{own}", Type.SRV].add(f"80 {own}")
            flat[own, Type.SRV].add(f"80 {own}")
            exist.add(f"_tcp.{own}")
            published = [p for p in members if p["conditions"]["ready"]]
        else:
            published = [p for p in members if p["conditions"]["ready"] or everybody]
            # The port is named, so something can be below this name.
            exist.add(f"_tcp.{own}")
        for member in published:
            address = member["addresses"][0]
            host = member.get("hostname") or address.replace(".", "-")
            flat[f"{host}.{own}", Type.A].add(address)
            if kind != "ClusterIP":
                flat[own, Type.A].add(address)
                flat[f"_http._tcp.{own}", Type.SRV].add(f"8080 {host}.{own}")
                flat[own, Type.SRV].add(f"8080 {host}.{own}")
    return MemoryDirectory(services, slices), flat, exist


def text(record: Record) -> str:
    data = record.data
    if isinstance(data, Srv):
        return f"{data.port} {'.'.join(data.target)}"
    return str(data) if isinstance(data, str | IPv4Address) else ".".join(data)


def candidates(flat: Mapping[tuple[str, Type], Any], exist: set[str]) -> list[str]:
    """Every name that has something, their parents, and neighbours that have nothing."""
    known = {name for name, _ in flat} | exist
    parents = {name.split(".", 1)[1] for name in known if name != DOMAIN}
    others = {f"x.{name}" for name in known} | {f"nobody.default.svc.{DOMAIN}", f"_udp.a.default.svc.{DOMAIN}"}
    # Below `pod` any namespace will do: the node does not know them all.
    return sorted(n for n in known | parents | others if n.endswith(DOMAIN) and not n.endswith(f".pod.{DOMAIN}"))


@settings(max_examples=200, deadline=None)
@given(clusters())
def test_the_zone_has_exactly_the_records_of_the_specification(
    cluster: tuple[MemoryDirectory, Flat, set[str]],
) -> None:
    directory, flat, exist = cluster
    zone = Zone(SETTINGS, directory)
    owners = {name for name, _ in flat} | exist
    headless = {f"{key.name}.{key.namespace}.svc.{DOMAIN}" for key, s in directory.services.items() if s.spec.headless}
    for name in candidates(flat, exist):
        for kind in (Type.A, Type.AAAA, Type.SRV, Type.TXT, Type.NS):
            answer = zone.lookup(labels_of(name), kind)
            assert answer is not None
            assert {text(r) for r in answer.answers} == flat.get((name, kind), set()), (name, kind)
            if answer.answers or name in headless:
                # A headless Service without anybody ready does not exist, though there may be names below it.
                continue
            exists = any(owner == name or owner.endswith("." + name) for owner in owners)
            assert answer.rcode is (Rcode.NOERROR if exists else Rcode.NXDOMAIN), (name, kind)


class _Directory(MemoryDirectory, InformerDirectory):
    """Never changes."""

    is_complete = True

    def on_change(self, handler: Any) -> None:
        pass


class _Nobody:
    def cached(self, query: bytes, *, tcp: bool) -> bytes | None:
        return None

    async def ask(self, query: bytes, *, tcp: bool) -> bytes | None:
        return None


def responder() -> Responder:
    directory = _Directory(
        [service_document("a", "None", namespace="prod", ports=[{"name": "http", "port": 80}])],
        [slice_document([pod(f"10.244.1.{n}") for n in range(2, 200)], service="a", namespace="prod")],
    )
    return Responder(Zone(SETTINGS, directory), directory, _Nobody())


# Bytes that the library on the reading side takes, dots among them.
label = st.binary(min_size=1, max_size=63).map(lambda data: bytes(byte & 0x7F for byte in data))
asked = st.one_of(
    st.sampled_from(["a.prod.svc.cluster.local", "_http._tcp.a.prod.svc.cluster.local", "x.cluster.local"]).map(
        lambda name: [part.encode() for part in name.split(".")]
    ),
    st.lists(label, max_size=3).map(lambda labels: [*labels, b"cluster", b"local"]),
)


def packet(labels: list[bytes], kind: int, flags: int, edns: int | None) -> bytes:
    head = b"\x12\x34" + flags.to_bytes(2, "big") + b"\0\1\0\0\0\0" + (b"\0\1" if edns is not None else b"\0\0")
    question = b"".join(bytes([len(part)]) + part for part in labels) + b"\0" + kind.to_bytes(2, "big") + b"\0\1"
    return head + question + (b"" if edns is None else b"\0\0\x29" + edns.to_bytes(2, "big") + b"\0" * 6)


@settings(max_examples=300, deadline=None)
@given(asked, st.sampled_from([1, 2, 6, 12, 16, 28, 33, 255, 65535]), st.none() | st.integers(0, 65535), st.booleans())
def test_every_question_gets_an_answer_that_fits_and_can_be_read(
    labels: list[bytes], kind: int, edns: int | None, tcp: bool
) -> None:
    data = packet(labels, kind, 0x0100, edns)
    answers = responder()
    for _ in range(2):  # anew, and from the cache
        answer = answers.answer_now(data, tcp=tcp)
        assert isinstance(answer, bytes)
        assert len(answer) <= (65535 if tcp else 512 if edns is None else max(512, min(edns, 1232)))
        assert answer[:2] == data[:2]
        assert wire.question_of(answer) == wire.question_of(data)
        read = dnslib.DNSRecord.parse(answer)
        assert read.header.qr == 1
        assert read.rr or read.auth or read.header.tc or read.header.rcode in (Rcode.FORMERR, Rcode.REFUSED)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=80) | st.builds(packet, asked, st.integers(0, 65535), st.integers(0, 65535), st.none()))
def test_no_packet_is_too_strange(data: bytes) -> None:
    answer = responder().answer_now(data, tcp=False)
    if isinstance(answer, bytes):
        assert answer[:2] == data[:2]
        assert answer[2] & 0x80
        if answer.isascii() or all(byte < 0x80 for byte in data[12:]):
            dnslib.DNSRecord.parse(answer)
    elif answer is not None:
        # Somebody else's name: handed on.
        assert answer.name[-2:] != ("cluster", "local")
    else:
        assert len(data) < 12 or data[2] & 0x80


@given(st.binary(max_size=200))
def test_no_answer_of_an_upstream_is_too_strange(data: bytes) -> None:
    query = wire.parse_query(packet([b"a"], 1, 0x0100, None))
    assert wire.is_answer_to(query.data, data) in (True, False)
    labels: Labels = ("a",)
    with contextlib.suppress(dnslib.DNSError, ValueError):
        wire.encode_alias(query, [Record(labels, Type.CNAME, ("b",))], data, 512)
