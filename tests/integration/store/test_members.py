"""etcdctl adds, promotes, updates and removes members and moves the leader; the members are processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kybern.client.etcd import EtcdClient
from kybern.client.store import Compare, Put, StoreUnavailable, Target
from tests.integration.store.daemons import Daemons
from tests.integration.store.members import configure
from tests.integration.store.serving import HOST, Certificates, Endpoint, Result, etcdctl
from tests.ports import free_port

REMOVED = "was removed from the store's group"


class Growing(Daemons):
    """Members that are added one by one, with etcdctl alone."""

    peers: dict[str, str]

    def configure(self, name: str, state: str) -> None:
        """Write a member's file: it names those that were there when it came."""
        self.peers[name] = f"{HOST}:{free_port()}"
        self.clients[name] = f"{HOST}:{free_port()}"
        configure(self.folder, self.certificates, name, self.peers, self.clients, initial_state=state)

    async def ctl(self, *arguments: str, through: str = "") -> Result:
        """Run etcdctl against one member, or all that run."""
        running = [name for name, process in self.processes.items() if process.returncode is None]
        addresses = [self.clients[name] for name in ([through] if through else running)]
        return await etcdctl(Endpoint(",https://".join(addresses), self.certificates.master()), *arguments)

    async def ok(self, *arguments: str, through: str = "") -> str:
        """Run a command that succeeds; its output."""
        result = await self.ctl(*arguments, through=through)
        assert result.code == 0, result
        return result.out

    async def members(self, through: str = "") -> Mapping[str, Mapping[str, Any]]:
        """The list of members by name; those that have none yet by their peer URL."""
        found = json.loads(await self.ok("member", "list", "-w", "json", through=through))["members"]
        return {member.get("name") or member["peerURLs"][0]: member for member in found}

    async def hex_id(self, name: str) -> str:
        return f"{(await self.members())[name]['ID']:x}"

    async def join(self, name: str, *options: str) -> str:
        """Add a member through etcdctl, start it and wait until it has everything; what etcdctl said."""
        self.configure(name, "existing")
        said = await self.ok("member", "add", name, f"--peer-urls=https://{self.peers[name]}", *options)
        assert not (await self.members())[f"https://{self.peers[name]}"].get("clientURLs")
        await self.start(name)
        await self.until_ready(name)
        return said

    async def until_votes(self, name: str) -> None:
        async with asyncio.timeout(60):
            while (await self.members())[name].get("isLearner"):  # noqa: ASYNC110 - another process decides
                await asyncio.sleep(0.05)


@pytest.fixture
async def growing(certificates: Certificates, tmp_path: Path) -> AsyncIterator[Growing]:
    group = Growing(tmp_path, certificates, {})
    group.peers = {}
    group.configure("s1", "new")
    try:
        await group.start("s1")
        await group.until_ready("s1")
        yield group
    finally:
        for process in group.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in group.processes.values():
            await process.wait()
    for name in group.processes:
        assert "Traceback" not in (tmp_path / f"{name}.log").read_text()


async def ended(group: Growing, name: str) -> None:
    """Wait until a removed member has ended by itself, and has said why."""
    async with asyncio.timeout(30):
        code = await group.processes[name].wait()
    assert code not in (0, None)
    assert REMOVED in (group.folder / f"{name}.log").read_text().splitlines()[-1]


async def test_etcdctl_changes_members(growing: Growing) -> None:
    said = await growing.join("s2")
    assert 'ETCD_NAME="s2"' in said
    assert "ETCD_INITIAL_CLUSTER_STATE" in said
    await growing.until_votes("s2")
    await growing.join("s3", "--learner")
    members = await growing.members()
    assert [bool(members[name].get("isLearner")) for name in ("s1", "s2", "s3")] == [False, False, True]
    assert members["s3"]["clientURLs"] == [f"https://{growing.clients['s3']}"]
    await growing.ok("put", "k", "v")
    (status,) = json.loads(await growing.ok("endpoint", "status", "-w", "json", through="s3"))
    assert status["Status"]["isLearner"]
    assert "promoted" in await growing.ok("member", "promote", await growing.hex_id("s3"))
    # What etcdctl moves the leader with has to reach the leader, and the endpoints name them all.
    leader = await growing.leader()
    target = next(name for name in ("s1", "s2", "s3") if name != leader)
    assert "transferred" in await growing.ok("move-leader", await growing.hex_id(target)), "moved"
    assert await growing.leader() == target
    # The leader itself leaves; the others go on.
    assert "removed from cluster" in await growing.ok("member", "remove", await growing.hex_id(target))
    await ended(growing, target)
    assert "v" in await growing.ok("get", "k")
    assert target not in await growing.members()
    # Started again it says the same, at once or when the others answer.
    await growing.start(target)
    await ended(growing, target)


