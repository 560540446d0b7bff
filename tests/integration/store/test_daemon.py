"""`kybern-store` as processes: what it says when it cannot start, and a group of three that loses its leader."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from kybern import pki
from kybern.client.etcd import EtcdClient
from kybern.client.store import Compare, Put, StoreUnavailable, Target
from kybern.config.loading import dump
from kybern.config.models import StoreConfig, Tls
from master.members import follow_members
from store.main import main
from store.server.core import GROUP_STORE
from tests.integration.store.daemons import Daemons, start
from tests.integration.store.serving import HOST, Certificates, Endpoint, etcdctl, store_config

EX_CONFIG = 78


def with_changes(config: StoreConfig, **changes: object) -> StoreConfig:
    """The configuration with some fields changed."""
    return msgspec.structs.replace(config, **changes)  # type: ignore[type-var] # a struct, though not for type checkers


async def refusal(folder: Path, text: str) -> tuple[int, str]:
    """Exit code and output of a daemon that does not start."""
    file, log = folder / "store.yaml", folder / "refused.log"
    file.write_text(text)
    log.unlink(missing_ok=True)
    process = await start(file, folder / "ready", log)
    async with asyncio.timeout(60):
        code = await process.wait()
    assert not (folder / "ready").exists()
    return code, log.read_text()


def test_what_cannot_work_is_said_in_one_line(
    certificates: Certificates, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = store_config(certificates)
    expired = pki.issue(
        certificates.authority,
        pki.Identity("s1", (GROUP_STORE,)),
        pki.utc_now() - timedelta(days=2),
        lifetime=timedelta(days=1),
    )
    expired.write(tmp_path / "old.crt", tmp_path / "old.key")
    old = Tls(cert=tmp_path / "old.crt", key=tmp_path / "old.key", ca=good.tls.ca)
    other = Tls(cert=good.tls.cert, key=good.tls.key, ca=Certificates(tmp_path / "other").folder / "ca.crt")
    cases = [
        (dump(good) + "colour: red\n", "colour"),
        (": no yaml: [", "not YAML"),
        (dump(with_changes(good, tls=certificates.master())), "not a store member's"),
        (dump(with_changes(good, tls=old)), "expired"),
        (dump(with_changes(good, tls=other)), "not issued by"),
        (dump(with_changes(good, name="s2")), "'s1'"),
        (dump(with_changes(good, peer_address=f"{HOST}:1")), "peer_address"),
        (dump(with_changes(good, election_timeout_min=9.0)), "election_timeout_min"),
        (dump(with_changes(good, client_address=f"{HOST}:99999")), "client_address"),
        (dump(with_changes(good, metrics_address="2381")), "metrics_address"),
        (dump(with_changes(good, members={**good.members, "s2": "s2"})), "members: s2: 's2'"),
        (dump(with_changes(good, clients={**good.clients, "s2": f"{HOST}:x"})), "clients: s2"),
        ("\0name: s1", "not YAML"),
    ]
    for text, words in cases:
        file = tmp_path / "store.yaml"
        file.write_text(text)
        assert main(["--config", str(file)]) == EX_CONFIG
        said = capsys.readouterr().err
        assert said.startswith("kybern-store: ")
        assert said.count("\n") == 1
        assert words in said


def test_a_file_that_is_no_text_is_said_to_be_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "store.yaml").write_bytes(b"\x93\xff")
    assert main(["--config", str(tmp_path / "store.yaml")]) == EX_CONFIG
    said = capsys.readouterr().err
    assert (said.count("\n"), "store.yaml is not a text in UTF-8" in said) == (1, True)


async def test_a_data_directory_that_cannot_be_looked_into_is_said_in_one_line(
    certificates: Certificates, tmp_path: Path
) -> None:
    code, said = await refusal(
        tmp_path, dump(with_changes(store_config(certificates), data_dir=tmp_path / ("x" * 300)))
    )
    assert (code, said.count("\n")) == (EX_CONFIG, 1)
    assert said.startswith("kybern-store: cannot use the data directory ")


async def test_a_taken_port_is_said_in_one_line(certificates: Certificates, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = await refusal(tmp_path, dump(store_config(certificates, port=port)))
    assert code == 1
    last = said.splitlines()[-1]
    assert last.startswith(f"kybern-store: cannot listen on {HOST}:{port}: the port is taken")


async def test_who_is_not_let_in_leaves_no_line_of_another_format(
    certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC has lines of its own for them, which a daemon does not want."""
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    config = store_config(certificates)
    file, ready, log = tmp_path / "store.yaml", tmp_path / "ready", tmp_path / "log"
    file.write_text(dump(config))
    process = await start(file, ready, log)
    try:
        async with asyncio.timeout(60):
            while not ready.exists():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.05)
        stranger = Certificates(tmp_path / "other").master()
        refused = await etcdctl(
            Endpoint(config.client_address, msgspec.structs.replace(stranger, ca=config.tls.ca)),  # type: ignore[type-var] # a struct
            *("--command-timeout=3s", "get", "a"),
        )
        assert refused.code != 0
        host, _, port = config.client_address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await reader.read()
        writer.close()
    finally:
        process.terminate()
    assert await process.wait() == 0
    lines = log.read_text().splitlines()
    assert lines
    assert [line for line in lines if not re.match(r"[\d:]{8}\.\d{3} [A-Z]+ +[\w.]+: ", line)] == []


