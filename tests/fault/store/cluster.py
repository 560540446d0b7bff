"""Three kybern-store processes behind relays, and what a round does to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import grpc.aio
import msgspec
from google.protobuf.message import Message

from kybern.config.loading import dump
from kybern.config.models import StoreConfig
from kybern.pb.etcd import maintenance_pb2
from kybern.rpc.credentials import open_channel
from tests.fault.store.calls import R, unary
from tests.fault.store.relay import Network
from tests.integration.store.serving import HOST, Certificates, free_port

NAMES = ("s1", "s2", "s3")
# Short, so that a round is; longer than a loaded machine takes to answer, so that leaders last.
_HEARTBEAT = 0.05
_ELECTION = (0.4, 0.9)
_PATIENCE = 60.0
# Often, so that faults meet them (a store that takes none does not know these).
_SNAPSHOTS = {"snapshot_entries": 150, "snapshot_keep_entries": 30}


class Cluster:
    """The processes. Every member has its own certificate, data directory `FOLDER/NAME`, and log `FOLDER/NAME.out`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificates = Certificates(folder)
        self.master = self.certificates.master()
        self.clients = {name: f"{HOST}:{free_port()}" for name in NAMES}
        self._peers = {name: f"{HOST}:{free_port()}" for name in NAMES}
        self.network = Network(self._peers)
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.kills = 0
        self.fail_point_exits = 0
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def start(self) -> None:
        """Start all members and wait until they serve."""
        await self.network.start()
        for name in NAMES:
            members = {other: self.network.address(name, other) for other in NAMES if other != name}
            config = StoreConfig(
                name=name,
                data_dir=self.data(name),
                client_address=self.clients[name],
                peer_address=self._peers[name],
                members={**members, name: self._peers[name]},
                clients=self.clients,
                tls=self.certificates.member(name),
                cluster_name="fault",
                heartbeat_interval=_HEARTBEAT,
                election_timeout_min=_ELECTION[0],
                election_timeout_max=_ELECTION[1],
                # Compaction is part of the load, which knows what it still needs.
                history_revisions=10_000_000,
                history_seconds=1e6,
            )
            changes = {field: value for field, value in _SNAPSHOTS.items() if hasattr(config, field)}
            config = msgspec.structs.replace(config, **changes)  # type: ignore[type-var] # not for type checkers
            (self.folder / f"{name}.yaml").write_text(dump(config))
        await asyncio.gather(*map(self.up, NAMES))

    async def stop(self) -> None:
        """End everything that was started."""
        self.network.heal()
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

    async def up(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a member's process."""
        command = [sys.executable, "-m", "store.main", "--config", str(self.folder / f"{name}.yaml")]
        if setpriv := shutil.which("setpriv"):
            # A harness that is killed leaves nothing behind.
            command = [setpriv, "--pdeathsig", "KILL", *command]
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
                    self.kills += 1
        for process in dying:
            await process.wait()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal."""
        with contextlib.suppress(ProcessLookupError):
            self.processes[name].send_signal(number)

    async def heal(self) -> None:
        """Mend the network, continue what is stopped, start what does not run, wait until every member serves."""
        self.network.heal()
        for name, process in list(self.processes.items()):
            if process.returncode is None:
                self.signal(name, signal.SIGCONT)
            else:
                await self.up(name)

    async def leader(self) -> str:
        """The member that leads, by what the members say of themselves.

        Raises:
            TimeoutError: when there is none for a minute.
        """
        async with asyncio.timeout(_PATIENCE):
            while True:
                statuses = await asyncio.gather(*map(self.status, NAMES))
                leading = [
                    (status.raftTerm, name)
                    for name, status in zip(NAMES, statuses, strict=True)
                    if status is not None and status.leader == status.header.member_id
                ]
                if leading:
                    return max(leading)[1]
                await asyncio.sleep(0.05)

    async def status(self, name: str) -> maintenance_pb2.StatusResponse | None:
        """What a member says of itself; None when it does not answer."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            request = maintenance_pb2.StatusRequest()
            return await self._call(name, "Status", request, maintenance_pb2.StatusResponse, 1.0)
        return None

    async def hash(self, name: str, revision: int) -> tuple[int, int]:
        """A member's checksum of all keys up to a revision, and the revision it has compacted to."""
        request = maintenance_pb2.HashKVRequest(revision=revision)
        answer = await self._call(name, "HashKV", request, maintenance_pb2.HashKVResponse, _PATIENCE)
        return answer.hash, answer.compact_revision

    async def _call(self, name: str, method: str, request: Message, response: type[R], seconds: float) -> R:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = open_channel(self.clients[name], self.master)
        return await unary(channel, f"/etcdserverpb.Maintenance/{method}", request, response, seconds)
