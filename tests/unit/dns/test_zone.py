"""The zone against the Kubernetes DNS specification, name by name."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from node.dns.records import Answer, Rcode, Srv, Type, labels_of
from node.dns.zone import Zone
from tests.unit.dns.cluster import cluster
from tests.unit.proxy.objects import SETTINGS


def lookup(name: str, kind: Type = Type.A) -> Answer | None:
    return Zone(SETTINGS, cluster()).lookup(labels_of(name), kind)


def found(answer: Answer | None) -> list[str]:
    """The data of the answers as text."""
    assert answer is not None
    texts = []
    for record in answer.answers:
        data = record.data
        if isinstance(data, Srv):
            texts.append(f"{data.port} {'.'.join(data.target)}")
        else:
            texts.append(str(data) if isinstance(data, str | IPv4Address) else ".".join(data))
    return texts


def state(answer: Answer | None) -> str:
    if answer is None:
        return "not ours"
    return "found" if answer.answers else "NODATA" if answer.rcode is Rcode.NOERROR else answer.rcode.name


@pytest.mark.parametrize(
    ("name", "kind", "want"),
    [
        ("kubernetes.default.svc.cluster.local", Type.A, ["10.96.0.1"]),
        ("WEB.Default.SVC.cluster.LOCAL.", Type.A, ["10.96.0.20"]),
        ("db.prod.svc.cluster.local", Type.A, ["10.244.1.6", "10.244.2.6", "10.244.2.7"]),
        ("db-0.db.prod.svc.cluster.local", Type.A, ["10.244.1.6"]),
        ("10-244-2-7.db.prod.svc.cluster.local", Type.A, ["10.244.2.7"]),
        ("early.prod.svc.cluster.local", Type.A, ["10.244.1.9"]),
        ("10-244-9-9.default.pod.cluster.local", Type.A, ["10.244.9.9"]),
        ("192-168-7-11.default.pod.cluster.local", Type.A, ["192.168.7.11"]),
        ("outside.default.svc.cluster.local", Type.CNAME, ["www.example.org"]),
        ("_https._tcp.kubernetes.default.svc.cluster.local", Type.SRV, ["443 kubernetes.default.svc.cluster.local"]),
        ("_dns._udp.web.default.svc.cluster.local", Type.SRV, ["53 web.default.svc.cluster.local"]),
        (
            "_sql._tcp.db.prod.svc.cluster.local",
            Type.SRV,
            [
                "15432 10-244-2-7.db.prod.svc.cluster.local",
                "15432 db-0.db.prod.svc.cluster.local",
                "15432 db-1.db.prod.svc.cluster.local",
            ],
        ),
        (
            "web.default.svc.cluster.local",
            Type.SRV,
            ["80 web.default.svc.cluster.local", "53 web.default.svc.cluster.local"],
        ),
        ("20.0.96.10.in-addr.arpa", Type.PTR, ["web.default.svc.cluster.local"]),
        ("6.1.244.10.in-addr.arpa", Type.PTR, ["db-0.db.prod.svc.cluster.local"]),
        ("5.1.244.10.in-addr.arpa", Type.PTR, ["10-244-1-5.web.default.svc.cluster.local"]),
        ("dns-version.cluster.local", Type.TXT, ["1.1.0"]),
        ("cluster.local", Type.NS, ["ns.dns.cluster.local"]),
        ("ns.dns.cluster.local", Type.A, ["10.96.0.10"]),
    ],
)
def test_records(name: str, kind: Type, want: list[str]) -> None:
    assert found(lookup(name, kind)) == want


@pytest.mark.parametrize(
    ("name", "kind", "want"),
    [
        # The name exists, but has no record of this type.
        ("web.default.svc.cluster.local", Type.AAAA, "NODATA"),
        ("db.prod.svc.cluster.local", Type.AAAA, "NODATA"),
        ("10-244-9-9.default.pod.cluster.local", Type.AAAA, "NODATA"),
        ("pending.default.svc.cluster.local", Type.A, "NODATA"),
        ("web.default.svc.cluster.local", Type.TXT, "NODATA"),
        # Nothing at the name, but something below it.
        ("cluster.local", Type.A, "NODATA"),
        ("svc.cluster.local", Type.A, "NODATA"),
        ("default.svc.cluster.local", Type.A, "NODATA"),
        ("_tcp.web.default.svc.cluster.local", Type.A, "NODATA"),
        ("_udp.web.default.svc.cluster.local", Type.SRV, "NODATA"),
        ("default.pod.cluster.local", Type.A, "NODATA"),
        # No such name.
        ("nowhere.default.svc.cluster.local", Type.A, "NXDOMAIN"),
        ("web.nowhere.svc.cluster.local", Type.A, "NXDOMAIN"),
        ("nowhere.svc.cluster.local", Type.A, "NXDOMAIN"),
        ("web.default.svc.cluster.local.default.svc.cluster.local", Type.A, "NXDOMAIN"),
        ("www.example.org.default.svc.cluster.local", Type.AAAA, "NXDOMAIN"),
        ("web.default.cluster.local", Type.A, "NXDOMAIN"),
        ("web.cluster.local", Type.A, "NXDOMAIN"),
        ("_ftp._tcp.web.default.svc.cluster.local", Type.SRV, "NXDOMAIN"),
        ("_http._udp.web.default.svc.cluster.local", Type.SRV, "NXDOMAIN"),
        ("_sctp.web.default.svc.cluster.local", Type.SRV, "NXDOMAIN"),
        ("empty.prod.svc.cluster.local", Type.A, "NXDOMAIN"),
        ("db-2.db.prod.svc.cluster.local", Type.A, "NXDOMAIN"),
        ("x.db-0.db.prod.svc.cluster.local", Type.A, "NXDOMAIN"),
        ("1-2-3-4.default.pod.cluster.local", Type.A, "NXDOMAIN"),
        ("10-244-999-9.default.pod.cluster.local", Type.A, "NXDOMAIN"),
        ("99.0.96.10.in-addr.arpa", Type.PTR, "NXDOMAIN"),
        ("99.9.244.10.in-addr.arpa", Type.PTR, "NXDOMAIN"),
        # Somebody else's.
        ("www.example.org", Type.A, "not ours"),
        ("local", Type.A, "not ours"),
        ("notcluster.local", Type.A, "not ours"),
        ("1.2.0.192.in-addr.arpa", Type.PTR, "not ours"),
        ("", Type.NS, "not ours"),
    ],
)
def test_names_without_records(name: str, kind: Type, want: str) -> None:
    assert state(lookup(name, kind)) == want


def test_an_external_name_is_an_alias_for_every_type() -> None:
    for kind in (Type.A, Type.AAAA, Type.TXT):
        answer = lookup("outside.default.svc.cluster.local", kind)
        assert answer is not None
        assert answer.alias == ("www", "example", "org")
        assert [r.type for r in answer.answers] == [Type.CNAME]


def test_srv_answers_bring_the_addresses_along() -> None:
    answer = lookup("_sql._tcp.db.prod.svc.cluster.local", Type.SRV)
    assert answer is not None
    assert {str(r.data) for r in answer.additional} == {"10.244.1.6", "10.244.2.6", "10.244.2.7"}


def test_answers_know_what_they_were_made_from() -> None:
    for name, kind, tag in (
        ("db-0.db.prod.svc.cluster.local", Type.A, "service prod/db"),
        ("new.default.svc.cluster.local", Type.A, "service default/new"),
        ("nowhere.svc.cluster.local", Type.A, "namespace nowhere"),
        ("99.0.96.10.in-addr.arpa", Type.PTR, "address 10.96.0.99"),
    ):
        answer = lookup(name, kind)
        assert answer is not None
        assert answer.tags == {tag}


def test_a_headless_services_own_name_is_preferred_for_an_address() -> None:
    directory = cluster()
    zone = Zone(SETTINGS, directory)
    web_and_db = directory.all_slices[0]
    assert [str(a) for e in web_and_db.endpoints for a in e.addresses] == ["10.244.1.5"]
    answer = zone.lookup(labels_of("6.1.244.10.in-addr.arpa"), Type.PTR)
    assert found(answer) == ["db-0.db.prod.svc.cluster.local"]
    assert zone.owns(labels_of("9.9.244.10.in-addr.arpa"))
    assert not zone.owns(labels_of("9.9.9.9.in-addr.arpa"))
    assert IPv4Address("10.244.9.9") in SETTINGS.pods
