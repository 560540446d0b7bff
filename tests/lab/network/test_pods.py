"""Pods on two nodes, real packets: who reaches whom, and as whom."""

from __future__ import annotations

import socket
import statistics

import pytest

from tests.lab.network.hosts import ECHO_PORT, Lab, Namespace, eventually, node_document

pytestmark = pytest.mark.lab


def ask(client: Namespace, address: str) -> str:
    return client.ask(address, ECHO_PORT)


def test_pods_reach_each_other_on_the_same_node_and_across_under_their_own_address(network: Lab) -> None:
    n1, n2 = network.nodes
    a, a_ip = network.pod("a", n1)
    b, b_ip = network.pod("b", n1)
    c, c_ip = network.pod("c", n2)
    for client, own in ((a, a_ip), (b, b_ip), (c, c_ip)):
        for name, address in (("a", a_ip), ("b", b_ip), ("c", c_ip)):
            assert ask(client, address) == f"{name} {own if address != own else address}"
            assert client.ask(address, ECHO_PORT, udp=True).startswith(name)
    # Nodes reach pods and are reached by them, without translation.
    n1.ns.serve("n1", 9000)
    n2.ns.serve("n2", 9000)
    assert ask(n1.ns, a_ip).startswith("a ")
    assert ask(n1.ns, c_ip) == f"c {n1.address}"
    assert a.ask(n1.address, 9000) == f"n1 {a_ip}"
    assert a.ask(n2.address, 9000) == f"n2 {a_ip}"


def test_pods_leave_the_cluster_under_their_nodes_address(network: Lab) -> None:
    n1, n2 = network.nodes
    a, _ = network.pod("a", n1)
    c, _ = network.pod("c", n2)
    network.outside.serve("outside")
    assert ask(a, "192.168.77.100") == f"outside {n1.address}"
    assert ask(c, "192.168.77.100") == f"outside {n2.address}"


def test_packets_are_as_large_as_the_link_takes(network: Lab) -> None:
    n1, n2 = network.nodes
    a, _ = network.pod("a", n1)
    _, c_ip = network.pod("c", n2)
    assert "mtu 1500" in a.run("ip", "link", "show", "eth0")
    with a.socket(socket.SOCK_DGRAM) as sock:
        # IP_MTU_DISCOVER, IP_PMTUDISC_DO: no fragments.
        sock.setsockopt(socket.IPPROTO_IP, 10, 2)
        sock.settimeout(2)
        sock.connect((c_ip, ECHO_PORT))
        sock.send(bytes(1500 - 28))
        assert sock.recv(100).startswith(b"c ")
        with pytest.raises(OSError, match="too long"):
            sock.send(bytes(1500 - 27))


def test_a_bridge_whose_frames_are_not_handed_to_iptables_routes_all_the_same(network: Lab) -> None:
    n1 = network.nodes[0]
    a, _ = network.pod("a", n1)
    _, b_ip = network.pod("b", n1)
    for value in ("0", "1"):
        n1.ns.sysctl("net/bridge/bridge-nf-call-iptables", value)
        assert ask(a, b_ip).startswith("b ")


def test_a_docker_engines_policy_does_not_keep_pods_apart(network: Lab) -> None:
    n1, n2 = network.nodes
    a, _ = network.pod("a", n1)
    _, c_ip = network.pod("c", n2)
    n1.ns.run("iptables", "-P", "FORWARD", "DROP")
    n1.ns.run("iptables", "-N", "DOCKER-USER")
    n1.ns.run("iptables", "-I", "FORWARD", "-j", "DOCKER-USER")
    assert ask(a, c_ip).startswith("c ")
    assert network.pods["c"][0].ask(network.pods["a"][1], ECHO_PORT).startswith("a ")


def test_wiring_is_idempotent_and_survives_a_restart(network: Lab) -> None:
    n1 = network.nodes[0]
    d, d_ip = network.pod("d", n1)
    assert n1.attach("sandbox-d", d)[0] == d_ip
    before = n1.addresses()
    assert before["sandbox-d"] == d_ip
    n1.kill()
    assert ask(network.pods["a"][0], d_ip).startswith("d ")
    n1.start()
    n1.ready()
    assert n1.addresses() == before
    assert n1.attach("sandbox-d", d)[0] == d_ip
    assert ask(network.pods["a"][0], d_ip).startswith("d ")


