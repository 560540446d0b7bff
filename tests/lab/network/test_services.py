"""Services with real packets: every door, every kind of client."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from tests.lab.network.hosts import ECHO_PORT, NETWORK, Lab, Namespace, Node, answers, eventually
from tests.unit.proxy.objects import endpoint, service_document, slice_document

pytestmark = pytest.mark.lab

WEB = "10.96.1.1"
OUTSIDE = f"{NETWORK}.100"
LOST = "somebody else"


class Services:
    """Makes Services of pods and takes them away again."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._made: list[str] = []

    def put(self, name: str, ip: str, pods: Sequence[str], **spec: Any) -> None:
        """A Service with these pods as its endpoints, on port 80 of TCP and UDP."""
        node_port = spec.pop("node_port", 0)
        protocols = spec.pop("protocols", ("TCP", "UDP"))
        states: dict[str, dict[str, bool]] = spec.pop("states", {})
        ports = [
            {"name": p.lower(), "port": 80, "protocol": p, **({"nodePort": node_port} if node_port else {})}
            for p in protocols
        ]
        endpoints = []
        for pod in pods:
            address = self.lab.pods[pod][1]
            node = "n1" if address.startswith("10.244.1.") else "n2"
            endpoints.append(endpoint(address, node, **states.get(pod, {})))
        offered = [{"name": p.lower(), "port": ECHO_PORT, "protocol": p} for p in protocols]
        self.lab.put("endpointslices", slice_document(endpoints, service=name, ports=offered))
        if node_port:
            spec.setdefault("type", "NodePort")
        self.lab.put("services", service_document(name, ip, ports=ports, **spec))
        self.lab.in_force()
        self._made.append(name)

    def remove_all(self) -> None:
        """Delete what was made."""
        for name in set(self._made):
            self.lab.remove("services", name, "default")
            self.lab.remove("endpointslices", f"{name}-1", "default")
        self.lab.in_force()


@pytest.fixture
def services(network: Lab) -> Iterator[Services]:
    n1, n2 = network.nodes
    for name, node in (("a", n1), ("b", n1), ("c", n2), ("client", n1)):
        network.pod(name, node)
    made = Services(network)
    yield made
    made.remove_all()


def reach(client: Namespace, address: str, port: int = 80, *, udp: bool = False) -> str:
    """The answer; the rules are in force by now."""
    return client.ask(address, port, udp=udp, timeout=1.0)


@pytest.mark.parametrize("bridged", ["0", "1"])
def test_pods_reach_a_service_under_their_own_address(services: Services, network: Lab, bridged: str) -> None:
    for node in network.nodes:
        node.ns.sysctl("net/bridge/bridge-nf-call-iptables", bridged)
    client, client_ip = network.pods["client"]
    services.put("web", WEB, ["a", "c"])
    for udp in (False, True):
        reach(client, WEB, udp=udp)
        seen = {client.ask(WEB, 80, udp=udp) for _ in range(40)}
        # One endpoint is on the client's node, the other is not; neither sees a translated address.
        assert seen == {f"a {client_ip}", f"c {client_ip}"}


@pytest.mark.parametrize("bridged", ["0", "1"])
def test_a_pod_that_is_its_own_endpoint_reaches_itself(services: Services, network: Lab, bridged: str) -> None:
    for node in network.nodes:
        node.ns.sysctl("net/bridge/bridge-nf-call-iptables", bridged)
    a, _ = network.pods["a"]
    services.put("web", WEB, ["a"])
    assert reach(a, WEB) == "a 10.244.1.1"
    assert a.ask(WEB, 80, udp=True) == "a 10.244.1.1"


def test_nodes_reach_services(services: Services, network: Lab) -> None:
    services.put("web", WEB, ["a", "c"])
    for node in network.nodes:
        reach(node.ns, WEB)
        assert set(answers(partial(node.ns.ask, WEB, 80), 30)) == {"a", "c"}
        assert node.ns.ask(WEB, 80, udp=True)


def test_a_service_of_hosts_outside_of_the_cluster(services: Services, network: Lab) -> None:
    """As `kubernetes.default`: its endpoints are masters, which have no routes to pods."""
    network.outside.serve("master", 6443)
    ports = [{"name": "https", "port": 6443}]
    network.put("endpointslices", slice_document([endpoint(OUTSIDE, LOST)], service="api", ports=ports))
    network.put("services", service_document("api", "10.96.0.1", ports=[{"name": "https", "port": 443}]))
    network.in_force()
    n1, n2 = network.nodes
    assert reach(n1.ns, "10.96.0.1", 443) == f"master {n1.address}"
    assert reach(network.pods["a"][0], "10.96.0.1", 443) == f"master {n1.address}"
    assert reach(network.pods["c"][0], "10.96.0.1", 443) == f"master {n2.address}"


