"""What init and join issue, in front of the TLS stacks that judge it: gRPC's and Python's."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from kybern.cli import asking
from kybern.cli.cluster import Layout
from kybern.cli.hosts import load_authorities
from kybern.cli.main import run
from kybern.config.loading import load
from kybern.config.models import MasterConfig, NodeConfig, StoreConfig, Tls
from kybern.daemon import StartupError
from kybern.pki import GROUP_MASTERS, Identity, check_files, issue, utc_now
from kybern.rpc.server import RpcServer
from tests.ports import free_port


@contextlib.asynccontextmanager
async def serving(tls: Tls) -> AsyncIterator[str]:
    """A gRPC server with a certificate, and its address."""
    server = RpcServer(f"127.0.0.1:{free_port()}", tls, [])
    await server.start()
    await server.serving(True)
    try:
        yield server.address
    finally:
        await server.stop(0)


def tls(folder: Path, name: str, ca: str = "ca") -> Tls:
    return Layout(folder, folder).tls(name, ca)


async def test_masters_admins_and_nodes_reach_a_master(first: Path, node: Path) -> None:
    async with serving(load(first / "master.yaml", MasterConfig).tls) as address:
        for client in (tls(first, "master-client"), tls(first, "admin"), load(node / "node.yaml", NodeConfig).tls):
            assert await asking.health(address, client) == asking.Health("Serving")


async def test_masters_reach_a_node(first: Path, node: Path) -> None:
    async with serving(load(node / "node.yaml", NodeConfig).tls) as address:
        assert (await asking.health(address, load(first / "master.yaml", MasterConfig).client_tls)).serves


async def test_only_store_clients_and_members_reach_the_store(first: Path, node: Path) -> None:
    async with serving(load(first / "store.yaml", StoreConfig).tls) as address:
        assert (await asking.health(address, load(first / "master.yaml", MasterConfig).store_tls)).serves
        assert (await asking.health(address, tls(first, "store", "store-ca"))).serves
        # A certificate of the other authority, even from someone who trusts the store's.
        for folder, name in ((first, "admin"), (first, "master-client"), (node, "node")):
            stranger = Tls(tls(folder, name).cert, tls(folder, name).key, first / "pki" / "store-ca.crt")
            assert (await asking.health(address, stranger)).state == "Down"


async def test_a_stranger_is_refused(first: Path, tmp_path: Path) -> None:
    assert run(["init", "--name", "m1", "--address", "127.0.0.1", "--dir", str(tmp_path / "other")]) == 0
    async with serving(load(first / "master.yaml", MasterConfig).tls) as address:
        other = tls(tmp_path / "other", "admin")
        assert (await asking.health(address, other)).problem == "its certificate is expired or of another cluster"
        trusting = Tls(other.cert, other.key, first / "pki" / "ca.crt")
        assert (await asking.health(address, trusting)).state == "Down"


async def test_an_expired_certificate_is_refused(first: Path, tmp_path: Path) -> None:
    authority = load_authorities(first).api
    earlier = utc_now() - timedelta(days=2)
    pair = issue(authority, Identity("x", (GROUP_MASTERS,)), earlier, lifetime=timedelta(days=1))
    expired = Tls(tmp_path / "x.crt", tmp_path / "x.key", first / "pki" / "ca.crt")
    pair.write(expired.cert, expired.key)
    async with serving(load(first / "master.yaml", MasterConfig).tls) as address:
        assert (await asking.health(address, expired)).state == "Down"
    with pytest.raises(StartupError, match=r"x\.crt expired at"):
        check_files(expired.cert, expired.key, expired.ca, utc_now())


def test_a_daemon_with_a_certificate_of_another_cluster_says_so(first: Path, tmp_path: Path) -> None:
    assert run(["init", "--name", "m1", "--address", "127.0.0.1", "--dir", str(tmp_path / "other")]) == 0
    ours, theirs = first / "pki", tmp_path / "other" / "pki"
    with pytest.raises(StartupError, match="was not issued by the authority"):
        check_files(ours / "master.crt", ours / "master.key", theirs / "ca.crt", utc_now())
    with pytest.raises(StartupError, match="is not the key of"):
        check_files(ours / "master.crt", theirs / "master.key", ours / "ca.crt", utc_now())


@pytest.mark.parametrize("name", ["kubernetes", "kubernetes.default.svc", "10.96.0.1", "127.0.0.1", "localhost", "m1"])
def test_every_name_of_the_api_is_accepted_by_pythons_tls(first: Path, name: str) -> None:
    handshake(tls(first, "master"), tls(first, "admin"), name)


def test_a_name_that_is_not_the_apis_is_refused(first: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
        handshake(tls(first, "master"), tls(first, "admin"), "kubernetes.example")


def handshake(server: Tls, client: Tls, name: str) -> None:
    """A TLS handshake in memory, with certificates demanded on both sides."""
    accepting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(server.ca))
    accepting.load_cert_chain(server.cert, server.key)
    accepting.verify_mode = ssl.CERT_REQUIRED
    connecting = ssl.create_default_context(cafile=str(client.ca))
    connecting.load_cert_chain(client.cert, client.key)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        connecting.wrap_bio(back, there, server_hostname=name),
        accepting.wrap_bio(there, back, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    assert sides[0].version() == sides[1].version() == "TLSv1.3"
