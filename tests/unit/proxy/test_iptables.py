"""The iptables backend against a table in memory that takes what iptables-restore takes."""

from __future__ import annotations

import copy
from ipaddress import IPv4Address

import pytest

from kybern.clock import run_virtual
from kybern.key import Key
from node.proxy.base import HOOKS
from node.proxy.interface import RoutingError
from node.proxy.iptables import IptablesRouting, parse_saved
from node.proxy.model import PortRoute, resolve
from tests.unit.proxy.objects import SETTINGS, as_service, as_slice, endpoint, service_document, slice_document

WEB = Key("default", "web")
DOCKER = """*filter
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -j RETURN
COMMIT
"""


class FakeIptables:
    """Keeps tables, and counts the commands."""

    def __init__(self, text: str = "") -> None:
        self.tables: dict[str, dict[str, list[str]]] = {
            "nat": {"PREROUTING": [], "INPUT": [], "OUTPUT": [], "POSTROUTING": []},
            "filter": {"INPUT": [], "FORWARD": [], "OUTPUT": []},
        }
        self.saves = 0
        self.restored: list[str] = []
        self.fail = 0
        self.unknown = ""
        # What this iptables prints instead of what it was given.
        self.spelling: tuple[str, str] = ("", "")
        self._apply(text)

    async def save(self) -> str:
        self.saves += 1
        lines = []
        for table, chains in self.tables.items():
            lines += [f"*{table}", *(f":{name} - [0:0]" for name in chains)]
            lines += [f"-A {name} {rule}" for name, rules in chains.items() for rule in rules]
            lines.append("COMMIT")
        return "\n".join(lines).replace(*self.spelling) if self.spelling[0] else "\n".join(lines)

    async def restore(self, text: str) -> None:
        if self.fail:
            self.fail -= 1
            raise RoutingError("iptables-restore: somebody holds the lock")
        if self.unknown and self.unknown in text:
            raise RoutingError(f"iptables-restore: unknown {self.unknown}")
        self.restored.append(text)
        self._apply(text)

    def _apply(self, text: str) -> None:
        chains: dict[str, list[str]] = {}
        for line in text.splitlines():
            verb, _, rest = line.partition(" ")
            name, _, rule = rest.partition(" ")
            if line.startswith("*"):
                chains = self.tables[line[1:]]
            elif line.startswith(":"):
                chains[verb[1:]] = []
            elif verb == "-A":
                chains[name].append(rule)
            elif verb == "-I":
                chains[name].insert(0, rule.removeprefix("1 "))
            elif verb == "-D":
                chains[name].remove(rule)
            elif verb == "-X":
                assert not chains[name], "a chain that is deleted must be empty"
                assert not any(f"-j {name}" in r for rules in chains.values() for r in rules), f"{name} is in use"
                del chains[name]
        targets = {r.rsplit("-j ", 1)[1].split()[0] for rules in chains.values() for r in rules if " -j KYB" in r}
        assert targets <= chains.keys(), "a rule leads to a chain that does not exist"


def routes(name: str = "web", ip: str = "10.96.0.20", *addresses: str) -> tuple[PortRoute, ...]:
    slices = [slice_document([endpoint(a) for a in addresses or ("10.244.1.5",)], service=name)]
    return resolve(as_service(service_document(name, ip)), [as_slice(s) for s in slices], "n1")


def test_the_first_sync_adds_what_is_missing_and_touches_nothing_else() -> None:
    async def main() -> None:
        kernel = FakeIptables(DOCKER)
        backend = IptablesRouting(SETTINGS, kernel)
        backend.set_service(WEB, routes())
        await backend.sync()
        assert kernel.tables["filter"]["FORWARD"] == [
            "-m comment --comment kybern -j KYB-FORWARD",
            "-j DOCKER-USER",
        ]
        assert kernel.tables["filter"]["DOCKER-USER"] == ["-j RETURN"]
        assert any("10.244.1.5:8080" in r for rules in kernel.tables["nat"].values() for r in rules)
        assert (kernel.saves, len(kernel.restored)) == (1, 1)

    run_virtual(main())


def test_a_change_is_one_process_and_writes_only_what_changed() -> None:
    async def main() -> None:
        kernel = FakeIptables()
        backend = IptablesRouting(SETTINGS, kernel)
        for number in range(300):
            backend.set_service(
                Key("default", f"s{number}"), routes(f"s{number}", f"10.96.{number // 100}.{number}"[:12])
            )
        await backend.sync()
        before = (kernel.saves, len(kernel.restored))
        backend.set_service(Key("default", "new"), routes("new", "10.96.77.1"))
        await backend.sync()
        assert (kernel.saves, len(kernel.restored)) == (before[0], before[1] + 1)
        assert len(kernel.restored[-1].splitlines()) < 12
        assert await backend.sync() == 0
        assert len(kernel.restored) == before[1] + 1

    run_virtual(main())


def test_a_service_that_goes_leaves_nothing() -> None:
    async def main() -> None:
        kernel = FakeIptables()
        backend = IptablesRouting(SETTINGS, kernel)
        await backend.sync()
        empty = copy.deepcopy(kernel.tables)
        backend.set_service(WEB, routes())
        await backend.sync()
        assert kernel.tables != empty
        backend.set_service(WEB, ())
        await backend.sync()
        assert kernel.tables == empty

    run_virtual(main())