def test_node_ports_answer_on_every_node_from_everywhere(services: Services, network: Lab) -> None:
    n1, n2 = network.nodes
    services.put("web", WEB, ["c"], node_port=30080)
    reach(network.outside, n1.address, 30080)
    reach(network.outside, n2.address, 30080)
    # The pod is on n2: there the client is seen, by way of n1 it is n1.
    assert network.outside.ask(n2.address, 30080) == f"c {OUTSIDE}"
    assert network.outside.ask(n1.address, 30080) == f"c {n1.address}"
    assert network.outside.ask(n1.address, 30080, udp=True) == f"c {n1.address}"
    for client in (n1.ns, n2.ns, network.pods["a"][0], network.pods["c"][0]):
        for node in (n1, n2):
            assert client.ask(node.address, 30080).startswith("c ")
    # Every address of the node, but no loopback address.
    assert n1.ns.ask("10.244.1.1", 30080).startswith("c ")
    with pytest.raises(ConnectionRefusedError):
        n1.ns.ask("127.0.0.1", 30080)


def test_node_ports_work_beside_a_docker_engines_policy(services: Services, network: Lab) -> None:
    n1 = network.nodes[0]
    n1.ns.run("iptables", "-P", "FORWARD", "DROP")
    try:
        services.put("web", WEB, ["a", "c"], node_port=30081)
        reach(network.outside, n1.address, 30081)
        assert set(answers(lambda: network.outside.ask(n1.address, 30081), 30)) == {"a", "c"}
    finally:
        n1.ns.run("iptables", "-P", "FORWARD", "ACCEPT")


def test_external_addresses_and_those_of_a_load_balancer(services: Services, network: Lab) -> None:
    n1 = network.nodes[0]
    services.put(
        "web",
        WEB,
        ["a", "c"],
        type="LoadBalancer",
        node_port=30082,
        externalIPs=["198.51.100.1"],
        ingress=[{"ip": "198.51.100.2"}],
        loadBalancerSourceRanges=["192.0.2.0/24"],
    )
    network.outside.run("ip", "route", "replace", "198.51.100.0/24", "via", n1.address)
    reach(network.outside, "198.51.100.1")
    assert set(answers(lambda: network.outside.ask("198.51.100.1", 80), 30)) == {"a", "c"}
    # The load balancer's address is open to another range alone, and silently closed to the rest.
    with pytest.raises(TimeoutError):
        network.outside.ask("198.51.100.2", 80, timeout=0.5)
    network.outside.run("ip", "addr", "add", "192.0.2.7/32", "dev", "lo")
    n1.ns.run("ip", "route", "replace", "192.0.2.7/32", "via", OUTSIDE)
    network.nodes[1].ns.run("ip", "route", "replace", "192.0.2.7/32", "via", OUTSIDE)
    network.outside.run("ip", "route", "replace", "198.51.100.2/32", "via", n1.address, "src", "192.0.2.7")
    assert network.outside.ask("198.51.100.2", 80).split()[0] in "ac"


def test_clients_stay_with_their_endpoint_when_the_service_says_so(services: Services, network: Lab) -> None:
    config = {"clientIP": {"timeoutSeconds": 60}}
    services.put("web", WEB, ["a", "b", "c"], sessionAffinity="ClientIP", sessionAffinityConfig=config, node_port=30083)
    client = network.pods["client"][0]
    first = reach(client, WEB).split()[0]
    assert set(answers(lambda: client.ask(WEB, 80), 20)) == {first}
    # UDP and TCP are two ports of the Service, each with its own memory; within one it holds.
    assert len(set(answers(lambda: client.ask(WEB, 80, udp=True), 20))) == 1
    # By the ClusterIP or by a NodePort: it is the client that is remembered.
    n1 = network.nodes[0]
    assert set(answers(lambda: client.ask(n1.address, 30083), 10)) == {first}
    # Others go elsewhere, and a change of other endpoints moves nobody.
    rest = [pod for pod in ("a", "b", "c") if pod != first]
    services.put(
        "web", WEB, [first, rest[0]], sessionAffinity="ClientIP", sessionAffinityConfig=config, node_port=30083
    )
    assert set(answers(lambda: client.ask(WEB, 80), 20)) == {first}
    services.put("web", WEB, rest, sessionAffinity="ClientIP", sessionAffinityConfig=config, node_port=30083)
    eventually(lambda: client.ask(WEB, 80).split()[0] in rest)
    second = client.ask(WEB, 80).split()[0]
    assert set(answers(lambda: client.ask(WEB, 80), 20)) == {second}


