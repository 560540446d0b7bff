"""A small interpreter of iptables rules: what happens to a packet, with which probability.

Knows the matches and targets that the compiler uses and fails on any other, so that a rule it misreads cannot pass.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from node.proxy.rules import Chain

LOOPBACK = IPv4Network("127.0.0.0/8")


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection."""

    source: IPv4Address
    destination: IPv4Address
    port: int
    protocol: str = "tcp"
    arrives_by: str = ""
    leaves_by: str = ""
    mark: int = 0
    # Lists of xt_recent that the packet's sender is in, and those that the packet put it in.
    known: frozenset[str] = frozenset()
    remembered: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Verdict:
    """Where a walk ended; an empty action means: at the end of the chain."""

    action: str
    packet: Packet
    argument: str = ""


Weighted = list[tuple[float, Verdict]]


@dataclass
class Rule:
    """One parsed rule."""

    chance: float = 1.0
    tests: list[Callable[[Packet], bool]] = field(default_factory=list)
    set_recent: str = ""
    action: str = ""
    argument: str = ""


class Machine:
    """A node: its rules, its own addresses, and the interfaces that lead to addresses."""

    def __init__(
        self,
        chains: Mapping[Chain, Sequence[str]],
        local: Iterable[IPv4Address],
        route: Callable[[IPv4Address], str],
    ) -> None:
        self._local = set(local)
        self._route = route
        self._chains = {chain: [self._parse(rule) for rule in rules] for chain, rules in chains.items()}

    def is_local(self, address: IPv4Address) -> bool:
        return address in self._local or address in LOOPBACK

    def send(self, packet: Packet, *, hooks: Mapping[tuple[str, str], str]) -> list[tuple[float, Verdict]]:
        """The fate of a packet that arrives by an interface, or (without one) is sent by the node itself.

        `hooks` names our chain for each chain of the system. The result's actions: DELIVER (argument: `masqueraded` or
        empty; the packet has its new destination), REJECT, DROP.
        """
        results: list[tuple[float, Verdict]] = []
        first = "OUTPUT" if not packet.arrives_by else "PREROUTING"
        for weight, routed in self._nat(hooks["nat", first], packet):
            stays = self.is_local(routed.destination)
            leaving = replace(routed, leaves_by="lo" if stays else self._route(routed.destination))
            stage = "OUTPUT" if not packet.arrives_by else "INPUT" if stays else "FORWARD"
            for chance, verdict in self._walk("filter", hooks["filter", stage], leaving):
                total = weight * chance
                if verdict.action in ("REJECT", "DROP"):
                    results.append((total, verdict))
                    continue
                if stage == "INPUT":
                    results.append((total, Verdict("DELIVER", verdict.packet)))
                    continue
                for last, end in self._walk("nat", hooks["nat", "POSTROUTING"], verdict.packet):
                    argument = "masqueraded" if end.action == "MASQUERADE" else ""
                    results.append((total * last, Verdict("DELIVER", end.packet, argument)))
        return results

    def _nat(self, chain: str, packet: Packet) -> list[tuple[float, Packet]]:
        found = []
        for weight, verdict in self._walk("nat", chain, packet):
            after = verdict.packet
            if verdict.action == "DNAT":
                address, _, port = verdict.argument.partition(":")
                after = replace(after, destination=IPv4Address(address), port=int(port))
            found.append((weight, after))
        return found

    def _walk(self, table: str, chain: str, packet: Packet) -> Weighted:
        ended: Weighted = []
        going = [(1.0, packet)]
        for rule in self._chains[Chain(table, chain)]:
            passed: list[tuple[float, Packet]] = []
            for weight, current in going:
                if not all(test(current) for test in rule.tests):
                    passed.append((weight, current))
                    continue
                if rule.chance < 1:
                    passed.append((weight * (1 - rule.chance), current))
                for chance, verdict in self._act(table, rule, current):
                    total = weight * rule.chance * chance
                    if verdict.action:
                        ended.append((total, verdict))
                    else:
                        passed.append((total, verdict.packet))
            going = passed
        return ended + [(weight, Verdict("", current)) for weight, current in going]

    def _act(self, table: str, rule: Rule, packet: Packet) -> Weighted:
        if rule.set_recent:
            packet = replace(packet, remembered=packet.remembered | {rule.set_recent})
        if rule.action == "RETURN":
            return [(1.0, Verdict("RETURN", packet))]
        if rule.action == "MARK":
            value, mask = (int(part, 16) for part in rule.argument.split("/"))
            return [(1.0, Verdict("", replace(packet, mark=(packet.mark & ~mask) ^ value)))]
        if rule.action in ("DNAT", "MASQUERADE", "REJECT", "DROP", "ACCEPT"):
            return [(1.0, Verdict(rule.action, packet, rule.argument))]
        results = []
        for weight, verdict in self._walk(table, rule.action, packet):
            # RETURN ends the chain that it is in, not the one that jumped there.
            action = "" if verdict.action == "RETURN" else verdict.action
            results.append((weight, replace(verdict, action=action)))
        return results

    def _parse(self, text: str) -> Rule:
        rule = Rule()
        words = shlex.split(text)
        negated = False
        while words:
            word = words.pop(0)
            if word == "!":
                negated = True
                continue
            test = self._option(rule, word, words)
            if test is not None:
                rule.tests.append(_unless(test) if negated else test)
                negated = False
        assert not negated, text
        assert rule.action, text
        return rule

    def _option(self, rule: Rule, word: str, words: list[str]) -> Callable[[Packet], bool] | None:
        if word in ("-s", "-d"):
            network = IPv4Network(words.pop(0))
            if word == "-s":
                return lambda p: p.source in network
            return lambda p: p.destination in network
        if word in ("-i", "-o"):
            name = words.pop(0)
            return (lambda p: p.arrives_by == name) if word == "-i" else (lambda p: p.leaves_by == name)
        if word == "-p":
            protocol = words.pop(0)
            return lambda p: p.protocol == protocol
        if word == "-m":
            return self._match(rule, words.pop(0), words)
        assert word == "-j", word
        self._target(rule, words)
        return None

    def _match(self, rule: Rule, kind: str, words: list[str]) -> Callable[[Packet], bool] | None:
        if kind in ("tcp", "udp", "sctp"):
            assert words.pop(0) == "--dport"
            first, _, last = words.pop(0).partition(":")
            return lambda p: int(first) <= p.port <= int(last or first)
        if kind == "comment":
            del words[:2]
            return None
        if kind == "statistic":
            assert words[:3] == ["--mode", "random", "--probability"]
            rule.chance = float(words[3])
            del words[:4]
            return None
        if kind == "mark":
            assert words.pop(0) == "--mark"
            value, mask = (int(part, 16) for part in words.pop(0).split("/"))
            return lambda p: p.mark & mask == value
        if kind == "recent":
            return self._recent(rule, words)
        if kind == "conntrack":
            assert words.pop(0) == "--ctstate"
            states = words.pop(0).split(",")
            return lambda p: "NEW" in states
        assert kind == "addrtype", kind
        wanted = words[0] != "!"
        if not wanted:
            words.pop(0)
        option = words.pop(0)
        assert words.pop(0) == "LOCAL"
        if option == "--src-type":
            return lambda p: self.is_local(p.source) == wanted
        assert option == "--dst-type"
        return lambda p: self.is_local(p.destination) == wanted

    def _recent(self, rule: Rule, words: list[str]) -> Callable[[Packet], bool] | None:
        verb = words.pop(0)
        if verb == "--update":
            assert words[0] == "--seconds"
            assert words[2] == "--reap"
            del words[:3]
        assert words[0] == "--name"
        name = words[1]
        assert words[2:5] == ["--mask", "255.255.255.255", "--rsource"]
        del words[:5]
        if verb == "--set":
            rule.set_recent = name
            return None
        return lambda p: name in p.known

    def _target(self, rule: Rule, words: list[str]) -> None:
        rule.action = words.pop(0)
        if rule.action in ("DNAT", "MARK"):
            words.pop(0)
            rule.argument = words.pop(0)
        elif rule.action in ("MASQUERADE", "REJECT"):
            words.clear()


def _unless(test: Callable[[Packet], bool]) -> Callable[[Packet], bool]:
    return lambda packet: not test(packet)
