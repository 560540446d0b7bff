"""Members whose data directories are set back to an older copy, by seed: nothing that was acknowledged is lost.

One of the others remembers where they stood, and is there until they have been told.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from store.raft import messages
from tests.property.store.raft.test_hosts import Cluster, _settle, check, end, make
from tests.property.store.raft.test_scenarios import found, leader, until

_SEEDS = int(os.environ.get("KYBERN_SEEDS", "6"))
_FIRST = int(os.environ.get("KYBERN_FIRST_SEED", "0"))


async def write(world: Cluster, count: int, *, through: str = "") -> None:
    """Propose commands, and wait until one that was proposed last is acknowledged."""
    command = b""
    for number in range(count + 60):
        if number >= count and command in world.acknowledged:
            return
        world.counts["written"] += 1
        command = b"%d" % world.counts["written"]
        name = through or world.rng.choice(world.running())
        world.ask(name, world.propose(world.lives[name], command))
        # There may have been no leader: each is proposed once.
        await asyncio.sleep(world.rng.random() * 0.05 if number < count - 1 else 1)
    pytest.fail(f"none of 60 more is acknowledged within as many seconds, after {count}")


async def acquainted(world: Cluster) -> None:
    """Wait until all know each other's directories, and have heard where they stand."""
    await until(
        lambda: all(
            len(members := life.node.status().members) == len(world.configs) and all(m.directory_id for m in members)
            for life in world.lives.values()
        ),
        "they are acquainted",
    )
    await asyncio.sleep(2)


def copied(world: Cluster, name: str) -> Path:
    """A copy of a member's directory as it is at this moment."""
    directory = world.configs[name].data_dir
    copy = directory.with_name(f"{name}-copy")
    shutil.copytree(directory, copy)
    return copy


def set_back(world: Cluster, name: str, copy: Path) -> None:
    """The member dies, and starts with the copy."""
    world.kill(name)
    directory = world.configs[name].data_dir
    shutil.rmtree(directory)
    copy.rename(directory)
    world.aged.add(name)
    world.start(name)


def send_no_entries(world: Cluster, name: str, to: str) -> None:
    """What a member says to another one has no entries from now on, and nothing of a snapshot."""
    transport = world.lives[name].node._transport
    send = transport.send

    def sending(peer: str, message: messages.Message) -> bool:
        withheld = isinstance(message, messages.SnapshotPart) or (
            isinstance(message, messages.Append) and len(message.entries) > 0
        )
        return not (peer == to and withheld) and send(peer, message)

    transport.send = sending  # type: ignore[method-assign]


async def told(world: Cluster, name: str) -> None:
    """Wait until a member has been told what it owes, or has lost nothing."""
    ended, most = world.counts["ended"], len(world.committed)

    def knows() -> bool:
        life = world.lives.get(name)
        return world.counts["ended"] > ended or (life is not None and len(life.machine.commands) >= most)

    await until(knows, "it is told")


def owes_nothing(world: Cluster, name: str) -> Callable[[], bool]:
    """Whether a member has again what it has acknowledged."""
    owed = world.configs[name].data_dir / "owed"
    return lambda: not owed.exists()


async def unsettle(world: Cluster) -> None:
    """What happens between the copy and the day on which it is needed."""
    rng = world.rng
    for _ in range(rng.randrange(4)):
        await write(world, rng.randrange(1, 40))
        name = rng.choice(sorted(world.lives))
        if rng.random() < 0.4:
            world.kill(name)
            await asyncio.sleep(rng.random() * 3)
            world.start(name)
        elif leads := leader(world):
            node, target = world.lives[leads].node, world.lives[name].node.member_id
            world.ask(leads, world.change("transfer", node.transfer_leadership(target)))
        await until(lambda: leader(world) != "" and len(world.running()) == len(world.configs), "all are well")
    await write(world, rng.randrange(1, 60))


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("seed", range(_FIRST, _FIRST + _SEEDS))
def test_nothing_is_lost_while_one_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    world = make(tmp_path, seed, monkeypatch)
    founders = ("a", "b", "c")

    async def scenario() -> None:
        await found(world, *founders)
        await write(world, 5)
        await acquainted(world)
        goes_back = world.rng.choice(founders)
        copy = copied(world, goes_back)
        await unsettle(world)
        await acquainted(world)
        # One of the others lags, so that the third alone has everything when this one is set back.
        keeps = world.rng.choice([name for name in founders if name != goes_back])
        lags = next(name for name in founders if name not in (goes_back, keeps))
        world.hosts.blocked |= {pair for name in founders for pair in ((lags, name), (name, lags)) if name != lags}
        await until(lambda: leader(world) in (goes_back, keeps), "a leader that others can reach")
        await write(world, world.rng.randrange(1, 30), through=keeps)
        await asyncio.sleep(world.rng.random() * 2)
        # As long as it takes to send it a large state.
        send_no_entries(world, keeps, goes_back)
        set_back(world, goes_back, copy)
        await asyncio.sleep(1 + 4 * world.rng.random())
        world.kill(keeps)
        world.hosts.blocked.clear()
        if goes_back not in world.lives:
            world.start(goes_back)
        # A leader that they elect now would be without what the third has.
        await asyncio.sleep(30)
        await _settle(world)

    end(world, scenario())
    check(world)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("seed", range(_FIRST, _FIRST + _SEEDS))
def test_the_group_goes_on_and_has_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    world = make(tmp_path, seed, monkeypatch)
    founders = tuple("abcde"[: (3, 5)[seed % 2]])

    async def scenario() -> None:
        await found(world, *founders)
        await write(world, 5)
        await acquainted(world)
        goes_back = world.rng.choice(founders)
        for _ in range(3):
            copy = copied(world, goes_back)
            await unsettle(world)
            await acquainted(world)
            set_back(world, goes_back, copy)
            # Others die meanwhile, as many as may be away.
            others = [name for name in founders if name != goes_back and world.rng.random() < 0.5]
            gone = others[: len(founders) // 2 - 1]
            await told(world, goes_back)
            for name in gone:
                world.kill(name)
            for _ in range(20):
                await asyncio.sleep(1)
                if goes_back not in world.lives:
                    world.start(goes_back)
            await write(world, 3, through=world.rng.choice([name for name in founders if name not in gone]))
            for name in gone:
                world.start(name)
            await until(owes_nothing(world, goes_back), "it has everything again")
            await acquainted(world)
        await _settle(world)

    end(world, scenario())
    check(world)
