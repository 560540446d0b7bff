"""A store on loopback with real certificates: ours on a Raft without disk, or Debian's etcd."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from kybern import pki
from kybern.clock import SystemClock
from kybern.config.models import StoreConfig, Tls
from store.raft.interface import Member
from store.raft.local import LocalRaft
from store.server.core import GROUP_STORE
from store.server.member import StoreMember
from tests.ports import free_port

HOST = "127.0.0.1"


class Certificates:
    """An authority and what it issues, as files, valid from `age` before now on."""

    def __init__(self, folder: Path, age: timedelta = timedelta(0)) -> None:
        self.folder = folder
        self._since = pki.utc_now() - age
        self.authority = pki.new_authority("store-ca", self._since)
        self.authority.write(folder / "ca.crt", folder / "ca.key")

    def issue(self, name: str, *groups: str, server: bool = False, host: str = HOST) -> Tls:
        """A certificate for a name and its groups; a server's is for an address too."""
        pair = pki.issue(
            self.authority,
            pki.Identity(name, groups),
            self._since,
            hosts=(host, "localhost") if server else (),
            server=server,
        )
        cert, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        pair.write(cert, key)
        return Tls(cert=cert, key=key, ca=self.folder / "ca.crt")

    def member(self, name: str, host: str = HOST) -> Tls:
        """A store member's certificate."""
        return self.issue(name, GROUP_STORE, server=True, host=host)

    def master(self, name: str = "m1") -> Tls:
        """A master's certificate."""
        return self.issue(name, pki.GROUP_MASTERS)


@dataclass(slots=True)
class Endpoint:
    """Where a store listens, and the certificate to speak to it with."""

    address: str
    tls: Tls


def store_config(certificates: Certificates, *, port: int | None = None, name: str = "s1") -> StoreConfig:
    """The configuration of a member without peers."""
    address = f"{HOST}:{port or free_port()}"
    peer = f"{HOST}:{free_port()}"
    return StoreConfig(
        name=name,
        data_dir=certificates.folder / "data",
        client_address=address,
        peer_address=peer,
        members={name: peer},
        clients={name: address},
        tls=certificates.member(name),
    )


@contextlib.asynccontextmanager
async def our_store(config: StoreConfig) -> AsyncIterator[tuple[StoreMember, LocalRaft]]:
    """A member of ours that leads by itself."""
    raft = LocalRaft(Member(0x5EED, config.name, config.peer_address, config.client_address))
    member = StoreMember.create(config, raft, SystemClock())
    await member.start()
    try:
        await member.until_ready()
        yield member, raft
    finally:
        await member.stop()


@contextlib.asynccontextmanager
async def real_etcd(certificates: Certificates, folder: Path) -> AsyncIterator[Endpoint]:
    """Debian's etcd with TLS both ways."""
    port, peer = free_port(), free_port()
    tls = certificates.member("etcd")
    process = await asyncio.create_subprocess_exec(
        "etcd",
        "--name=etcd",
        f"--data-dir={folder}",
        f"--listen-client-urls=https://{HOST}:{port}",
        f"--advertise-client-urls=https://{HOST}:{port}",
        f"--listen-peer-urls=http://{HOST}:{peer}",
        f"--initial-advertise-peer-urls=http://{HOST}:{peer}",
        f"--initial-cluster=etcd=http://{HOST}:{peer}",
        f"--cert-file={tls.cert}",
        f"--key-file={tls.key}",
        f"--trusted-ca-file={tls.ca}",
        "--client-cert-auth",
        "--unsafe-no-fsync",
        "--logger=zap",
        "--log-level=error",
        env={"PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    endpoint = Endpoint(f"{HOST}:{port}", certificates.master("etcd-client"))
    try:
        for _ in range(100):
            result = await etcdctl(endpoint, "endpoint", "health")
            if result.code == 0:
                break
            await asyncio.sleep(0.1)
        yield endpoint
    finally:
        process.terminate()
        await process.wait()


@dataclass(frozen=True, slots=True)
class Result:
    """What a command answered."""

    code: int
    out: str
    err: str


async def etcdctl(endpoint: Endpoint, *arguments: str, stdin: str = "", wait: float = 30.0) -> Result:
    """Run Debian's etcdctl to its end."""
    process = await start_etcdctl(endpoint, arguments)
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), wait)
    return Result(process.returncode or 0, out.decode(), err.decode())


async def start_etcdctl(endpoint: Endpoint, arguments: Sequence[str]) -> asyncio.subprocess.Process:
    """Start Debian's etcdctl."""
    return await asyncio.create_subprocess_exec(
        "etcdctl",
        f"--endpoints=https://{endpoint.address}",
        f"--cacert={endpoint.tls.ca}",
        f"--cert={endpoint.tls.cert}",
        f"--key={endpoint.tls.key}",
        "--dial-timeout=3s",
        "--command-timeout=10s",
        *arguments,
        env={"PATH": os.environ["PATH"], "ETCDCTL_API": "3"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