def test_a_udp_client_follows_when_its_endpoint_goes(services: Services, network: Lab) -> None:
    client = network.pods["client"][0]
    services.put("web", WEB, ["c"], node_port=30084)
    address = network.nodes[0].address
    assert reach(client, WEB, udp=True).startswith("c ")
    for _ in range(3):
        assert client.ask(WEB, 80, udp=True, source=5555).startswith("c ")
        assert network.outside.ask(address, 30084, udp=True, source=5556).startswith("c ")
    services.put("web", WEB, ["a"], node_port=30084)
    # The same client port all along: without clearing the flow it would talk to the old endpoint for ever.
    eventually(lambda: client.ask(WEB, 80, udp=True, source=5555).startswith("a "))
    eventually(lambda: network.outside.ask(address, 30084, udp=True, source=5556).startswith("a "))


def test_a_udp_client_that_was_there_before_the_node_port(services: Services, network: Lab) -> None:
    address = network.nodes[0].address
    network.nodes[0].ns.serve("the node itself", 30085)
    try:
        assert network.outside.ask(address, 30085, udp=True, source=5557).startswith("the")
        services.put("web", WEB, ["c"], node_port=30085)
        eventually(lambda: network.outside.ask(address, 30085, udp=True, source=5557).startswith("c "))
    finally:
        network.nodes[0].ns.silence()


def test_a_service_without_endpoints_refuses_at_once(services: Services, network: Lab) -> None:
    services.put("web", WEB, ["a"], node_port=30086)
    clients = [
        (network.pods["client"][0], WEB, 80),
        (network.nodes[0].ns, WEB, 80),
        (network.outside, network.nodes[0].address, 30086),
        (network.outside, network.nodes[1].address, 30086),
        (network.pods["client"][0], network.nodes[0].address, 30086),
    ]
    for client, address, port in clients:
        reach(client, address, port)
    services.put("web", WEB, ["a"], node_port=30086, states={"a": {"ready": False}})
    started = time.monotonic()
    for client, address, port in clients:
        assert _refuses(client, address, port)
    assert time.monotonic() - started < 3
    services.put("web", WEB, ["a"], node_port=30086)
    for client, address, port in clients:
        reach(client, address, port)


def _refuses(client: Namespace, address: str, port: int) -> bool:
    try:
        client.ask(address, port)
    except ConnectionRefusedError:
        return True
    return False


def test_unknown_service_addresses_and_ports_are_refused_at_once(services: Services, network: Lab) -> None:
    services.put("web", WEB, ["a"])
    client = network.pods["client"][0]
    reach(client, WEB)
    for asker in (client, network.nodes[1].ns):
        for address, port in (("10.96.200.200", 80), (WEB, 81)):
            with pytest.raises(ConnectionRefusedError):
                asker.ask(address, port)


def test_endpoints_that_end_serve_as_long_as_nobody_else_does(services: Services, network: Lab) -> None:
    client = network.pods["client"][0]
    ending = {"ready": False, "serving": True, "terminating": True}
    services.put("web", WEB, ["a", "c"], states={"a": ending})
    reach(client, WEB)
    assert set(answers(lambda: client.ask(WEB, 80), 20)) == {"c"}
    services.put("web", WEB, ["a", "c"], states={"a": ending, "c": {"ready": False}})
    eventually(lambda: client.ask(WEB, 80).startswith("a "))
    assert set(answers(lambda: client.ask(WEB, 80), 20)) == {"a"}


def test_local_policies(services: Services, network: Lab) -> None:
    n1, n2 = network.nodes
    services.put("web", WEB, ["c"], node_port=30087, externalTrafficPolicy="Local", internalTrafficPolicy="Local")
    reach(network.pods["c"][0], WEB)
    # Inside: the node without an endpoint has no Service.
    assert _refuses(network.pods["a"][0], WEB, 80)
    assert _refuses(n1.ns, WEB, 80)
    # Outside: the client is seen as it is, and a load balancer sees which node to leave out.
    assert reach(network.outside, n2.address, 30087) == f"c {OUTSIDE}"
    with pytest.raises(TimeoutError):
        network.outside.ask(n1.address, 30087, timeout=0.5)
    # Pods and the nodes themselves are not outside.
    assert network.pods["a"][0].ask(n1.address, 30087).startswith("c ")
    assert n1.ns.ask(n1.address, 30087).startswith("c ")


