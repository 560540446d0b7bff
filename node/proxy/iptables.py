"""The iptables backend: reads with one `iptables-save`, writes with one `iptables-restore --noflush`.

What is written is one transaction per table: packets see the rules before or after it, and nothing in between.
"""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Protocol

from kybern.key import Key
from node.network.settings import NetworkSettings
from node.proxy.base import HOOKS, compile_base
from node.proxy.compiler import compile_service
from node.proxy.interface import RoutingError
from node.proxy.model import PortRoute
from node.proxy.rules import PREFIX, Chain, Hook, RuleBook

log = logging.getLogger(__name__)

Rules = tuple[str, ...]

# The legacy tools wait this many seconds for the lock that they share.
_LOCK_WAIT = "10"
_TIMEOUT = 120.0
_PROBE = Chain("filter", PREFIX + "PROBE")
_JUMP = re.compile(rf"-[jg] {re.escape(PREFIX)}\S+$")


class Iptables(Protocol):
    """The two commands."""

    async def save(self) -> str:
        """All tables, as iptables-save prints them."""
        ...

    async def restore(self, text: str) -> None:
        """Hand the text to iptables-restore, without flushing the tables.

        Raises:
            RoutingError: when the command fails; nothing of the text is in force then.
        """
        ...


class IptablesCommands:
    """Runs the commands of this host, in this process's network namespace."""

    async def save(self) -> str:
        """As `Iptables.save`."""
        return await _run("", "iptables-save")

    async def restore(self, text: str) -> None:
        """As `Iptables.restore`."""
        await _run(text, "iptables-restore", "--noflush", "--wait", _LOCK_WAIT)


async def _run(text: str, *command: str) -> str:
    # In a thread: what the loops offer for processes fails when a process ends before its input was written. Python
    # starts it by vfork and exec, so the other threads of this process are of no concern.
    return await asyncio.to_thread(_run_blocking, text, *command)


def _run_blocking(text: str, *command: str) -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except OSError as error:
        raise RoutingError(f"cannot run {command[0]}: {error.strerror}; is iptables installed?") from error
    except subprocess.TimeoutExpired as error:
        raise RoutingError(f"{command[0]} did not end within {_TIMEOUT:.0f} s") from error
    if done.returncode != 0:
        raise RoutingError(f"{command[0]}: {' '.join(done.stderr.split())}")
    return done.stdout


@dataclass
class Saved:
    """What iptables-save printed: our chains, and the rules elsewhere that lead into chains with our prefix."""

    chains: dict[Chain, Rules] = field(default_factory=dict)
    hooks: list[Hook] = field(default_factory=list)


def parse_saved(text: str, tables: Collection[str]) -> Saved:
    """Read the output of iptables-save."""
    rules: dict[Chain, list[str]] = {}
    hooks: list[Hook] = []
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif table not in tables:
            continue
        elif line.startswith(":" + PREFIX):
            rules[Chain(table, line[1:].split(" ", 1)[0])] = []
        elif line.startswith("-A "):
            _, name, rule = (line + " ").split(" ", 2)
            chain = Chain(table, name)
            if name.startswith(PREFIX):
                rules.setdefault(chain, []).append(rule[:-1])
            elif _JUMP.search(rule[:-1]):
                hooks.append(Hook(chain, rule[:-1]))
    return Saved({chain: tuple(found) for chain, found in rules.items()}, hooks)


@dataclass(frozen=True)
class Changes:
    """What to write."""

    # Chains that are made, or emptied, and get these rules.
    written: Mapping[Chain, Rules] = field(default_factory=dict)
    # Rules that chains get in addition to those that they have.
    appended: Mapping[Chain, Sequence[str]] = field(default_factory=dict)
    # Chains to delete.
    removed: Collection[Chain] = ()
    # Rules of the system's chains to insert at the top, and to delete.
    hooked: Sequence[Hook] = ()
    unhooked: Sequence[Hook] = ()

    def __len__(self) -> int:
        return len(self.written) + len(self.appended) + len(self.removed) + len(self.hooked) + len(self.unhooked)


def restore_text(changes: Changes) -> str:
    """The changes as input of `iptables-restore --noflush`."""
    lines: list[str] = []
    tables = {chain.table for chain in (*changes.written, *changes.appended, *changes.removed)}
    tables |= {hook.chain.table for hook in (*changes.hooked, *changes.unhooked)}
    for table in sorted(tables):
        lines.append(f"*{table}")
        # Declaring a chain makes it, or empties it.
        emptied = sorted(c.name for c in (*changes.written, *changes.removed) if c.table == table)
        lines += [f":{name} - [0:0]" for name in emptied]
        lines += [f"-D {h.chain.name} {h.rule}" for h in changes.unhooked if h.chain.table == table]
        for chain, rules in (*changes.written.items(), *changes.appended.items()):
            if chain.table == table:
                lines += [f"-A {chain.name} {rule}" for rule in rules]
        lines += [f"-I {h.chain.name} 1 {h.rule}" for h in changes.hooked if h.chain.table == table]
        lines += [f"-X {chain.name}" for chain in sorted(changes.removed) if chain.table == table]
        lines.append("COMMIT")
    return "\n".join(lines) + "\n" if lines else ""