async def test_etcdctl_is_refused_in_etcds_words(growing: Growing) -> None:
    await growing.join("s2", "--learner")
    own, other = await growing.hex_id("s1"), await growing.hex_id("s2")
    taken = f"--peer-urls=https://{growing.peers['s1']}"
    refusals = [
        (("member", "add", "s3", taken), "Peer URLs already exists"),
        (("member", "add", "s3", "--peer-urls=http://127.0.0.1:1"), "given member URLs are invalid"),
        (
            ("member", "add", "s3", "--peer-urls=https://127.0.0.1:1,https://127.0.0.1:2"),
            "given member URLs are invalid",
        ),
        (("member", "remove", "1234"), "member not found"),
        (("member", "remove", own), "not enough started members"),
        (("member", "promote", own), "can only promote a learner member"),
        (("member", "update", "1234", "--peer-urls=https://127.0.0.1:1"), "member not found"),
        (("member", "update", other, taken), "Peer URLs already exists"),
        (("move-leader", other), "bad leader transferee"),
    ]
    for command, words in refusals:
        result = await growing.ctl(*command, through="s1")
        assert result.code != 0, command
        assert words in result.err, (command, result.err)
    growing.processes["s2"].kill()
    await growing.processes["s2"].wait()
    # A learner that is away is not promoted, and does not count: the group goes on with one vote.
    async with asyncio.timeout(30):
        while "in sync with leader" not in (await growing.ctl("member", "promote", other, through="s1")).err:  # noqa: ASYNC110 - the leader misses it in its own time
            await asyncio.sleep(0.05)
    await growing.ok("put", "k", "v", through="s1")
    assert "updated" in await growing.ok("member", "update", other, "--peer-urls=https://127.0.0.1:1", through="s1")


async def test_crashes_during_changes_lose_nothing(growing: Growing) -> None:
    for name in ("s2", "s3"):
        await growing.join(name)
        await growing.until_votes(name)
    client = EtcdClient(list(growing.clients.values()), growing.certificates.master(), timeout=30)
    written: list[bytes] = []
    resting = False

    async def write() -> None:
        number = 0
        while not resting:
            key = b"k/%06d" % number
            number += 1
            with contextlib.suppress(StoreUnavailable):
                await client.txn([Compare(key, Target.VERSION, 0)], [Put(key, b"")])
                written.append(key)

    writing = asyncio.create_task(write())
    for number in range(3):
        leader = await growing.leader()
        through = next(name for name in ("s1", "s2", "s3") if name != leader)
        url = f"https://{HOST}:{free_port()}"
        change = asyncio.create_task(
            growing.ctl("member", "add", "s9", f"--peer-urls={url}", "--learner", through=through)
        )
        # Now and then before, during and after its commit.
        await asyncio.sleep(0.01 * number)
        growing.processes[leader].send_signal(signal.SIGKILL)
        await growing.processes[leader].wait()
        done = await change
        members = await growing.members(through=through)
        assert done.code != 0 or url in members
        await growing.start(leader)
        await growing.until_ready(leader)
        if url in members:
            await growing.ok("member", "remove", f"{members[url]['ID']:x}", through=through)
    resting = True
    await writing
    found = {kv.key for kv in (await client.range(b"k/", b"k0")).items}
    assert set(written) <= found
    lists = [await growing.members(through=name) for name in ("s1", "s2", "s3")]
    assert lists[0] == lists[1] == lists[2]
    assert sorted(lists[0]) == ["s1", "s2", "s3"]
    await client.close()
