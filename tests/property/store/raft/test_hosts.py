"""Raft's promises, of whole members on simulated hosts: faults, and changes of members amid them, by seed."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import random
import shutil
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from kybern.clock import LoopClock
from kybern.config.models import StoreConfig, Tls
from kybern.daemon import StartupError
from store.raft.configuration import Configuration, decode
from store.raft.datadir import is_joining, vacate
from store.raft.interface import Applied, Levels, Member, MembershipError, NoLeader, RaftUnavailable
from store.raft.node import RaftNode
from tests.property.store.raft.faults import Faults
from tests.property.store.raft.hosts import Hosts, Process

log = logging.getLogger(__name__)

_SEEDS = int(os.environ.get("KYBERN_SEEDS", "5"))
_FIRST = int(os.environ.get("KYBERN_FIRST_SEED", "0"))
_ROUNDS = 40
_MOST = 5
# Seconds of virtual time in which all must be well again once there are no faults any more.
_HEALED = 120.0


class Kept:
    """A machine that keeps what it was given, and tells the world."""

    def __init__(self, world: Cluster, levels: Levels) -> None:
        self._world = world
        self.levels = levels
        self.level = 1
        self.commands: list[bytes] = []

    def apply(self, command: bytes, applied: Applied) -> object:
        self.commands.append(command)
        assert applied.index == len(self.commands), f"command {applied.index} is number {len(self.commands)}"
        self._world.commit(applied, command, self.level)
        return applied.index

    def rise(self, level: int) -> None:
        self.level = max(self.level, level)

    def caught_up(self) -> None:
        return

    def dump(self) -> Iterator[bytes]:
        kept = tuple(self.commands)
        return (b"%s\n" % command for command in (b"%d %d" % (len(kept), self.level), *kept))

    def load(self) -> Loading:
        return Loading(self)


class Loading:
    """Lines."""

    def __init__(self, machine: Kept) -> None:
        self._machine = machine
        self._data = bytearray()

    def feed(self, part: bytes) -> None:
        self._data += part

    def finish(self) -> None:
        head, *commands = bytes(self._data).split(b"\n")[:-1]
        count, level = map(int, head.split())
        assert len(commands) == count
        self._machine.commands, self._machine.level = commands, level


@dataclass(eq=False)
class Life:
    """A member that runs."""

    process: Process
    node: RaftNode
    machine: Kept
    started: bool = False


@dataclass
class Cluster:
    """Members, what was asked of them and what came of it."""

    hosts: Hosts
    folder: Path
    lives: dict[str, Life] = field(default_factory=dict)
    configs: dict[str, StoreConfig] = field(default_factory=dict)
    # By number: what all members were given, and the level at which they applied it.
    committed: dict[int, tuple[Applied, bytes, int]] = field(default_factory=dict)
    # Founders are of an older version until they are started again; who comes later is of the newer one.
    upgraded: set[str] = field(default_factory=set)
    configurations: dict[int, Configuration] = field(default_factory=dict)
    acknowledged: set[bytes] = field(default_factory=set)
    # What no leader took: it has had no effect and never will.
    untaken: set[bytes] = field(default_factory=set)
    reads: int = 0
    leaders: dict[int, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    # Names whose members ended because they were removed, or lost their directories; who may not be started again.
    removed: set[str] = field(default_factory=set)
    wiped: set[str] = field(default_factory=set)
    # Those that came with an older copy of their directories.
    aged: set[str] = field(default_factory=set)
    granted: list[tuple[str, Any]] = field(default_factory=list)
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: Faults | None = None
    # Seconds from the end of all faults until all were level.
    healed: float = 0.0
    # The same until the first write, while those that were dead by then stayed so.
    went_on: float = 0.0

    def __post_init__(self) -> None:
        self.hosts.end = self.end

    @property
    def rng(self) -> random.Random:
        return self.hosts.rng

    # --- what is watched

    def commit(self, applied: Applied, command: bytes, level: int) -> None:
        known = self.committed.setdefault(applied.index, (applied, command, level))
        if known != (applied, command, level):
            self.wrong.append(f"command {applied.index} differs: {known} and {(applied, command, level)}")

    def leading(self, name: str, node: RaftNode, leads: bool) -> None:
        if leads and node.is_leader and self.leaders.setdefault(node.term, name) != name:
            self.wrong.append(f"{name} and {self.leaders[node.term]} lead term {node.term}")

    @property
    def newest(self) -> Configuration:
        if not self.configurations:
            return Configuration()
        return self.configurations[max(self.configurations)]

    # --- members

    def configure(self, name: str, founders: tuple[str, ...], *, joins: bool = False) -> StoreConfig:
        names = sorted({*founders, name, *(m.name for m in self.newest.members if m.name)})
        addresses = {other: self.address(other) for other in names}
        files = [self.folder / kind / name for kind in ("crt", "key", "ca")]
        self.configs[name] = StoreConfig(
            name=name,
            data_dir=self.folder / name,
            client_address=f"{name}:1",
            peer_address=addresses[name],
            members=addresses,
            clients={},
            tls=Tls(*files),
            initial_state="existing" if joins else "new",
            snapshot_entries=self.rng.choice((25, 60, 1000)),
            snapshot_keep_entries=self.rng.choice((0, 5, 20)),
            snapshot_log_bytes=self.rng.choice((2000, 8000, 40_000)),
        )
        return self.configs[name]

    def address(self, name: str) -> str:
        known = self.configs.get(name)
        address = known.peer_address if known is not None else f"10.0.0.1:{_port(name)}"
        host, _, port = address.partition(":")
        self.hosts.addresses[host, int(port)] = name
        return address

    def at(self, address: str) -> str:
        """Who is reached there."""
        host, _, port = address.partition(":")
        return self.hosts.addresses[host, int(port)]

    def known_by(self, name: str) -> StoreConfig:
        """The configuration of one that has nothing yet names who belongs to the group."""
        config = self.configs[name]
        if (config.data_dir / "id").exists() or not self.newest.members:
            return config
        names = {name, *(member.name for member in self.newest.members if member.name)}
        members = {other: self.configs[other].peer_address for other in sorted(names)}
        return msgspec.structs.replace(config, members=members)  # type: ignore[type-var] # it is one

    def start(self, name: str) -> None:
        # As an operator writes it: only a first start goes by it.
        config = self.configs[name] = self.known_by(name)
        if is_joining(config.data_dir):
            config = msgspec.structs.replace(config, initial_state="existing")  # type: ignore[type-var] # it is one
        process = Process(self.hosts, config)
        process.slow = self.rng.choice((0.002, 0.01, 0.2))
        newer = name in self.upgraded or config.initial_state == "existing"
        self.upgraded.add(name)
        machine = Kept(self, Levels(1, 2 if newer else 1))
        node = process.context.copy().run(lambda: RaftNode(config, clock=LoopClock()))
        node.on_leadership(lambda leads: self.leading(name, node, leads))
        committed = node._configuration_committed

        def note(index: int, entry: bytes) -> None:
            found = self.configurations.setdefault(index, decode(entry))
            if found != decode(entry):
                self.wrong.append(f"configuration {index} differs")
            committed(index, entry)

        node._configuration_committed = note  # type: ignore[method-assign]
        life = self.lives[name] = Life(process, node, machine)
        process.spawn(self._live(name, life), f"life-{name}")

    async def _live(self, name: str, life: Life) -> None:
        try:
            await life.node.start(life.machine)
            life.started = True
            await life.node.failed()
        except StartupError as error:
            self._ended(name, life, error)
            await life.node.stop()
            life.process.kill()
            if self.lives.get(name) is life:
                del self.lives[name]

    def _ended(self, name: str, life: Life, error: StartupError) -> None:
        text = str(error)
        self.counts["ended"] += 1
        if "was removed from" in text:
            if life.node.member_id not in self.newest.removed:
                self.wrong.append(f"{name} ended although no removal of it is committed: {text}")
            self.removed.add(name)
            self.counts["ended removed"] += 1
        elif "another data directory" in text and name in self.wiped:
            self.removed.add(name)
            self.counts["ended wiped"] += 1
        elif "older copy" in text and name not in self.aged:
            self.wrong.append(f"{name} has its whole directory, and is told otherwise: {text}")
        elif not error.retry and "no space left" not in text:
            self.wrong.append(f"{name} ended: {text}")

    def kill(self, name: str) -> None:
        life = self.lives.pop(name)
        life.process.kill()
        with contextlib.suppress(AttributeError):
            # Of the dead process, so that its descriptors do not pile up.
            cast(Any, life.node._snapshots)._journal.close()
            cast(Any, life.node._directory).close()
        self.counts["killed"] += 1

    def end(self, process: Process) -> None:
        """The process has died by itself."""
        life = self.lives.get(process.name)
        if life is not None and life.process is process:
            self.kill(process.name)
        else:
            process.kill()

    def running(self) -> list[str]:
        return [name for name, life in self.lives.items() if life.started and not life.process.stopped]

    def waiting(self) -> list[str]:
        """Who has been started to join, and is not awaited."""
        awaited = {member.peer_address for member in self.newest.members}
        return [
            name
            for name, life in self.lives.items()
            if self.newest.named(name) is None
            and not life.node.status().members
            and life.process.config.peer_address not in awaited
        ]

    # --- callers

    def ask(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self.lives[name].process.spawn(work, f"call-{name}")

    async def propose(self, life: Life, command: bytes) -> None:
        try:
            index = await life.node.propose(command)
        except NoLeader:
            self.untaken.add(command)
        except RaftUnavailable:
            return
        else:
            self.acknowledged.add(command)
            if self.committed[cast(int, index)][1] != command:
                self.wrong.append(f"{command!r} was answered with {index!r}")

    async def read(self, life: Life) -> None:
        least = len(self.committed)
        try:
            await life.node.read_barrier()
        except RaftUnavailable:
            return
        self.reads += 1
        if len(life.machine.commands) < least:
            self.wrong.append(f"a read of {life.process.name} sees {len(life.machine.commands)} of {least}")

    async def change(self, what: str, call: Coroutine[Any, Any, Any]) -> None:
        with contextlib.suppress(MembershipError, RaftUnavailable):
            self.granted.append((what, await call))
            self.counts[what] += 1


def _port(name: str) -> int:
    """Where a member is at first: a founder, of one letter, or a later one, of a number."""
    return 2000 + int(name[1:]) if name[1:] else 1000 + ord(name)


def _disturb(world: Cluster) -> None:
    hosts, rng = world.hosts, world.rng
    names = list(world.configs)
    hosts.delay = rng.choice((0.001, 0.001, 0.02, 0.3))
    if rng.random() < 0.35:
        hosts.blocked.clear()
    if rng.random() < 0.25:
        leaders = [name for name, life in world.lives.items() if life.node.is_leader]
        victim = rng.choice([*names, *leaders, *leaders])
        for other in names:
            if other != victim and rng.random() < 0.8:
                pairs = [(victim, other), (other, victim)]
                hosts.blocked |= set(rng.choice((pairs[:1], pairs[1:], pairs)))
    for name in names:
        life = world.lives.get(name)
        if life is not None:
            _happen(world, name, life)
        # One that was removed comes with all that it had, now and then, and is told again.
        elif rng.random() < (0.7 if name not in world.removed else 0.1 if name not in world.wiped else 0.0):
            world.start(name)
    if rng.random() < 0.04:
        for name in list(world.lives):
            world.kill(name)


def _happen(world: Cluster, name: str, life: Life) -> None:
    """What becomes of a member in a round."""
    process, rng = life.process, world.rng
    if process.stopped:
        if rng.random() < 0.7 and not process.held:
            process.resume()
        return
    if rng.random() < 0.6:
        process.disk_full = process.disk_hangs = False
    fate = rng.random()
    if fate < 0.08:
        world.kill(name)
    elif fate < 0.12:
        process.stop()
    elif fate < 0.18:
        process.disk_full, process.disk_hangs = rng.choice(((True, False), (False, True)))
    elif fate < 0.21 and life.started:
        process.spawn(_leave(world, name, life), f"stop-{name}")


async def _leave(world: Cluster, name: str, life: Life) -> None:
    """SIGTERM."""
    await life.node.stop()
    if world.lives.get(name) is life:
        world.kill(name)


def _operate(world: Cluster, founders: tuple[str, ...]) -> None:
    """Ask somebody for a change of members, as an operator does."""
    rng, known, running = world.rng, world.newest, world.running()
    if not running or not known.members:
        return
    within = [name for name in running if known.named(name) is not None]
    asked = world.lives[rng.choice(within or running)].node
    asker = asked._config.name
    kind = rng.random()
    if kind < 0.3:
        _add(world, asker, asked, founders)
    elif kind < 0.5 and len(known.members) > rng.choice((1, 2, 2, 3)):
        gone = rng.choice(known.members)
        world.ask(asker, world.change("remove", asked.remove_member(gone.id)))
    elif kind < 0.6:
        for member in [member for member in known.members if member.learner]:
            world.ask(asker, world.change("promote", asked.promote_member(member.id)))
    elif kind < 0.75:
        _update(world, asker, asked, rng.choice(known.members))
    elif kind < 0.9:
        for name in [name for name in running if world.lives[name].node.is_leader]:
            node, target = world.lives[name].node, rng.choice(known.members)
            world.ask(name, world.change("transfer", node.transfer_leadership(target.id)))
    elif not world.wiped and len(known.voters) >= 3:
        _wipe(world, asker, asked, rng.choice(known.members))


def _add(world: Cluster, asker: str, asked: RaftNode, founders: tuple[str, ...]) -> None:
    """Somebody new, or with nothing under a name that is free again."""
    rng, known = world.rng, world.newest
    if world.faults is not None and (waiting := world.waiting()):
        # Who was refused is not left to wait.
        address = world.configs[rng.choice(waiting)].peer_address
        world.ask(asker, world.change("add", asked.add_member("", address, "", learner=rng.random() < 0.2)))
        return
    free = [name for name in sorted(world.removed) if known.named(name) is None]
    name = rng.choice(free) if free and rng.random() < 0.7 else f"m{len(world.configs)}"
    taken = name in world.lives or (name in world.configs and name not in world.removed)
    address = world.address(name)
    if taken or len(known.members) >= _MOST or any(member.peer_address == address for member in known.members):
        return
    config = world.configure(name, founders, joins=rng.random() < 0.5)
    if config.data_dir.exists() or config.initial_state == "new":
        vacate(config.data_dir, f"before-{rng.getrandbits(32)}")
    world.removed.discard(name)
    world.wiped.discard(name)
    world.ask(asker, world.change("add", asked.add_member("", address, "", learner=rng.random() < 0.2)))
    world.start(name)


def _update(world: Cluster, asker: str, asked: RaftNode, member: Member) -> None:
    """Another address, which the member has from its next start on."""
    if not member.name:
        return
    port = 5000 + world.rng.getrandbits(14)
    address = f"10.0.0.1:{port}"
    config = world.configs[member.name]
    world.hosts.addresses["10.0.0.1", port] = member.name
    members = {**config.members, member.name: address}
    world.configs[member.name] = msgspec.structs.replace(  # type: ignore[type-var] # it is one
        config, peer_address=address, members=members
    )
    world.ask(asker, world.change("update", asked.update_member(member.id, address)))


def _wipe(world: Cluster, asker: str, asked: RaftNode, member: Member) -> None:
    """Its disk is lost, when all who run know what it was known by; it is removed, and may come again before that."""
    name = member.name
    known = all(
        (own := life.node.status().members)
        and all(each.directory_id for each in own)
        and {each.id for each in own} == {each.id for each in world.newest.members}
        for life in world.lives.values()
    )
    everybody = {each.name for each in world.newest.members} <= set(world.lives)
    if not name or not known or not everybody or name == asker:
        return
    if name in world.lives:
        world.kill(name)
    shutil.rmtree(world.configs[name].data_dir, ignore_errors=True)
    world.counts["wiped"] += 1
    world.wiped.add(name)
    world.configs[name] = msgspec.structs.replace(world.configs[name], initial_state="new")  # type: ignore[type-var]
    if world.rng.random() < 0.7:
        world.start(name)
    else:
        world.removed.add(name)
    world.ask(asker, world.change("remove wiped", asked.remove_member(member.id)))


async def _play(world: Cluster, founders: tuple[str, ...], rounds: int) -> None:
    for name in founders:
        world.configs[name] = world.configure(name, founders)
    for name in founders:
        world.start(name)
    number = 0
    await asyncio.sleep(5)
    for _ in range(rounds):
        _disturb(world)
        if world.faults is not None:
            world.faults.begin(lambda: _operate(world, founders))
        for _ in range(20):
            await asyncio.sleep(world.rng.random() * 0.15)
            running = world.running()
            if running:
                number += 1
                name = world.rng.choice(running)
                world.ask(name, world.propose(world.lives[name], b"%d" % number))
                name = world.rng.choice(running)
                world.ask(name, world.read(world.lives[name]))
        if world.rng.random() < 0.6:
            _operate(world, founders)
        if world.wrong:
            break
    if world.faults is not None:
        await world.faults.end()


async def _settle(world: Cluster) -> None:
    """End all faults; whoever was lost is removed, and everybody else must come to the same by themselves."""
    world.hosts.blocked.clear()
    world.hosts.slow.clear()
    world.hosts.delay = 0.001
    began = world.hosts.loop.time()
    _mend_addresses(world)
    where = {member.name: member.peer_address for member in world.newest.members}
    for name in list(world.lives):
        known = world.lives[name].process.config
        moved = any(where.get(other, address) != address for other, address in known.members.items())
        if moved and not (known.data_dir / "id").exists():
            # It joins, and its file had the others elsewhere.
            world.kill(name)
    if world.faults is not None:
        await _go_on_without(world)
    end = began + _HEALED
    while world.hosts.loop.time() < end and not world.wrong:
        for name in world.configs:
            life = world.lives.get(name)
            if life is None:
                if name not in world.removed:
                    world.start(name)
                continue
            life.process.disk_full = life.process.disk_hangs = False
            life.process.slow, life.process.dies_at = 0.002, ""
            if life.process.stopped:
                life.process.resume()
        await asyncio.sleep(1)
        # What was asked for before may come to be only now.
        _mend_addresses(world)
        if _level(world):
            world.healed = world.hosts.loop.time() - began
            break
    else:
        world.wrong.append(f"not all is well after {_HEALED} s: {_state(world)}")
        return
    # Whoever belongs to it serves.
    asked = [world.lives[member.name] for member in world.newest.members if member.name in world.lives]
    last = [b"last of " + life.process.name.encode() for life in asked]
    for life, command in zip(asked, last, strict=True):
        world.ask(life.process.name, world.propose(life, command))
        world.ask(life.process.name, world.read(life))
    await asyncio.sleep(10)
    if not world.acknowledged.issuperset(last):
        world.wrong.append(f"not everybody serves: {_state(world)}")


async def _go_on_without(world: Cluster) -> None:
    """Whoever is dead or stopped stays so for now: where the others are enough, some write must get through."""
    for life in world.lives.values():
        life.process.disk_full = life.process.disk_hangs = False
        life.process.slow, life.process.dies_at = 0.002, ""
    await asyncio.sleep(1)
    before = len(world.acknowledged)
    for number in range(int(_HEALED)):
        running = world.running()
        nodes = [world.lives[name].node for name in running]
        # One that is not committed counts as well where a log has it.
        known = [world.newest.voters, *(node._configurations.current.voters for node in nodes)]
        if world.wiped or not all(2 * len(voters & set(running)) > len(voters) for voters in known if voters):
            return
        for name in running:
            world.ask(name, world.propose(world.lives[name], b"without the lost %d %s" % (number, name.encode())))
        await asyncio.sleep(1)
        if len(world.acknowledged) > before:
            world.counts["went on"] += 1
            world.went_on = max(world.went_on, number)
            return
    world.wrong.append(f"no write gets through, although there are enough: {_state(world)}")


def _mend_addresses(world: Cluster) -> None:
    """Whoever moved, and the group does not know of it, moves back."""
    for member in world.newest.members:
        name = world.at(member.peer_address)
        config, life = world.configs[name], world.lives.get(name)
        if life is not None and life.process.config.peer_address != member.peer_address:
            world.kill(name)
        if config.peer_address != member.peer_address:
            world.configs[name] = msgspec.structs.replace(  # type: ignore[type-var] # it is one
                config, peer_address=member.peer_address, members={**config.members, name: member.peer_address}
            )


def _level(world: Cluster) -> bool:
    # Who was asked for once more, and has ended since, is awaited for nothing.
    names = [member.name or world.at(member.peer_address) for member in world.newest.members]
    lives = [world.lives.get(name) for name in names if name not in world.removed]
    if not lives or any(life is None or not life.started for life in lives):
        return False
    nodes = [life.node for life in lives if life is not None]
    ends = {(node.status().applied_index, node.status().commit_index) for node in nodes}
    return (
        len(ends) == 1
        and any(node.is_leader for node in nodes)
        and all(node._configurations.current == world.newest for node in nodes)
    )


def _state(world: Cluster) -> str:
    parts = [f"newest {[(m.name, m.peer_address, m.learner) for m in world.newest.members]} gone {world.removed}"]
    for name, life in world.lives.items():
        status = life.node.status()
        parts.append(
            f"{name}({life.started}): leads {life.node.is_leader}, leader {status.leader and status.leader.name}, "
            f"term {status.term}, commit {status.commit_index}, applied {status.applied_index}, {status.trouble} "
            f"members {[(m.name, m.learner) for m in status.members]}"
        )
    return "\n".join(parts)


def make(folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch, *, more: bool = False) -> Cluster:
    """A world with nobody in it yet, all of whose chance is the seed's; `more`: with the faults of `faults`, too."""
    random.seed(seed)
    hosts = Hosts(random.Random(seed))
    hosts.prepare(monkeypatch)
    world = Cluster(hosts, folder)
    if more:
        world.faults = Faults(world)
    return world


