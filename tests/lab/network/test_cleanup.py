"""What the stack made is taken away, what others made stays."""

from __future__ import annotations

import sys

import pytest

from tests.lab.network.hosts import ROOT, Lab, run
from tests.unit.proxy.objects import endpoint, service_document, slice_document

pytestmark = pytest.mark.lab


def test_a_node_without_pods_reaches_services_all_the_same(network: Lab) -> None:
    """Its bridge has no port, so the link is down as far as the kernel is concerned."""
    n2 = network.nodes[1]
    network.outside.serve("master", 6443)
    ports = [{"name": "https", "port": 6443}]
    network.put("endpointslices", slice_document([endpoint("192.168.77.100", "")], service="api", ports=ports))
    network.put("services", service_document("api", "10.96.0.1", ports=[{"name": "https", "port": 443}]))
    network.in_force()
    assert "NO-CARRIER" in n2.ns.run("ip", "link", "show", "kyb0")
    assert n2.ns.ask("10.96.0.1", 443) == f"master {n2.address}"
    assert n2.ns.run("dig", "@10.96.0.10", "+short", "api.default.svc.cluster.local") == "10.96.0.1\n"


def test_nothing_of_ours_is_left_and_everything_else_is(network: Lab) -> None:
    n1 = network.nodes[0]
    _, a_ip = network.pod("a", n1)
    network.put("endpointslices", slice_document([endpoint(a_ip)]))
    network.put("services", service_document())
    network.in_force()
    ns = n1.ns
    ns.run("iptables", "-N", "THEIRS")
    ns.run("iptables", "-A", "FORWARD", "-j", "THEIRS")
    ns.run("ip", "route", "add", "203.0.113.0/24", "via", "192.168.77.100")
    ns.run("ip", "link", "add", "theirs0", "type", "bridge")
    n1.kill()
    # As `kybern-node` would be asked to: in a process of its own, and twice.
    for _ in range(2):
        run("nsenter", f"--net={ns.path}", "env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "node.network.cleanup")
        rules, links, routes = ns.run("iptables-save"), ns.run("ip", "link"), ns.run("ip", "route")
        assert "KYB-" not in rules
        assert "kyb0" not in links
        assert "kyv" not in links
        assert "10.244." not in routes
        assert "10.96." not in routes
        assert "THEIRS" in rules
        assert "theirs0" in links
        assert "203.0.113.0/24" in routes
    # And it all comes back.
    n1.start()
    n1.ready()
    b, _ = network.pod("b", n1)
    assert "10.96.0.20" in n1.rules()
    assert b.run("ip", "route").startswith("default via 10.244.1.1")
