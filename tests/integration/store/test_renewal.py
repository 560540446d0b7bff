"""Every certificate of a store, and its authority, are exchanged while it runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc.aio
import pytest

from kybern.client.etcd import EtcdClient
from kybern.client.store import Compare, Put, StoreUnavailable, Target
from kybern.config.models import Tls
from kybern.rpc.credentials import open_channel
from tests.integration.store.daemons import Daemons
from tests.integration.store.serving import Certificates, our_store, store_config
from tests.integration.store.test_access import range_call


async def served(address: str, tls: Tls) -> bool:
    async with open_channel(address, tls) as channel:
        try:
            await range_call(channel)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            return False
        return True


async def test_a_group_changes_its_authority_without_a_restart(
    daemons: Daemons, certificates: Certificates, tmp_path: Path
) -> None:
    old, old_ca = certificates.master("old"), (certificates.folder / "ca.crt").read_bytes()
    client = EtcdClient(tuple(daemons.clients.values()), certificates.master("m1"))
    count = 0

    async def write() -> None:
        nonlocal count
        count += 1
        key = b"k%d" % count
        async with asyncio.timeout(30):
            assert (await client.txn([Compare(key, Target.VERSION, 0)], [Put(key, b"")])).succeeded

    await write()
    new = Certificates(tmp_path / "new")
    new_ca = (new.folder / "ca.crt").read_bytes()
    # As one does it: both authorities are trusted, then certificates are exchanged, then the old one is not any more.
    for stage in ("trust both", "exchange", "trust one"):
        match stage:
            case "trust both":
                (certificates.folder / "ca.crt").write_bytes(old_ca + new_ca)
            case "exchange":
                for name in daemons.clients:
                    issued = new.member(name)
                    for path in (issued.key, issued.cert):
                        (certificates.folder / path.name).write_bytes(path.read_bytes())
                issued = new.master("m1")
                for path in (issued.key, issued.cert):
                    (certificates.folder / path.name).write_bytes(path.read_bytes())
            case _:
                (certificates.folder / "ca.crt").write_bytes(new_ca)
        await write()
    newcomer = new.master("newcomer")
    trusting_both = tmp_path / "both.crt"
    trusting_both.write_bytes(old_ca + new_ca)
    old = Tls(old.cert, old.key, trusting_both)
    for address in daemons.clients.values():
        assert await served(address, newcomer)
        assert not await served(address, old)
    # Each member in turn is without connections; those that were not restarted must know it by its new certificate,
    # and the client must show its own to be let in.
    for name, process in list(daemons.processes.items()):
        process.kill()
        await process.wait()
        await write()
        await daemons.start(name)
        await daemons.until_ready(name)
        await write()
    # Each has all of it: an answer to a linearizable read is as new as the last write.
    for address in daemons.clients.values():
        async with open_channel(address, newcomer) as channel:
            assert (await range_call(channel)).header.revision == 1 + count
    await client.close()


async def test_a_client_whose_certificate_was_exchanged_while_it_had_no_connection(
    certificates: Certificates, tmp_path: Path
) -> None:
    config = store_config(certificates)
    client = EtcdClient((config.client_address,), certificates.master("m1"), timeout=2.0)
    # From now on it tries to connect, with what it has.
    with pytest.raises(StoreUnavailable):
        await client.revision()
    new = Certificates(tmp_path / "new")
    new.member("s1")
    new.master("m1")
    for name in ("ca.crt", "s1.key", "s1.crt", "m1.key", "m1.crt"):
        (certificates.folder / name).write_bytes((new.folder / name).read_bytes())
    async with our_store(config), asyncio.timeout(30):
        while True:
            try:
                assert await client.revision() == 1
            except StoreUnavailable:
                continue
            break
        await client.close()


@pytest.mark.parametrize("what", ["wrong key", "another's"])
async def test_files_that_cannot_be_used_change_nothing(
    daemons: Daemons, certificates: Certificates, tmp_path: Path, what: str
) -> None:
    spare = Certificates(tmp_path / "spare")
    for name in daemons.clients:
        issued = spare.member(name) if what == "wrong key" else certificates.issue(f"not-{name}", "kybern:store")
        (certificates.folder / f"{name}.key").write_bytes(issued.key.read_bytes())
        if what != "wrong key":
            (certificates.folder / f"{name}.crt").write_bytes(issued.cert.read_bytes())
    for name, address in daemons.clients.items():
        assert await served(address, certificates.master())
        assert "the certificate was not renewed" in (daemons.folder / f"{name}.log").read_text()
