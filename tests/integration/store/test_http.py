"""`/metrics`, `/health` and `/lag` of a member, and who may ask."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest

from kybern.config.models import StoreConfig, Tls
from kybern.daemon import StartupError
from kybern.pb.etcd.maintenance_pb2 import NOSPACE, AlarmRequest
from kybern.pb.v1.store_pipe_pb2 import StoreCommand
from store.mvcc.outcomes import AlarmOutcome, PutOutcome
from store.raft.local import LocalRaft
from store.server.member import StoreMember
from tests.integration.store.serving import HOST, Certificates, our_store, store_config
from tests.ports import free_port
from tests.unit.store.driver import put

Running = tuple[StoreConfig, StoreMember, LocalRaft]


def with_metrics(config: StoreConfig, address: str) -> StoreConfig:
    return msgspec.structs.replace(config, metrics_address=address)  # type: ignore[type-var] # a struct all the same


@pytest.fixture
async def running(certificates: Certificates) -> AsyncIterator[Running]:
    config = with_metrics(store_config(certificates), f"{HOST}:{free_port()}")
    async with our_store(config) as (member, raft):
        yield config, member, raft


async def get(config: StoreConfig, tls: Tls | None, path: str) -> tuple[int, str]:
    context = ssl.create_default_context(cafile=str(config.tls.ca))
    if tls is not None:
        context.load_cert_chain(tls.cert, tls.key)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"https://{config.metrics_address}{path}", ssl=context) as response,
    ):
        return response.status, await response.text()


async def test_metrics_are_the_members_figures(running: Running, certificates: Certificates) -> None:
    config, member, _ = running
    for key in (b"a", b"b", b"a"):
        await member.core.propose(StoreCommand(put=put(key)), PutOutcome)
    status, text = await get(config, certificates.master(), "/metrics")
    assert status == 200
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(found["kybern_store_revision"]) == 4
    assert float(found["kybern_store_keys"]) == 2
    assert float(found["kybern_store_has_leader"]) == 1
    assert float(found["kybern_store_quota_bytes"]) == config.quota_bytes
    assert float(found["kybern_store_raft_proposals"]) == 3
    assert float(found["process_resident_memory_bytes"]) > 0


async def test_delays_of_the_loop_are_told(running: Running, certificates: Certificates) -> None:
    config, _, _ = running
    await get(config, certificates.master(), "/lag")
    # A turn that takes long, and then rounds enough for the timer to see it.
    used = time.thread_time()
    while time.thread_time() - used < 0.06:
        pass
    for _ in range(2):
        status, text = await get(config, certificates.master(), "/metrics")
    assert status == 200
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(found["kybern_store_loop_turn_worst_cpu_seconds"]) >= 0.06
    assert float(found["kybern_store_loop_lag_worst_seconds"]) >= 0.05
    count = float(found["kybern_store_loop_lag_seconds_count"])
    assert count == float(found['kybern_store_loop_lag_seconds_bucket{le="+Inf"}'])
    assert float(found['kybern_store_loop_lag_seconds_bucket{le="0.025"}']) < count
    status, text = await get(config, certificates.master(), "/lag")
    assert status == 200
    assert msgspec.json.decode(text)["cpu"] >= 0.06
    status, text = await get(config, certificates.master(), "/lag")
    assert set(msgspec.json.decode(text)) == {"late", "late_cpu", "late_process", "cpu"}


async def test_health_says_what_is_wrong(running: Running, certificates: Certificates) -> None:
    config, member, raft = running
    tls = certificates.master()
    assert await get(config, tls, "/health") == (200, '{"health":"true","reason":""}')
    alarm = AlarmRequest(action=AlarmRequest.ACTIVATE, memberID=1, alarm=NOSPACE)
    await member.core.propose(StoreCommand(alarm=alarm), AlarmOutcome)
    assert await get(config, tls, "/health") == (503, '{"health":"false","reason":"the alarm NOSPACE is on"}')
    raft.set_leader(False)
    status, text = await get(config, tls, "/health")
    assert (status, "there is no leader; " in text) == (503, True)


async def test_members_and_masters_are_served_and_no_others(running: Running, certificates: Certificates) -> None:
    config, _, _ = running
    assert (await get(config, config.tls, "/metrics"))[0] == 200
    for path in ("/metrics", "/health", "/lag", "/absent"):
        status, text = await get(config, certificates.issue("n1", "system:nodes"), path)
        assert status == 403
        assert "kybern_store" not in text
    with pytest.raises(aiohttp.ClientError):
        await get(config, None, "/metrics")


async def test_a_taken_address_is_said(running: Running, certificates: Certificates) -> None:
    config, _, _ = running
    other = with_metrics(store_config(certificates, name="s2"), config.metrics_address)
    with pytest.raises(StartupError, match="the port is taken"):
        async with our_store(other):
            pass