def end(world: Cluster, scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario to its end, and end everybody and the world."""
    world.hosts.run(scenario)
    for name in list(world.lives):
        world.kill(name)
    world.hosts.loop.close()


def play(world: Cluster, founders: tuple[str, ...], rounds: int) -> None:
    """Let members found a group, let things happen to it, and let all be well again."""

    async def scenario() -> None:
        await _play(world, founders, rounds)
        if not world.wrong:
            await _settle(world)

    end(world, scenario())


def check(world: Cluster) -> None:
    """What must be so in any world, at its end."""
    levels = [level for _, (_, _, level) in sorted(world.committed.items())]
    assert not world.wrong, "\n".join(world.wrong)
    final = [command for _, (_, command, _) in sorted(world.committed.items())]
    assert levels == sorted(levels)
    assert sorted(world.committed) == list(range(1, len(final) + 1))
    assert max(collections.Counter(final).values()) == 1
    assert world.acknowledged <= set(final)
    assert not world.untaken & set(final)


# A process that is killed closes nothing.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("more", [False, True], ids=["faults", "more-faults"])
@pytest.mark.parametrize("seed", range(_FIRST, _FIRST + _SEEDS))
def test_promises_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, more: bool) -> None:
    world = make(tmp_path, seed, monkeypatch, more=more)
    founders = tuple("abcde"[: (3, 2, 4, 5, 1)[seed % 5]])
    play(world, founders, _ROUNDS)
    print(
        f"{seed}: {len(founders)} founders, {len(world.committed)} commands, {world.reads} reads, "
        f"{len(world.configurations)} configurations, well after {world.healed:.1f} s, {dict(world.counts)}"
    )
    check(world)
