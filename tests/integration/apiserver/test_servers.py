"""Several API servers on one store: they are one API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from kybern.api import resources
from kybern.api.errors import StatusError
from kybern.client.interface import Fence
from kybern.client.leader import LeaderElector, Leadership
from kybern.client.memory_store import MemoryStore
from kybern.clock import SystemClock
from kybern.config.models import Cluster
from kybern.key import Key
from master.apiserver.bootstrap import Bootstrap
from master.apiserver.interface import WriteOptions
from master.apiserver.living import Registration
from master.apiserver.local_client import LocalClient
from master.auth import users
from tests.integration.apiserver.api import Api, config_map, namespace, pod
from tests.integration.apiserver.conftest import api_server


@pytest.fixture
async def servers(store: MemoryStore) -> AsyncIterator[list[Api]]:
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(api_server(store, seed=n)) for n in range(3)]
        await apis[0].prepare()
        yield apis


async def test_what_one_has_written_the_others_read(servers: list[Api]) -> None:
    for number in range(30):
        writer, reader = servers[number % 3], servers[(number + 1) % 3]
        created = await writer.create(resources.CONFIG_MAPS, config_map(f"c{number}"))
        assert f"c{number}" in await reader.names(resources.CONFIG_MAPS)
        assert await reader.get(resources.CONFIG_MAPS, f"c{number}") == created
        if number % 2:
            await reader.delete(resources.CONFIG_MAPS, f"c{number}")
            assert f"c{number}" not in await writer.names(resources.CONFIG_MAPS)


async def test_a_namespace_and_account_made_elsewhere_can_be_used_at_once(servers: list[Api]) -> None:
    one, two, three = servers
    await one.create(resources.NAMESPACES, namespace("new"), "")
    await two.create(resources.SERVICE_ACCOUNTS, {"metadata": {"name": "default"}}, "new")
    created = await three.create(resources.PODS, pod("p"), "new")
    assert created["spec"]["serviceAccountName"] == "default"
    await one.delete(resources.NAMESPACES, "new")
    with pytest.raises(StatusError, match="because it is being terminated"):
        await two.create(resources.CONFIG_MAPS, config_map("late"), "new")


async def test_patches_through_all_servers_all_arrive(servers: list[Api]) -> None:
    await servers[0].create(resources.CONFIG_MAPS, config_map("one"))
    patches = (servers[n % 3].patch(resources.CONFIG_MAPS, "one", {"data": {f"k{n}": "v"}}) for n in range(15))
    await asyncio.gather(*patches)
    assert len((await servers[1].get(resources.CONFIG_MAPS, "one"))["data"]) == 15


async def test_a_create_wins_once(servers: list[Api]) -> None:
    outcomes = await asyncio.gather(
        *(s.create(resources.CONFIG_MAPS, config_map("one", by=str(n))) for n, s in enumerate(servers)),
        return_exceptions=True,
    )
    assert sum(isinstance(o, dict) for o in outcomes) == 1
    assert [o.code for o in outcomes if isinstance(o, StatusError)] == [409, 409]


def _lease(holder: str) -> dict[str, object]:
    return {"metadata": {"name": "lead"}, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 5}}


async def test_a_fence_holds_as_long_as_its_reign(servers: list[Api]) -> None:
    one, two, three = servers
    acquired = await one.create(resources.LEASES, _lease("a"))
    reign = Fence("default", "lead", int(acquired["metadata"]["resourceVersion"]))
    await two.create(resources.CONFIG_MAPS, config_map("one"), fence=reign)
    # A renewal is the same reign.
    await one.patch(resources.LEASES, "lead", {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}})
    await two.patch(resources.CONFIG_MAPS, "one", {"data": {"a": "1"}}, fence=reign)
    taken = await three.patch(resources.LEASES, "lead", {"spec": {"holderIdentity": "b"}})
    for write in (
        two.create(resources.CONFIG_MAPS, config_map("two"), fence=reign),
        two.patch(resources.CONFIG_MAPS, "one", {"data": {"a": "2"}}, fence=reign),
    ):
        with pytest.raises(StatusError, match="no longer leads") as caught:
            await write
        assert (caught.value.code, caught.value.reason) == (409, "Conflict")
    with pytest.raises(StatusError, match="no longer leads"):
        await two.delete(resources.CONFIG_MAPS, "one", write=WriteOptions(fence=reign))
    assert (await one.get(resources.CONFIG_MAPS, "one"))["data"] == {"a": "1"}
    assert await one.names(resources.CONFIG_MAPS) == ["one"]
    current = Fence("default", "lead", int(taken["metadata"]["resourceVersion"]))
    await one.create(resources.CONFIG_MAPS, config_map("two"), fence=current)
    await one.delete(resources.LEASES, "lead")
    with pytest.raises(StatusError, match="no longer leads"):
        await one.create(resources.CONFIG_MAPS, config_map("three"), fence=current)


async def test_an_elected_leader_writes_with_its_fence_and_its_predecessor_cannot(servers: list[Api]) -> None:
    reigns: list[Leadership] = []
    begun = asyncio.Event()

    async def lead(leadership: Leadership) -> None:
        reigns.append(leadership)
        begun.set()
        await asyncio.Event().wait()

    for number in range(2):
        client = LocalClient(servers[number].handlers, users.CONTROLLERS)
        elector = LeaderElector(client, Key("default", "lead"), f"m{number}", SystemClock(), duration=60.0, renew=0.05)
        begun.clear()
        task = asyncio.create_task(elector.run(lead))
        try:
            async with asyncio.timeout(30):
                await begun.wait()
            fence = reigns[-1].fence()
            await servers[2].create(resources.CONFIG_MAPS, config_map(f"c{number}"), fence=fence)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(StatusError, match="no longer leads"):
        await servers[2].create(resources.CONFIG_MAPS, config_map("late"), fence=reigns[0].fence())


async def test_three_masters_make_the_clusters_own_objects(store: MemoryStore) -> None:
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(api_server(store, seed=n)) for n in range(3)]
        cluster = Cluster()
        bootstraps = [Bootstrap(LocalClient(a.handlers, users.APISERVER), store, cluster) for a in apis]
        registrations = [Registration(store, f"m{n}", f"192.0.2.{n + 1}:6443") for n in range(3)]
        tasks = [asyncio.create_task(r.run()) for r in registrations]
        api = apis[0]
        try:
            await asyncio.gather(*(b.make() for b in bootstraps))
            assert await api.names(resources.NAMESPACES) == ["default", "kube-node-lease", "kube-public", "kube-system"]
            service = await api.get(resources.SERVICES, "kubernetes")
            assert service["spec"]["clusterIP"] == "10.96.0.1"
            dns = await api.get(resources.SERVICES, "kube-dns", "kube-system")
            assert dns["spec"]["clusterIP"] == "10.96.0.10"
            assert dns["metadata"]["annotations"] == {"kybern.io/node-local": "true"}
            await asyncio.gather(*(b.reconcile() for b in bootstraps))
            assert await _endpoints(api) == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
            version = (await api.get(resources.ENDPOINT_SLICES, "kubernetes"))["metadata"]["resourceVersion"]
            await bootstraps[1].reconcile()
            assert (await api.get(resources.ENDPOINT_SLICES, "kubernetes"))["metadata"]["resourceVersion"] == version
            tasks[1].cancel()
            await asyncio.gather(tasks[1], return_exceptions=True)
            await bootstraps[2].reconcile()
            assert await _endpoints(api) == ["192.0.2.1", "192.0.2.3"]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _endpoints(api: Api) -> list[str]:
    found = await api.get(resources.ENDPOINT_SLICES, "kubernetes")
    endpoints = await api.get(resources.ENDPOINTS, "kubernetes")
    addresses = [e["addresses"][0] for e in found["endpoints"]]
    assert [a["ip"] for a in endpoints["subsets"][0]["addresses"]] == addresses
    assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "kubernetes"
    return addresses
