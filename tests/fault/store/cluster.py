"""Three kybern-store processes, each in a network of its own, and what a round does to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import grpc.aio
from google.protobuf.message import Message

from kybern.config.loading import dump
from kybern.config.models import StoreConfig
from kybern.pb.etcd import maintenance_pb2
from kybern.rpc.credentials import open_channel
from tests.fault.store.calls import R, unary
from tests.fault.store.network import Network
from tests.integration.store.serving import Certificates

NAMES = ("s1", "s2", "s3")
# Short, so that a round is; longer than a loaded machine takes to answer, so that leaders last.
_HEARTBEAT = 0.05
_ELECTION = (0.4, 0.9)
_PATIENCE = 60.0
_CLIENT_PORT, _PEER_PORT = 2379, 2380
# Clocks that jump back stay within what certificates are valid for.
_CERTIFICATE_AGE = timedelta(hours=3)
FAIL_POINTS = "KYBERN_FAILPOINTS"
_FIRED = re.compile(r"^fail point (\S+): ", re.MULTILINE)


@dataclass
class Tallies:
    """What was done, and seen while it was done."""

    kills: int = 0
    fail_point_exits: int = 0
    leaders_isolated: int = 0
    leaders_with_hanging_disks: int = 0
    # Reads that an isolated leader was asked for, and those that it answered.
    isolated_reads: int = 0
    isolated_reads_answered: int = 0
    members_replaced: int = 0
    # That were started without the data that they had lost, and ended.
    blank_members_refused: int = 0
    clock_jumps: int = 0


class Cluster:
    """The processes. Every member has its own certificate, data directory `FOLDER/NAME`, and log `FOLDER/NAME.out`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificates = Certificates(folder, _CERTIFICATE_AGE)
        self.master = self.certificates.master()
        self.network = Network(NAMES)
        self.clients = {name: f"{address}:{_CLIENT_PORT}" for name, address in self.network.addresses.items()}
        self.peers = {name: f"{address}:{_PEER_PORT}" for name, address in self.network.addresses.items()}
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.tallies = Tallies()
        # The revision up to which everything was checked, and the one to which compaction was asked for.
        self.checked = self.compacted = 1
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def start(self) -> None:
        """Start all members and wait until they serve."""
        await self.network.start()
        for name in NAMES:
            self.configure(name, "new")
        await asyncio.gather(*map(self.up, NAMES))

    def configure(self, name: str, initial_state: Literal["new", "existing"]) -> None:
        """Write a member's configuration."""
        config = StoreConfig(
            name=name,
            data_dir=self.data(name),
            client_address=self.clients[name],
            peer_address=self.peers[name],
            members=self.peers,
            clients=self.clients,
            tls=self.certificates.member(name, self.network.addresses[name]),
            cluster_name="fault",
            initial_state=initial_state,
            heartbeat_interval=_HEARTBEAT,
            election_timeout_min=_ELECTION[0],
            election_timeout_max=_ELECTION[1],
            # Compaction is part of the load, which knows what it still needs.
            history_revisions=10_000_000,
            history_seconds=1e6,
            # Often, so that faults meet them; and segments of a few KiB, so that most snapshots let some go.
            snapshot_entries=150,
            snapshot_keep_entries=30,
            snapshot_log_bytes=48 << 10,
        )
        (self.folder / f"{name}.yaml").write_text(dump(config))

    async def stop(self) -> None:
        """End everything that was started."""
        for channel in self._channels.values():
            await channel.close()
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            await process.wait()
        await self.network.stop()

    def data(self, name: str) -> Path:
        """A member's data directory."""
        return self.folder / name

    def output(self, name: str) -> str:
        """What a member has said so far."""
        return (self.folder / f"{name}.out").read_text()

    def fired(self, name: str) -> Counter[str]:
        """The fail points that acted in a member so far."""
        return Counter(_FIRED.findall(self.output(name)))

    async def up(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a member's process."""
        command = [sys.executable, "-m", "store.main", "--config", str(self.folder / f"{name}.yaml")]
        if setpriv := shutil.which("setpriv"):
            # A harness that is killed leaves nothing behind.
            command = [setpriv, "--pdeathsig", "KILL", *command]
        command = [*self.network.within(name), *command]
        with (self.folder / f"{name}.out").open("ab") as out:
            self.processes[name] = await asyncio.create_subprocess_exec(
                *command,
                env={**os.environ, **(environment or {})},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    async def kill(self, names: Iterable[str]) -> None:
        """SIGKILL members, all before any is waited for."""
        dying = [self.processes[name] for name in names]
        for process in dying:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                    self.tallies.kills += 1
        for process in dying:
            await process.wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal."""
        with contextlib.suppress(ProcessLookupError):
            self.processes[name].send_signal(number)

    async def heal(self) -> None:
        """Mend the network, continue what is stopped, start what does not run, wait until every member serves."""
        await self.network.heal()
        for name, process in list(self.processes.items()):
            if process.returncode is None:
                self.signal(name, signal.SIGCONT)
            else:
                await self.up(name)

    async def leader(self, among: Iterable[str] = NAMES) -> str:
        """The member that leads, by what the members say of themselves.

        Raises:
            TimeoutError: when there is none for a minute.
        """
        asked = tuple(among)
        async with asyncio.timeout(_PATIENCE):
            while True:
                statuses = await asyncio.gather(*map(self.status, asked))
                leading = [
                    (status.raftTerm, name)
                    for name, status in zip(asked, statuses, strict=True)
                    if status is not None and status.leader == status.header.member_id
                ]
                if leading:
                    return max(leading)[1]
                await asyncio.sleep(0.05)

    async def lead(self, name: str) -> bool:
        """Let a member lead; whether it does."""
        leader = await self.leader()
        status = await self.status(name)
        if leader != name and status is not None:
            request = maintenance_pb2.MoveLeaderRequest(targetID=status.header.member_id)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self.call(leader, "Maintenance/MoveLeader", request, maintenance_pb2.MoveLeaderResponse, 5.0)
        return await self.leader() == name

    async def status(self, name: str) -> maintenance_pb2.StatusResponse | None:
        """What a member says of itself; None when it does not answer."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            request = maintenance_pb2.StatusRequest()
            return await self.call(name, "Maintenance/Status", request, maintenance_pb2.StatusResponse, 1.0)
        return None

    async def hash(self, name: str, revision: int) -> tuple[int, int]:
        """A member's checksum of all keys up to a revision, and the revision it has compacted to."""
        request = maintenance_pb2.HashKVRequest(revision=revision)
        response = maintenance_pb2.HashKVResponse
        answer = await self.call(name, "Maintenance/HashKV", request, response, _PATIENCE, wait=True)
        return answer.hash, answer.compact_revision

    async def call(
        self, name: str, method: str, request: Message, response: type[R], seconds: float, *, wait: bool = False
    ) -> R:
        """One of etcd's calls, made once, to one member (`wait`: once it can be reached).

        Raises:
            AioRpcError: when it refuses, or does not answer in time.
        """
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = open_channel(self.clients[name], self.master)
        return await unary(channel, f"/etcdserverpb.{method}", request, response, seconds, wait=wait)