def test_a_half_wired_pod_is_completed_and_a_new_namespace_is_wired_anew(network: Lab) -> None:
    n1 = network.nodes[0]
    e, e_ip = network.pod("e", n1)
    # As if the agent had died between making the link and addressing it.
    e.run("ip", "addr", "flush", "dev", "eth0")
    assert n1.attach("sandbox-e", e)[0] == e_ip
    assert e.ask(network.pods["a"][1], ECHO_PORT).startswith("a ")
    # The sandbox was started again: its namespace is another one.
    f = network.namespace("f")
    f_ip, _ = n1.attach("sandbox-e", f)
    f.serve("f")
    assert n1.addresses()["sandbox-e"] == f_ip
    assert ask(network.pods["a"][0], f_ip).startswith("f ")


def test_addresses_are_given_back_and_not_reused_at_once(network: Lab) -> None:
    n1 = network.nodes[0]
    given: list[str] = []
    for _ in range(3):
        namespace = network.namespace(f"short{len(given)}")
        given.append(n1.attach("sandbox-short", namespace)[0])
        n1.detach("sandbox-short")
        n1.detach("sandbox-short")
        assert "sandbox-short" not in n1.addresses()
    assert len(set(given)) == 3


def test_a_pod_whose_namespace_is_gone_is_gone(network: Lab) -> None:
    n1 = network.nodes[0]
    namespace = network.namespace("dying")
    n1.attach("sandbox-dying", namespace)
    namespace.delete()
    eventually(lambda: "sandbox-dying" not in n1.addresses())
    n1.detach("sandbox-dying")


def test_a_namespace_that_does_not_exist_is_an_error_that_says_so(network: Lab) -> None:
    n1 = network.nodes[0]
    gone = network.namespace("gone")
    gone.delete()
    with pytest.raises(RuntimeError, match="sandbox-gone: cannot open the namespace"):
        n1.attach("sandbox-gone", gone)
    assert "sandbox-gone" not in n1.addresses()


def test_routes_follow_the_nodes(network: Lab) -> None:
    n1 = network.nodes[0]
    n1.put("nodes", node_document("n3", "192.168.77.13", "10.244.3.0/24"))
    eventually(lambda: "10.244.3.0/24 via 192.168.77.13 dev eth0 proto 75" in n1.ns.run("ip", "route"))
    n1.put("nodes", node_document("n3", "192.168.77.14", "10.244.3.0/24"))
    eventually(lambda: "10.244.3.0/24 via 192.168.77.14" in n1.ns.run("ip", "route"))
    # A node behind a router cannot be reached directly.
    n1.ns.run("ip", "route", "add", "192.0.2.0/24", "via", "192.168.77.100")
    n1.put("nodes", node_document("n4", "192.0.2.4", "10.244.4.0/24"))
    eventually(lambda: "10.244.4.0/24 cannot be reached" in n1.log())
    assert "10.244.4.0/24" not in n1.ns.run("ip", "route")
    n1.remove("nodes", "n3")
    eventually(lambda: "10.244.3.0/24" not in n1.ns.run("ip", "route"))


def test_a_bridge_that_somebody_deleted_comes_back_with_its_pods(network: Lab) -> None:
    n1 = network.nodes[0]
    a, _ = network.pod("a", n1)
    _, b_ip = network.pod("b", n1)
    n1.ns.run("ip", "link", "del", "kyb0")
    # Any change of a node makes it look; by itself it looks every half minute.
    n1.put("nodes", node_document("n5", "192.168.77.15", "10.244.5.0/24"))
    eventually(lambda: ask(a, b_ip).startswith("b "), 10)
    eventually(lambda: "10.96.0.10" in n1.ns.run("ip", "addr", "show", "kyb0"))


def test_wiring_is_fast(network: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    n2 = network.nodes[1]
    seconds = []
    for number in range(20):
        namespace = network.namespace(f"fast{number}")
        seconds.append(n2.attach(f"sandbox-fast{number}", namespace)[1])
    with capsys.disabled():
        print(f"\nwiring a pod: median {statistics.median(seconds) * 1000:.1f} ms, worst {max(seconds) * 1000:.1f} ms")
    assert len(n2.addresses()) >= 20