def test_the_rules_of_a_lost_node_go_as_soon_as_its_slices_say_so(services: Services, network: Lab) -> None:
    client = network.pods["client"][0]
    services.put("web", WEB, ["a", "c"])
    reach(client, WEB)
    started = time.monotonic()
    services.put("web", WEB, ["a", "c"], states={"c": {"ready": False, "serving": False}})
    eventually(lambda: network.pods["c"][1] not in network.nodes[0].rules())
    assert time.monotonic() - started < 2
    assert set(answers(lambda: client.ask(WEB, 80), 20)) == {"a"}


def test_an_agent_that_dies_leaves_its_rules_and_one_that_comes_back_does_not_touch_them(
    services: Services, network: Lab
) -> None:
    n1 = network.nodes[0]
    client = network.pods["client"][0]
    services.put("web", WEB, ["a", "c"], node_port=30088)
    services.put("other", "10.96.1.2", ["a"], sessionAffinity="ClientIP")
    services.put("sctp", "10.96.1.3", ["a"], protocols=("SCTP",))
    reach(client, WEB)
    reach(client, "10.96.1.2")
    before, handles = n1.rules(), _handles(n1)
    assert "-p sctp" in before
    n1.kill()
    assert client.ask(WEB, 80)
    assert n1.rules() == before
    n1.start()
    n1.ready()
    assert n1.rules() == before
    # Not even written anew: the rules' handles are the same.
    assert _handles(n1) == handles
    assert client.ask(WEB, 80)


def _handles(node: Node) -> list[str]:
    return re.findall(r"# handle \d+", node.ns.run("nft", "-a", "list", "table", "ip", "nat"))


def test_a_full_comparison_repairs_what_somebody_else_did(services: Services, network: Lab) -> None:
    n1 = network.nodes[0]
    client = network.pods["client"][0]
    services.put("web", WEB, ["a", "c"], node_port=30089)
    reach(client, WEB)
    time.sleep(3)
    # Comparing what it wrote with what iptables-save prints: no differences, so nothing to repair so far.
    assert "changed by somebody else" not in n1.log()
    before = n1.rules()
    n1.ns.run("iptables", "-t", "nat", "-F", "KYB-SERVICES")
    n1.ns.run("iptables", "-t", "nat", "-F", "PREROUTING")
    n1.ns.run("iptables", "-F", "FORWARD")
    assert not _works(client)
    eventually(lambda: _works(client), 10)
    eventually(lambda: n1.rules() == before, 5)
    assert "changed by somebody else: repaired" in n1.log()


def _works(client: Namespace) -> bool:
    try:
        return bool(client.ask(WEB, 80, timeout=0.5))
    except OSError:
        return False


def test_thousands_of_services(services: Services, network: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    n1 = network.nodes[0]
    client = network.pods["client"][0]
    count = 3000
    documents, slices = [], []
    for number in range(count):
        name, ip = f"many{number}", f"10.96.{100 + number // 250}.{number % 250 + 1}"
        documents.append(service_document(name, ip, ports=[{"port": 80, "name": "http"}]))
        slices.append(slice_document([endpoint(network.pods["a"][1]), endpoint("10.244.2.99", "n2")], service=name))
    started = time.monotonic()
    n1.put("endpointslices", *slices)
    n1.put("services", *documents)
    eventually(lambda: n1.ns.run("iptables-save", "-t", "nat").count("-A KYB-SVC-") >= 2 * count, 60)
    written = time.monotonic() - started
    started = time.monotonic()
    services.put("web", WEB, ["a"])
    reach(client, WEB)
    added = time.monotonic() - started
    with capsys.disabled():
        print(f"\n{count} services in force after {written:.1f} s; one more answers after {added * 1000:.0f} ms")
    for document in documents:
        n1.remove("services", document["metadata"]["name"], "default")
    eventually(lambda: n1.ns.run("iptables-save", "-t", "nat").count("-A KYB-SVC-") < count, 60)
    eventually(lambda: "KYB-IP-10.96.100.0" not in n1.rules(), 10)
