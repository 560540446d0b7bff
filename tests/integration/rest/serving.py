"""A REST server over TLS with certificates of its own, and the clients that speak to it."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from kybern.config.models import MasterConfig, Tls
from kybern.pki import Identity, issue, new_authority, utc_now
from master.apiserver.interface import Authenticator, Handlers
from master.rest.server import RestServer
from tests.ports import free_port

ROOT = Path(__file__).parents[3]


def find_kubectl() -> str | None:
    """The kubectl to test with: KYBERN_KUBECTL, the one that `make up` installs, or that of the system."""
    installed = ROOT / ".kybern" / "bin" / "kubectl"
    named = os.environ.get("KYBERN_KUBECTL")
    return named or (str(installed) if installed.exists() else shutil.which("kubectl"))


def make_config(folder: Path) -> MasterConfig:
    """A master's configuration with new certificates: its own, an administrator's, and those of a stranger."""
    now = utc_now()
    authority = new_authority("ca", now)
    (folder / "ca.crt").write_bytes(authority.cert_pem)
    hosts = ["kubernetes", "localhost", "127.0.0.1"]
    pairs = {
        "server": issue(authority, Identity("master"), now, hosts=hosts, server=True),
        "admin": issue(authority, Identity("kubernetes-admin", ("system:masters",)), now),
        "node": issue(authority, Identity("system:node:n1", ("system:nodes",)), now, hosts=hosts, server=True),
        "master": issue(authority, Identity("system:kybern:master:m1", ("kybern:masters",)), now),
        "stranger": issue(new_authority("other", now), Identity("kubernetes-admin", ("system:masters",)), now),
    }
    for name, pair in pairs.items():
        pair.write(folder / f"{name}.crt", folder / f"{name}.key")
    return MasterConfig(
        name="m1",
        rest_address=f"127.0.0.1:{free_port()}",
        grpc_address=f"127.0.0.1:{free_port()}",
        store=[],
        tls=tls(folder, "server"),
        store_tls=tls(folder, "server"),
        client_tls=tls(folder, "master"),
        service_account_key=folder / "server.key",
    )


def tls(folder: Path, name: str) -> Tls:
    return Tls(folder / f"{name}.crt", folder / f"{name}.key", folder / "ca.crt")


@dataclass
class Result:
    """What a command said."""

    code: int
    out: str
    err: str


@dataclass
class Served:
    """A running server, and where its files are."""

    server: RestServer
    config: MasterConfig
    folder: Path

    @property
    def url(self) -> str:
        return f"https://{self.config.rest_address}"

    def context(self, name: str | None = "admin") -> ssl.SSLContext:
        """TLS of a client with one of the certificates, or with none."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        if name is not None:
            context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return context

    @asynccontextmanager
    async def session(self, name: str | None = "admin") -> AsyncIterator[aiohttp.ClientSession]:
        """An HTTP client."""
        connector = aiohttp.TCPConnector(ssl=self.context(name))
        async with aiohttp.ClientSession(self.url, connector=connector) as session:
            yield session
        # aiohttp closes TLS connections a moment after their session.
        await asyncio.sleep(0.05)

    def kubeconfig(self) -> Path:
        """A kubeconfig of the administrator."""
        path = self.folder / "kubeconfig"
        cluster = {"server": self.url, "certificate-authority": "ca.crt", "tls-server-name": "kubernetes"}
        user = {"client-certificate": "admin.crt", "client-key": "admin.key"}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return path


@asynccontextmanager
async def serve(handlers: Handlers, authenticator: Authenticator, folder: Path) -> AsyncIterator[Served]:
    """A started server, stopped at the end."""
    config = make_config(folder)
    server = RestServer(handlers, authenticator, config)
    await server.start()
    try:
        yield Served(server, config, folder)
    finally:
        await server.stop()


@dataclass
class Kubectl:
    """Runs kubectl against a server."""

    program: str
    served: Served

    def command(self, *arguments: str) -> list[str]:
        """The command line."""
        cache = self.served.folder / "cache"
        return [self.program, f"--kubeconfig={self.served.kubeconfig()}", f"--cache-dir={cache}", *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a run."""
        return {"HOME": str(self.served.folder), "PATH": os.environ["PATH"], **more}

    async def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> str:
        """Standard output; the command must succeed."""
        result = await self.run(*arguments, stdin=stdin, **environment)
        assert result.code == 0, result.err
        return result.out

    async def run(self, *arguments: str, stdin: str = "", **environment: str) -> Result:
        """Run a command to its end."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment(**environment),
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Result(process.returncode, out.decode(), err.decode())
