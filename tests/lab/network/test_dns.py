"""The cluster DNS in its place: asked from pods and nodes with dig, on the address of the Service."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from functools import partial

import dnslib
import pytest

from tests.lab.network.hosts import NETWORK, Lab, Namespace, eventually
from tests.unit.dns.cluster import SERVICES, SLICES
from tests.unit.proxy.objects import endpoint, service_document, slice_document

pytestmark = pytest.mark.lab

SERVER = "@10.96.0.10"


@pytest.fixture(scope="module", autouse=True)
def names(network: Lab) -> Iterator[None]:
    """The cluster's Services, and a name server outside that knows one name."""
    network.put("endpointslices", *SLICES)
    network.put("services", *SERVICES)
    dns = service_document(
        "kube-dns",
        "10.96.0.10",
        namespace="kube-system",
        ports=[{"name": "dns", "port": 53, "protocol": "UDP"}],
        annotations={"kybern.io/node-local": "true"},
    )
    network.put("services", dns)
    network.in_force()
    server = network.outside.socket(socket.SOCK_DGRAM, (f"{NETWORK}.100", 53))
    threading.Thread(target=_outside, args=(server,), daemon=True).start()
    network.pod("a", network.nodes[0])
    network.pod("c", network.nodes[1])
    yield
    server.close()


def _outside(server: socket.socket) -> None:
    while True:
        try:
            data, client = server.recvfrom(2000)
        except OSError:
            return
        if not data:
            continue
        record = dnslib.DNSRecord.parse(data)
        reply = record.reply()
        reply.add_answer(dnslib.RR(record.q.qname, 1, 1, 60, dnslib.A("192.0.2.1")))
        server.sendto(bytes(reply.pack()), client)


def dig(where: Namespace, *arguments: str) -> list[str]:
    """The short answer, line by line."""
    return where.run("dig", SERVER, "+short", "+tries=1", "+time=3", *arguments, check=False).split("\n")[:-1]


def status(where: Namespace, *arguments: str) -> str:
    """The status in dig's header."""
    output = where.run("dig", SERVER, "+tries=1", "+time=3", *arguments, check=False)
    return output.partition("status: ")[2].partition(",")[0]


def test_pods_and_nodes_on_both_nodes_get_answers(network: Lab) -> None:
    for where in (network.pods["a"][0], network.pods["c"][0], network.nodes[0].ns, network.nodes[1].ns):
        for transport in ("+notcp", "+tcp"):
            assert dig(where, transport, "web.default.svc.cluster.local") == ["10.96.0.20"]
            assert status(where, transport, "nowhere.default.svc.cluster.local") == "NXDOMAIN"
        assert dig(where, "www.example.org") == ["192.0.2.1"]


def test_every_kind_of_record(network: Lab) -> None:
    a = network.pods["a"][0]
    assert dig(a, "_https._tcp.kubernetes.default.svc.cluster.local", "SRV") == [
        "0 100 443 kubernetes.default.svc.cluster.local."
    ]
    assert sorted(dig(a, "db.prod.svc.cluster.local")) == ["10.244.1.6", "10.244.2.6", "10.244.2.7"]
    assert dig(a, "-x", "10.96.0.20") == ["web.default.svc.cluster.local."]
    assert dig(a, "-x", "10.244.1.6") == ["db-0.db.prod.svc.cluster.local."]
    assert dig(a, "outside.default.svc.cluster.local") == ["www.example.org.", "192.0.2.1"]
    assert dig(a, "10-244-1-5.default.pod.cluster.local") == ["10.244.1.5"]
    assert dig(a, "dns-version.cluster.local", "TXT") == ['"1.1.0"']
    assert (dig(a, "web.default.svc.cluster.local", "AAAA"), status(a, "web.default.svc.cluster.local", "AAAA")) == (
        [],
        "NOERROR",
    )
    assert dig(a, "KUBERNETES.default.SVC.Cluster.Local") == ["10.96.0.1"]
    assert status(a, "cluster.local", "AXFR") == ""


def test_large_answers_come_over_tcp_by_themselves(network: Lab) -> None:
    many = [endpoint(f"10.244.9.{n}") for n in range(1, 251)]
    network.put("endpointslices", slice_document(many, service="many"))
    network.put("services", service_document("many", "None"))
    a = network.pods["a"][0]
    eventually(lambda: len(dig(a, "many.default.svc.cluster.local")) == 250)


def test_a_changed_endpoint_is_visible_at_once(network: Lab) -> None:
    a = network.pods["a"][0]
    network.put("services", service_document("moving", "None"))
    for address in ("10.244.1.77", "10.244.1.78"):
        network.put("endpointslices", slice_document([endpoint(address)], service="moving"))
        eventually(partial(_is_at, a, "moving.default.svc.cluster.local", address), 2)


def _is_at(where: Namespace, name: str, address: str) -> bool:
    return dig(where, name) == [address]


def test_it_is_no_open_resolver_for_the_neighbours(network: Lab) -> None:
    network.outside.run("ip", "route", "replace", "10.96.0.10/32", "via", network.nodes[0].address)
    output = network.outside.run("dig", SERVER, "+tries=1", "+time=1", "web.default.svc.cluster.local", check=False)
    assert "no servers could be reached" in output or "timed out" in output
    # It does listen on its one address, and on no other of the node.
    listening = network.nodes[0].ns.run("ss", "-lntu", "sport = :53")
    assert "10.96.0.10:53" in listening
    assert "0.0.0.0:53" not in listening
    assert f"{network.nodes[0].address}:53" not in listening


def test_an_agent_that_comes_back_serves_again(network: Lab) -> None:
    n1 = network.nodes[0]
    n1.kill()
    a = network.pods["a"][0]
    assert dig(a, "web.default.svc.cluster.local") != ["10.96.0.20"]
    n1.start()
    n1.ready()
    assert dig(a, "web.default.svc.cluster.local") == ["10.96.0.20"]