def test_a_restart_finds_its_rules_and_writes_only_what_changed_meanwhile() -> None:
    async def main() -> None:
        kernel = FakeIptables()
        first = IptablesRouting(SETTINGS, kernel)
        first.set_service(WEB, routes())
        first.set_service(Key("default", "gone"), routes("gone", "10.96.1.1"))
        await first.sync()
        count = len(kernel.restored)
        same = IptablesRouting(SETTINGS, kernel)
        same.set_service(WEB, routes())
        same.set_service(Key("default", "gone"), routes("gone", "10.96.1.1"))
        assert await same.sync() == 0
        assert len(kernel.restored) == count
        changed = IptablesRouting(SETTINGS, kernel)
        changed.set_service(WEB, routes())
        await changed.sync()
        assert "10.96.1.1" not in await kernel.save()
        assert "KYB-SVC" in await kernel.save()

    run_virtual(main())


def test_a_full_comparison_repairs_what_others_did() -> None:
    async def main() -> None:
        kernel = FakeIptables(DOCKER)
        backend = IptablesRouting(SETTINGS, kernel)
        backend.set_service(WEB, routes())
        await backend.sync()
        right = await kernel.save()
        # Somebody flushed a chain, took a hook away, doubled another, and left an old chain with a hook of its own.
        kernel.tables["nat"]["KYB-SERVICES"].clear()
        kernel.tables["filter"]["FORWARD"].pop(0)
        hook = next(h for h in HOOKS if h.chain.name == "POSTROUTING")
        kernel.tables["nat"]["POSTROUTING"].append(hook.rule)
        kernel.tables["nat"]["KYB-OLD"] = ["-j RETURN"]
        kernel.tables["nat"]["INPUT"].append("-j KYB-OLD")
        assert await backend.sync() == 0
        assert await backend.resync() == 5
        assert await kernel.save() == right
        assert await backend.resync() == 0

    run_virtual(main())


def test_an_iptables_with_another_spelling_is_not_repaired_for_ever() -> None:
    async def main() -> None:
        kernel = FakeIptables()
        backend = IptablesRouting(SETTINGS, kernel)
        backend.set_service(WEB, routes())
        kernel.spelling = ("--random-fully", "--random --fully")
        await backend.sync()
        assert await backend.resync() > 0
        assert await backend.resync() == 0
        kernel.tables["nat"]["KYB-POSTROUTING"].pop()
        assert await backend.resync() == 1

    run_virtual(main())


def test_after_a_failure_everything_is_compared() -> None:
    async def main() -> None:
        kernel = FakeIptables()
        backend = IptablesRouting(SETTINGS, kernel)
        await backend.sync()
        backend.set_service(WEB, routes())
        kernel.fail = 1
        with pytest.raises(RoutingError, match="lock"):
            await backend.sync()
        saves = kernel.saves
        await backend.sync()
        assert kernel.saves == saves + 1
        assert "10.244.1.5:8080" in await kernel.save()

    run_virtual(main())


@pytest.mark.parametrize("unknown", ["", "-p sctp"])
def test_a_kernel_without_sctp_routes_everything_else(unknown: str) -> None:
    async def main() -> None:
        kernel = FakeIptables()
        kernel.unknown = unknown
        backend = IptablesRouting(SETTINGS, kernel)
        await backend.sync()
        ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81, "protocol": "SCTP"}]
        offered = [{"name": "a", "port": 8080}, {"name": "b", "port": 8081, "protocol": "SCTP"}]
        for name, ip in (("one", "10.96.0.21"), ("two", "10.96.0.22")):
            slices = [as_slice(slice_document([endpoint("10.244.1.5")], service=name, ports=offered))]
            found = resolve(as_service(service_document(name, ip, ports=ports)), slices, "n1")
            backend.set_service(Key("default", name), found)
            await backend.sync()
            text = await kernel.save()
            assert f"-d {ip}/32 -p tcp" in text
            assert (f"-d {ip}/32 -p sctp" in text) == (not unknown)
            assert "KYB-PROBE" not in text
        assert await backend.resync() == 0

    run_virtual(main())


def test_a_packet_filter_that_takes_nothing_says_nothing_about_sctp() -> None:
    async def main() -> None:
        kernel = FakeIptables()
        backend = IptablesRouting(SETTINGS, kernel)
        ports = [{"name": "b", "port": 81, "protocol": "SCTP"}]
        slices = [as_slice(slice_document([endpoint("10.244.1.5")], ports=ports))]
        backend.set_service(WEB, resolve(as_service(service_document(ports=ports)), slices, "n1"))
        kernel.fail = 2
        with pytest.raises(RoutingError, match="no rules at all"):
            await backend.sync()
        await backend.sync()
        assert "-p sctp" in await kernel.save()

    run_virtual(main())


def test_the_nodes_addresses_are_not_masqueraded() -> None:
    async def main() -> None:
        kernel = FakeIptables()
        backend = IptablesRouting(SETTINGS, kernel)
        backend.set_nodes([IPv4Address("192.168.7.12"), IPv4Address("192.168.7.11")])
        await backend.sync()
        assert [r for r in kernel.tables["nat"]["KYB-EGRESS"] if "192.168" in r] == [
            "-d 192.168.7.11/32 -j RETURN",
            "-d 192.168.7.12/32 -j RETURN",
        ]

    run_virtual(main())


def test_saved_rules_with_spaces_in_comments_and_no_rules_at_all() -> None:
    text = """# comment
*nat
:KYB-A - [1:2]
:OTHER - [0:0]
-A KYB-A -m comment --comment "a b" -j RETURN
-A OTHER -j RETURN
COMMIT
*mangle
:KYB-B - [0:0]
COMMIT
"""
    saved = parse_saved(text, ["nat"])
    assert {c.name: r for c, r in saved.chains.items()} == {"KYB-A": ('-m comment --comment "a b" -j RETURN',)}
    assert saved.hooks == []
