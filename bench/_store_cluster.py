"""Three members of our store, and three of Debian's etcd, as processes with the same certificates on the same disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import msgspec

from kybern import pki
from kybern.config.models import Tls
from kybern.pb.etcd import kv_pb2, maintenance_pb2
from tests.ports import free_ports

HOST = "127.0.0.1"
Call = Callable[[bytes], Awaitable[bytes]]
NAMES = ("s1", "s2", "s3")
_START_SECONDS = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")


def certificates(folder: Path) -> dict[str, Tls]:
    """What the members and the clients show: one authority for all."""
    now = pki.utc_now()
    authority = pki.new_authority("store-ca", now)
    authority.write(folder / "ca.crt", folder / "ca.key")
    issued = {}
    for name in (*NAMES, "client"):
        server = name != "client"
        groups = ("kybern:store",) if server else (pki.GROUP_MASTERS,)
        pair = pki.issue(authority, pki.Identity(name, groups), now, hosts=(HOST,) if server else (), server=server)
        tls = Tls(folder / f"{name}.crt", folder / f"{name}.key", folder / "ca.crt")
        pair.write(tls.cert, tls.key)
        issued[name] = tls
    return issued


def channel(address: str, tls: Tls, *, largest: int = 64 << 20) -> grpc.aio.Channel:
    """A connection as an ordinary client has one, for answers of at most `largest` bytes."""
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.key.read_bytes(), tls.cert.read_bytes())
    options = [("grpc.max_receive_message_length", largest), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(address, credentials, options=options)


def unary(connection: grpc.aio.Channel, method: str) -> Call:
    """A method that takes and answers bytes."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = connection.unary_unary(method)
    return call


@dataclass(slots=True)
class Cluster:
    """Three running members of one side. `clients`, `peers` and `metrics` are addresses by name.

    `settings` are further ones of our members' configuration; with `observed` they serve their metrics.
    """

    side: str
    folder: Path
    tls: Mapping[str, Tls]
    settings: Mapping[str, object] = field(default_factory=dict)
    observed: bool = False
    clients: dict[str, str] = field(default_factory=dict)
    peers: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        addresses = [f"{HOST}:{port}" for port in free_ports(3 * len(NAMES))]
        self.clients, self.peers, self.metrics = (dict(zip(NAMES, addresses[at::3], strict=True)) for at in range(3))

    def launch(self, name: str) -> None:
        """Start one member's process."""
        command = self._ours(name) if self.side == "ours" else self._etcd(name)
        environment = {key: os.environ[key] for key in ("PATH", "PYTHONPATH", "HOME") if key in os.environ}
        with (self.folder / f"{name}.log").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
            )

    async def start(self) -> None:
        """Start all members and wait until each answers."""
        for name in NAMES:
            self.launch(name)
        for name in NAMES:
            await self.until_serving(name)

    async def until_serving(self, name: str) -> None:
        """Wait until a member answers a linearizable read.

        Raises:
            TimeoutError: when it does not, or its process has ended.
        """
        deadline = time.monotonic() + _START_SECONDS
        while True:
            process = self.processes[name]
            if process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"{self.side}: {name} does not serve: see {self.folder / name}.log")
            async with channel(self.clients[name], self.tls["client"]) as connection:
                read = unary(connection, "/etcdserverpb.KV/Range")
                try:
                    await asyncio.wait_for(read(kv_pb2.RangeRequest(key=b"/none").SerializeToString()), 2.0)
                except (grpc.aio.AioRpcError, TimeoutError):
                    await asyncio.sleep(0.02)
                else:
                    return

    async def leader(self) -> str:
        """The name of the member that leads.

        Raises:
            TimeoutError: when nobody does.
        """
        for _ in range(100):
            for name, address in self.clients.items():
                async with channel(address, self.tls["client"]) as connection:
                    ask = unary(connection, "/etcdserverpb.Maintenance/Status")
                    try:
                        raw = await asyncio.wait_for(ask(maintenance_pb2.StatusRequest().SerializeToString()), 2.0)
                    except (grpc.aio.AioRpcError, TimeoutError):
                        continue
                status = maintenance_pb2.StatusResponse.FromString(raw)
                if status.leader and status.leader == status.header.member_id:
                    return name
            await asyncio.sleep(0.1)
        raise TimeoutError(f"{self.side}: no member leads")

    def cpu_seconds(self) -> float:
        """What all members have used so far."""
        return sum(cpu_seconds(process.pid) for process in self.processes.values())

    def memory(self) -> int:
        """The largest member's resident memory, in bytes."""
        page = os.sysconf("SC_PAGE_SIZE")
        return max(
            int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1]) * page
            for process in self.processes.values()
        )

    def end(self, name: str) -> None:
        """Ask one member to end, and wait for it."""
        process = self.processes.pop(name)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self, name: str) -> None:
        """End one member as a power cut does, but for what the disk has."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """End all members."""
        for process in self.processes.values():
            process.terminate()
        for name in tuple(self.processes):
            self.end(name)

    def _ours(self, name: str) -> Sequence[str]:
        tls = self.tls[name]
        document = {
            "name": name,
            "data_dir": str(self.folder / name),
            "client_address": self.clients[name],
            "peer_address": self.peers[name],
            "members": self.peers,
            "clients": self.clients,
            "tls": {"cert": str(tls.cert), "key": str(tls.key), "ca": str(tls.ca)},
            **self.settings,
            **({"metrics_address": self.metrics[name]} if self.observed else {}),
        }
        path = self.folder / f"{name}.yaml"
        path.write_bytes(msgspec.yaml.encode(document))
        return (sys.executable, "-m", "store.main", "--config", str(path))

    def _etcd(self, name: str) -> Sequence[str]:
        tls = self.tls[name]
        return (
            shutil.which("etcd") or "/usr/bin/etcd",
            f"--name={name}",
            f"--data-dir={self.folder / name}",
            f"--listen-client-urls=https://{self.clients[name]}",
            f"--advertise-client-urls=https://{self.clients[name]}",
            f"--listen-peer-urls=https://{self.peers[name]}",
            f"--initial-advertise-peer-urls=https://{self.peers[name]}",
            "--initial-cluster=" + ",".join(f"{n}=https://{a}" for n, a in self.peers.items()),
            f"--cert-file={tls.cert}",
            f"--key-file={tls.key}",
            f"--trusted-ca-file={tls.ca}",
            "--client-cert-auth",
            f"--peer-cert-file={tls.cert}",
            f"--peer-key-file={tls.key}",
            f"--peer-trusted-ca-file={tls.ca}",
            "--peer-client-cert-auth",
            "--quota-backend-bytes=8589934592",
            "--logger=zap",
            "--log-level=error",
        )


def cpu_seconds(process: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