class IptablesRouting:
    """Implements `RoutingBackend`."""

    def __init__(self, settings: NetworkSettings, commands: Iptables | None = None) -> None:
        self._settings = settings
        self._commands: Iptables = commands or IptablesCommands()
        self._book = RuleBook()
        # False until the kernel's rules are known to be those of the book but for its dirty chains.
        self._known = False
        # Chains that this iptables prints in other words than we write them: what we wrote, and what it printed.
        self._spelling: dict[Chain, tuple[Rules, Rules]] = {}
        # Whether the kernel knows SCTP; asked as soon as a Service needs it. The Services that do, with all routes.
        self._sctp: bool | None = None
        self._sctp_services: dict[Key, Sequence[PortRoute]] = {}
        self.set_nodes(())

    def set_nodes(self, addresses: Collection[IPv4Address]) -> None:
        """As `RoutingBackend.set_nodes`."""
        self._book.put("base", compile_base(self._settings, addresses))

    def set_service(self, service: Key, routes: Sequence[PortRoute]) -> None:
        """As `RoutingBackend.set_service`."""
        self._sctp_services.pop(service, None)
        if any(route.protocol == "sctp" for route in routes):
            self._sctp_services[service] = routes
            if self._sctp is False:
                routes = [route for route in routes if route.protocol != "sctp"]
        compiled = compile_service(routes, self._settings.pods, self._settings.services)
        self._book.put(f"service {service}", compiled)

    async def sync(self) -> int:
        """As `RoutingBackend.sync`."""
        if not self._known:
            return await self.resync()
        await self._check_sctp()
        delta = self._book.take_delta()
        wanted = {chain: self._book.rules(chain) for chain in delta.changed}
        changes = Changes(
            written={c: rules for c, rules in wanted.items() if rules is not None and c not in delta.added},
            # The kernel appends within a millisecond or two; before it frees the rules of a chain that is written
            # anew it waits until nobody can be reading them any more, and that takes ten times as long.
            appended=delta.added,
            removed=[chain for chain, rules in wanted.items() if rules is None],
        )
        await self._write(changes)
        return len(changes)

    async def resync(self) -> int:
        """As `RoutingBackend.resync`."""
        first = not self._known
        self._known = False
        await self._check_sctp()
        changes = await self._differences()
        await self._write(changes)
        if changes.written and not first:
            # Repaired: were they changed, or does this iptables spell them in another way?
            await self._learn_spelling(changes.written)
        return len(changes)

    async def _check_sctp(self) -> None:
        """Do without SCTP where the kernel does not know it: one rule that it refuses would keep out all the others."""
        if not self._sctp_services or self._sctp is not None:
            return
        self._sctp = await self._accepts("sctp")
        if not self._sctp:
            if not await self._accepts("tcp"):
                self._sctp = None
                raise RoutingError("iptables-restore takes no rules at all")
            log.warning("this kernel's packet filter does not know SCTP: ports of that protocol are not routed")
            for service, routes in list(self._sctp_services.items()):
                self.set_service(service, routes)

    async def _accepts(self, protocol: str) -> bool:
        rule = f"-p {protocol} -m {protocol} --dport 1 -j RETURN"
        try:
            await self._commands.restore(restore_text(Changes(written={_PROBE: (rule,)})))
            await self._commands.restore(restore_text(Changes(removed=[_PROBE])))
        except RoutingError as error:
            log.debug("%s", error)
            return False
        return True

    async def _differences(self) -> Changes:
        self._book.take_delta()
        saved = await self._saved()
        wanted = {chain: self._book.rules(chain) or () for chain in self._book.chains()}
        return Changes(
            written={chain: rules for chain, rules in wanted.items() if not self._is_there(chain, rules, saved)},
            removed=[chain for chain in saved.chains if chain not in wanted],
            hooked=[hook for hook in HOOKS if hook not in saved.hooks],
            unhooked=_superfluous(saved.hooks),
        )

    def _is_there(self, chain: Chain, rules: Rules, saved: Saved) -> bool:
        present = saved.chains.get(chain)
        if present is not None and self._book.is_set(chain):
            present = tuple(sorted(present))
        return present == rules or (present is not None and self._spelling.get(chain) == (rules, present))

    async def _learn_spelling(self, written: Mapping[Chain, Rules]) -> None:
        saved = await self._saved()
        for chain, rules in written.items():
            present = saved.chains.get(chain)
            if present is not None and present != rules and len(present) == len(rules):
                if self._book.is_set(chain):
                    present = tuple(sorted(present))
                self._spelling[chain] = (rules, present)

    async def _saved(self) -> Saved:
        text = await self._commands.save()
        # Tens of thousands of lines with ten thousand services: not on the loop.
        return await asyncio.to_thread(parse_saved, text, {chain.table for chain in self._book.chains()})

    async def _write(self, changes: Changes) -> None:
        if len(changes):
            self._known = False
            await self._commands.restore(restore_text(changes))
            log.debug("iptables: %d chains written, %d removed", len(changes.written), len(changes.removed))
        self._known = True


def _superfluous(hooks: Iterable[Hook]) -> list[Hook]:
    """Hooks that are there twice, or lead into chains of ours that are none of today's."""
    seen: set[Hook] = set()
    surplus = []
    for hook in hooks:
        if hook in seen or hook not in HOOKS:
            surplus.append(hook)
        seen.add(hook)
    return surplus