async def until_known(client: EtcdClient, count: int) -> None:
    while len(client._endpoints._all) < count:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.05)


async def test_a_client_goes_on_with_members_that_it_has_learnt_of(daemons: Daemons) -> None:
    client = EtcdClient([daemons.clients["s1"]], daemons.certificates.master(), timeout=30)
    following = asyncio.create_task(follow_members(client))
    try:
        assert (await client.txn([], [Put(b"a", b"1")])).succeeded
        async with asyncio.timeout(30):
            await until_known(client, len(daemons.clients))
        gone = daemons.processes["s1"]
        gone.kill()
        await gone.wait()
        assert (await client.txn([], [Put(b"b", b"1")])).succeeded
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await client.close()
    await daemons.start("s1")
    await daemons.until_ready("s1")


async def test_a_missing_configuration_is_said_in_one_line(tmp_path: Path) -> None:
    process = await start(tmp_path / "absent.yaml", tmp_path / "ready", tmp_path / "log")
    assert await process.wait() == EX_CONFIG
    said = (tmp_path / "log").read_text()
    assert said.count("\n") == 1
    assert "absent.yaml" in said


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
async def test_a_group_goes_on_without_its_leader_and_loses_nothing(daemons: Daemons, how: str) -> None:
    leader = await daemons.leader()
    addresses = list(daemons.clients.values())
    client = EtcdClient(addresses, daemons.certificates.master(), timeout=30)
    seen: list[bytes] = []

    async def watch() -> None:
        async for batch in client.watch(b"k/", b"k0", since=1):
            seen.extend(change.value.key for change in batch.changes)

    watching = asyncio.create_task(watch())

    async def claim(n: int) -> bool:
        key = b"k/%04d" % n
        return (await client.txn([Compare(key, Target.VERSION, 0)], [Put(key, b"")])).succeeded

    assert all([await claim(n) for n in range(50)])
    daemons.processes[leader].send_signal(getattr(signal, how))
    assert all([await claim(n) for n in range(50, 100)])
    if how == "SIGKILL":
        await daemons.processes[leader].wait()
        await daemons.start(leader)
        await daemons.until_ready(leader)
    else:
        daemons.processes[leader].send_signal(signal.SIGCONT)
    assert all([await claim(n) for n in range(100, 150)])
    found = await client.range(b"k/", b"k0")
    assert [kv.key for kv in found.items] == [b"k/%04d" % n for n in range(150)]
    async with asyncio.timeout(60):
        while len(seen) < 150:  # noqa: ASYNC110 - filled by the watch
            await asyncio.sleep(0.01)
    assert seen == [b"k/%04d" % n for n in range(150)]
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    # Every member has the same state, once it has caught up.
    for address in addresses:
        single = EtcdClient([address], daemons.certificates.master(), timeout=30)
        assert await single.revision() == found.revision
        await single.close()
    everywhere = Endpoint(",https://".join(addresses), daemons.certificates.master())
    hashes = json.loads((await etcdctl(everywhere, "endpoint", "hashkv", "-w", "json")).out)
    assert len({h["HashKV"]["hash"] for h in hashes}) == 1
    await client.close()


async def test_without_a_majority_nothing_is_written(daemons: Daemons) -> None:
    addresses = daemons.clients
    master = daemons.certificates.master()
    for name in ("s1", "s2"):
        daemons.processes[name].send_signal(signal.SIGSTOP)
    client = EtcdClient([addresses["s3"]], master, timeout=4)
    with pytest.raises(StoreUnavailable):
        await client.txn([], [Put(b"k", b"")])
    with pytest.raises(StoreUnavailable):
        await client.range(b"k", b"l")
    for name in ("s1", "s2"):
        daemons.processes[name].send_signal(signal.SIGCONT)
    patient = EtcdClient(list(addresses.values()), master, timeout=30)
    assert (await patient.txn([], [Put(b"k", b"")])).succeeded
    await patient.close()
    await client.close()
