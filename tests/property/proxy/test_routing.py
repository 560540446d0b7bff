"""The compiled rules, interpreted packet by packet, against a model of what Services mean."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from node.proxy.base import HOOKS, compile_base
from node.proxy.compiler import compile_service
from node.proxy.model import resolve
from node.proxy.rules import Chain, RuleBook
from tests.unit.proxy.interpreter import Machine, Packet
from tests.unit.proxy.objects import SETTINGS, as_service, as_slice, endpoint, service_document, slice_document

OWN_RANGE = IPv4Network("10.244.1.0/24")
NODE = SETTINGS.address
OTHER_NODE = IPv4Address("192.168.7.12")
LOCAL = {NODE, IPv4Address("10.244.1.1"), SETTINGS.dns, IPv4Address("172.20.0.5")}
OUTSIDE = IPv4Address("203.0.113.9")
HOOK_OF = {(h.chain.table, h.chain.name): h.rule.rsplit(" ", 1)[1] for h in HOOKS}

Targets = frozenset[tuple[str, int]]


@dataclass(frozen=True)
class Client:
    name: str
    source: IPv4Address
    arrives_by: str


CLIENTS = (
    Client("pod of this node", IPv4Address("10.244.1.7"), "kyb0"),
    Client("pod of another node", IPv4Address("10.244.2.7"), "eth0"),
    Client("the node", NODE, ""),
    Client("the node by its gateway", IPv4Address("10.244.1.1"), ""),
    Client("somebody outside", OUTSIDE, "eth0"),
)


def route(address: IPv4Address) -> str:
    return "kyb0" if address in OWN_RANGE else "eth0"


# --- what there may be

ports = st.integers(1, 3).map(lambda n: 80 + n)
endpoint_places = st.sampled_from(
    [("10.244.1.7", "n1"), ("10.244.1.8", "n1"), (str(NODE), "n1"), ("10.244.2.7", "n2"), (str(OTHER_NODE), "n2")]
)
conditions = st.sampled_from(
    [
        {"ready": True},
        {"ready": True, "serving": True},
        {"ready": False, "serving": True, "terminating": True},
        {"ready": False, "serving": False},
        {"ready": False, "serving": True},
    ]
)
source_ranges = st.sampled_from([[], ["203.0.113.0/24"], ["10.0.0.0/8", "fd00::/8"], ["fd00::/8"]])
endpoints = st.lists(st.tuples(endpoint_places, conditions), max_size=5, unique_by=lambda pair: pair[0]).map(
    lambda found: [endpoint(address, node, **state) for (address, node), state in found]
)


@st.composite
def services(draw: st.DrawFn, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    protocol = draw(st.sampled_from(["TCP", "UDP", "SCTP"]))
    kind = draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]))
    offered = [
        {"port": port, "name": f"p{port}", "protocol": protocol, "targetPort": 8000 + port}
        for port in sorted(draw(st.sets(ports, min_size=1, max_size=2)))
    ]
    if kind != "ClusterIP":
        for index, port in enumerate(offered):
            port["nodePort"] = 30000 + 50 * number + index
    spec: dict[str, Any] = {
        "type": kind,
        "internalTrafficPolicy": draw(st.sampled_from(["Cluster", "Local"])),
        "externalTrafficPolicy": draw(st.sampled_from(["Cluster", "Local"])),
        "externalIPs": draw(st.sampled_from([[], [f"198.51.100.{number}"]])),
        "sessionAffinity": draw(st.sampled_from(["None", "ClientIP"])),
    }
    if kind == "LoadBalancer":
        spec["loadBalancerSourceRanges"] = draw(
            st.sampled_from([[], ["203.0.113.0/24"], ["10.0.0.0/8", "fd00::/8"], ["fd00::/8"]])
        )
    ingress = [{"ip": f"198.51.101.{number}"}] if kind == "LoadBalancer" else []
    address = draw(st.sampled_from([f"10.96.{number}.20", f"172.30.{number}.20"]))
    document = service_document(f"s{number}", address, ports=offered, ingress=ingress, **spec)
    slices = [
        slice_document(
            draw(endpoints),
            service=f"s{number}",
            name=f"s{number}-{part}",
            ports=[{"port": p["targetPort"], "name": p["name"], "protocol": protocol} for p in offered],
        )
        for part in range(draw(st.integers(0, 2)))
    ]
    return document, slices


worlds = st.integers(1, 3).flatmap(lambda count: st.tuples(*(services(number) for number in range(count))))


# --- what they mean


def serving(slices: Sequence[Mapping[str, Any]], target_port: int, node: str = "") -> Targets:
    found = [e for s in slices for e in s["endpoints"] if not node or e["nodeName"] == node]
    ready = {e["addresses"][0] for e in found if e["conditions"].get("ready")}
    ending = {e["addresses"][0] for e in found if e["conditions"].get("terminating") and e["conditions"].get("serving")}
    return frozenset((address, target_port) for address in ready or ending)


def expected(
    document: Mapping[str, Any], slices: Sequence[Mapping[str, Any]], port: Mapping[str, Any], door: str, client: Client
) -> Targets | str:
    """The endpoints that may answer, or REJECT or DROP."""
    spec = document["spec"]
    cluster = serving(slices, port["targetPort"])
    local = serving(slices, port["targetPort"], "n1")
    if door == "cluster":
        return (local if spec["internalTrafficPolicy"] == "Local" else cluster) or "REJECT"
    inside = client.source in SETTINGS.pods or client.source in LOCAL
    listed = spec.get("loadBalancerSourceRanges", [])
    if door == "ingress" and listed and not any(client.source in IPv4Network(r) for r in listed if ":" not in r):
        # Closed by a DROP, unless nobody serves at all.
        return "DROP" if cluster else "REJECT"
    if spec["externalTrafficPolicy"] == "Local" and not inside:
        return local or ("DROP" if cluster else "REJECT")
    return cluster or "REJECT"


def doors(document: Mapping[str, Any], port: Mapping[str, Any]) -> list[tuple[str, IPv4Address, int]]:
    found = [("cluster", IPv4Address(document["spec"]["clusterIP"]), port["port"])]
    found += [("external", IPv4Address(ip), port["port"]) for ip in document["spec"]["externalIPs"]]
    found += [("ingress", IPv4Address(i["ip"]), port["port"]) for i in document["status"]["loadBalancer"]["ingress"]]
    if "nodePort" in port:
        found += [("node port", address, port["nodePort"]) for address in (NODE, IPv4Address("172.20.0.5"))]
    return found


def needs_masquerade(document: Mapping[str, Any], door: str, sent: Packet, got: Packet) -> bool:
    """Whether the endpoint must see this node as its client, because its answer would not come back this way."""
    if got.leaves_by == "lo" or got.destination in LOCAL:
        return False
    if got.leaves_by == "kyb0":
        return got.source == got.destination
    inside = sent.source in SETTINGS.pods
    if door == "cluster":
        return not inside and sent.destination in SETTINGS.services
    return not (inside and document["spec"]["externalTrafficPolicy"] == "Local")


def build(world: Sequence[tuple[dict[str, Any], list[dict[str, Any]]]], seed: int) -> Machine:
    book = RuleBook()
    book.put("base", compile_base(SETTINGS, [NODE, OTHER_NODE]))
    order = list(world)
    random.Random(seed).shuffle(order)
    for document, slices in order:
        routes = resolve(as_service(document), [as_slice(s) for s in slices], "n1")
        book.put(document["metadata"]["name"], compile_service(routes, SETTINGS.pods, SETTINGS.services))
    return Machine({chain: book.rules(chain) or () for chain in book.chains()}, LOCAL, route)


@settings(max_examples=150, deadline=None)
@given(worlds, st.integers(0, 3))
def test_every_client_gets_what_the_services_promise(
    world: tuple[tuple[dict[str, Any], list[dict[str, Any]]], ...], seed: int
) -> None:
    machine = build(world, seed)
    for document, slices in world:
        for port in document["spec"]["ports"]:
            for door, address, number in doors(document, port):
                for client in CLIENTS:
                    packet = Packet(client.source, address, number, port["protocol"].lower(), client.arrives_by)
                    check(machine, document, packet, expected(document, slices, port, door, client), door)


def check(machine: Machine, document: Mapping[str, Any], packet: Packet, want: Targets | str, door: str) -> None:
    context = f"{packet.source} -> {door} {packet.destination}:{packet.port}"
    fate = machine.send(packet, hooks=HOOK_OF)
    if isinstance(want, str):
        assert [(round(w, 6), v.action) for w, v in fate] == [(1.0, want)], context
        return
    chances: dict[tuple[str, int], float] = defaultdict(float)
    for weight, verdict in fate:
        assert verdict.action == "DELIVER", context
        chances[str(verdict.packet.destination), verdict.packet.port] += weight
        masqueraded = verdict.argument == "masqueraded"
        assert masqueraded == needs_masquerade(document, door, packet, verdict.packet), (context, verdict)
    assert set(chances) == want, context
    assert all(abs(chance - 1 / len(want)) < 1e-6 for chance in chances.values()), (context, chances)


@settings(max_examples=50, deadline=None)
@given(worlds, st.data())
def test_a_client_with_affinity_stays_where_it_was(
    world: tuple[tuple[dict[str, Any], list[dict[str, Any]]], ...], data: st.DataObject
) -> None:
    machine = build(world, 0)
    for document, slices in world:
        for port in document["spec"]["ports"]:
            for door, address, number in doors(document, port):
                client = data.draw(st.sampled_from(CLIENTS))
                packet = Packet(client.source, address, number, port["protocol"].lower(), client.arrives_by)
                first = machine.send(packet, hooks=HOOK_OF)
                if isinstance(expected(document, slices, port, door, client), str):
                    continue
                if document["spec"]["sessionAffinity"] == "None":
                    assert not any(verdict.packet.remembered for _, verdict in first)
                    continue
                _, chosen = data.draw(st.sampled_from(first))
                assert chosen.packet.remembered
                again = replace(packet, known=chosen.packet.remembered)
                fates = {(v.packet.destination, v.packet.port) for _, v in machine.send(again, hooks=HOOK_OF)}
                assert fates == {(chosen.packet.destination, chosen.packet.port)}


@settings(max_examples=100, deadline=None)
@given(worlds, worlds, st.booleans())
def test_a_book_that_was_changed_equals_a_book_that_was_written_anew(
    before: tuple[tuple[dict[str, Any], list[dict[str, Any]]], ...],
    after: tuple[tuple[dict[str, Any], list[dict[str, Any]]], ...],
    in_steps: bool,
) -> None:
    changed, fresh = RuleBook(), RuleBook()
    # What a packet filter holds that is told only what changed.
    held: dict[Chain, list[str]] = {}
    for world, books in ((before, [changed]), (after, [changed, fresh])):
        for book in books:
            book.put("base", compile_base(SETTINGS, [NODE]))
        for number in range(3):
            document, slices = world[number] if number < len(world) else (None, [])
            routes = resolve(as_service(document), [as_slice(s) for s in slices], "n1") if document else ()
            for book in books:
                book.put(f"s{number}", compile_service(routes, SETTINGS.pods, SETTINGS.services))
            if in_steps or number == 2:
                write(changed, held)
    assert {chain: sorted(rules) for chain, rules in held.items()} == {
        chain: sorted(fresh.rules(chain) or ()) for chain in fresh.chains()
    }
    for chain in fresh.chains():
        assert fresh.is_set(chain) or tuple(held[chain]) == fresh.rules(chain)


def write(book: RuleBook, held: dict[Chain, list[str]]) -> None:
    delta = book.take_delta()
    assert delta.added.keys() <= delta.changed
    for chain in delta.changed:
        rules = book.rules(chain)
        if rules is None:
            held.pop(chain, None)
        elif chain in delta.added:
            held[chain].extend(delta.added[chain])
        else:
            held[chain] = list(rules)


@given(st.sampled_from(CLIENTS), st.sampled_from(["10.96.9.9", "10.96.0.20"]), st.integers(1, 65535))
def test_addresses_that_no_service_has_are_refused_at_once(client: Client, address: str, port: int) -> None:
    machine = build((), 0)
    packet = Packet(client.source, IPv4Address(address), port, "tcp", client.arrives_by)
    assert [v.action for _, v in machine.send(packet, hooks=HOOK_OF)] == ["REJECT"]


def test_traffic_that_is_no_services_business_is_left_alone() -> None:
    machine = build((), 0)
    cases = {
        # Pods leave the pod network under the node's address, but not towards nodes and other pods.
        ("10.244.1.7", "kyb0", "192.0.2.1"): "masqueraded",
        ("10.244.1.7", "kyb0", str(OTHER_NODE)): "",
        ("10.244.1.7", "kyb0", "10.244.2.7"): "",
        ("10.244.1.7", "kyb0", "10.244.1.8"): "",
        ("10.244.2.7", "eth0", "10.244.1.8"): "",
        (str(NODE), "", "192.0.2.1"): "",
        ("203.0.113.9", "eth0", "10.244.1.8"): "",
    }
    for (source, interface, destination), want in cases.items():
        packet = Packet(IPv4Address(source), IPv4Address(destination), 443, "tcp", interface)
        [(weight, verdict)] = machine.send(packet, hooks=HOOK_OF)
        assert (weight, verdict.action, verdict.argument) == (1.0, "DELIVER", want), (source, destination)


def test_the_cluster_dns_serves_pods_and_the_node_alone() -> None:
    machine = build((), 0)
    for source, interface, action in (
        ("10.244.1.7", "kyb0", "DELIVER"),
        ("203.0.113.9", "eth0", "DROP"),
        (str(NODE), "", "DELIVER"),
    ):
        packet = Packet(IPv4Address(source), SETTINGS.dns, 53, "udp", interface)
        assert [v.action for _, v in machine.send(packet, hooks=HOOK_OF)] == [action]
