"""Addresses, node ports and pod ranges: chosen, asked for, kept, released."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kybern.api import resources
from kybern.api.errors import StatusError
from kybern.client.interface import PatchType
from kybern.client.memory_store import MemoryStore
from kybern.client.store import prefix_end
from kybern.config.models import Cluster
from tests.integration.apiserver.api import Api, node, service
from tests.integration.apiserver.conftest import api_server

# Six addresses and four node ports, so that everything collides.
TIGHT = Cluster(service_cidr="10.96.0.0/29", node_port_first=30000, node_port_last=30003, pod_cidr="10.244.0.0/22")


async def claims(api: Api) -> dict[str, str]:
    found = await api.server.storage.range(b"/kybern/claims/", prefix_end(b"/kybern/claims/"))
    return {p.key.decode().removeprefix("/kybern/claims/"): p.value.decode() for p in found.items}


async def test_a_service_gets_an_address_of_its_own(api: Api) -> None:
    created = await api.create(resources.SERVICES, service("web"))
    address = created["spec"]["clusterIP"]
    assert address.startswith("10.96.")
    assert created["spec"]["clusterIPs"] == [address]
    assert await claims(api) == {f"clusterip/{address}": "/registry/services/default/web"}
    await api.delete(resources.SERVICES, "web")
    assert await claims(api) == {}


async def test_an_address_that_is_asked_for(api: Api) -> None:
    await api.create(resources.SERVICES, service("web", clusterIP="10.96.0.99"))
    with pytest.raises(StatusError) as caught:
        await api.create(resources.SERVICES, service("other", clusterIP="10.96.0.99"))
    assert caught.value.code == 422
    assert caught.value.message == (
        'Service "other" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.99"]: '
        "failed to allocate IP 10.96.0.99: provided IP is already allocated"
    )
    with pytest.raises(StatusError, match="is not in the valid range"):
        await api.create(resources.SERVICES, service("third", clusterIP="192.0.2.1"))
    assert await api.names(resources.SERVICES) == ["web"]


async def test_headless_and_external_services_take_nothing(api: Api) -> None:
    headless = await api.create(resources.SERVICES, service("headless", clusterIP="None"))
    assert headless["spec"]["clusterIPs"] == ["None"]
    spec: dict[str, Any] = {"type": "ExternalName", "externalName": "example.com"}
    external = await api.create(resources.SERVICES, {"metadata": {"name": "external"}, "spec": spec})
    assert "clusterIP" not in external["spec"]
    assert await claims(api) == {}


async def test_node_ports_follow_the_type(api: Api) -> None:
    created = await api.create(resources.SERVICES, service("web", type="NodePort"))
    port = created["spec"]["ports"][0]["nodePort"]
    assert 30000 <= port <= 32767
    assert f"nodeport/{port}" in await claims(api)
    # An update that leaves them out keeps address and port.
    kept = await api.update(resources.SERVICES, service("web", type="NodePort", sessionAffinity="ClientIP"))
    assert kept["spec"]["ports"][0]["nodePort"] == port
    assert kept["spec"]["clusterIP"] == created["spec"]["clusterIP"]
    inner = await api.patch(resources.SERVICES, "web", {"spec": {"type": "ClusterIP"}})
    assert "nodePort" not in inner["spec"]["ports"][0]
    assert "externalTrafficPolicy" not in inner["spec"]
    assert len(await claims(api)) == 1
    outer = await api.patch(resources.SERVICES, "web", {"spec": {"type": "NodePort"}})
    assert f"nodeport/{outer['spec']['ports'][0]['nodePort']}" in await claims(api)


async def test_an_address_goes_and_comes_with_the_type(api: Api) -> None:
    await api.create(resources.SERVICES, service("web"))
    patch = {"spec": {"type": "ExternalName", "externalName": "example.com"}}
    external = await api.patch(resources.SERVICES, "web", patch)
    assert "clusterIP" not in external["spec"]
    assert await claims(api) == {}
    inner = await api.patch(resources.SERVICES, "web", {"spec": {"type": "ClusterIP", "externalName": None}})
    assert f"clusterip/{inner['spec']['clusterIP']}" in await claims(api)


async def test_a_node_port_that_is_asked_for(api: Api) -> None:
    ports = [{"port": 80, "nodePort": 30080}]
    await api.create(resources.SERVICES, service("web", type="NodePort", ports=ports))
    with pytest.raises(
        StatusError, match=r"spec\.ports\[0\]\.nodePort: Invalid value: 30080: provided port is already"
    ):
        await api.create(resources.SERVICES, service("other", type="NodePort", ports=ports))
    outside = [{"port": 80, "nodePort": 80}]
    with pytest.raises(StatusError, match="The range of valid ports is 30000-32767"):
        await api.create(resources.SERVICES, service("third", type="NodePort", ports=outside))
    await api.create(resources.SERVICES, service("free", type="NodePort"))
    with pytest.raises(StatusError, match="provided port is already allocated"):
        operation = {"op": "replace", "path": "/spec/ports/0/nodePort", "value": 30080}
        await api.patch(resources.SERVICES, "free", [operation], kind=PatchType.JSON)


async def test_the_same_port_on_tcp_and_udp_is_one_node_port(api: Api) -> None:
    ports = [{"name": "a", "port": 53, "protocol": "TCP"}, {"name": "b", "port": 53, "protocol": "UDP"}]
    created = await api.create(resources.SERVICES, service("dns", type="NodePort", ports=ports))
    assert len({p["nodePort"] for p in created["spec"]["ports"]}) == 1


async def test_a_dry_run_claims_nothing_and_sees_conflicts(api: Api) -> None:
    dry = await api.create(resources.SERVICES, service("web"), dry_run=True)
    assert dry["spec"]["clusterIP"]
    assert await claims(api) == {}
    await api.create(resources.SERVICES, service("web", clusterIP="10.96.0.99"))
    with pytest.raises(StatusError, match="already allocated"):
        await api.create(resources.SERVICES, service("other", clusterIP="10.96.0.99"), dry_run=True)


async def test_nodes_get_ranges_from_the_lowest_on(api: Api) -> None:
    first = await api.create(resources.NODES, node("n1"))
    assert first["spec"]["podCIDR"] == "10.244.0.0/24"
    assert first["spec"]["podCIDRs"] == ["10.244.0.0/24"]
    second = await api.create(resources.NODES, node("n2"))
    assert second["spec"]["podCIDR"] == "10.244.1.0/24"
    await api.delete(resources.NODES, "n1")
    assert (await api.create(resources.NODES, node("n3")))["spec"]["podCIDR"] == "10.244.0.0/24"
    with pytest.raises(StatusError, match="belongs to another node"):
        await api.create(resources.NODES, node("n4", podCIDR="10.244.1.0/24"))


async def test_three_servers_allocate_at_once_and_nothing_is_given_twice(store: MemoryStore) -> None:
    async with (
        api_server(store, cluster=TIGHT, seed=1) as one,
        api_server(store, cluster=TIGHT, seed=1) as two,
        api_server(store, cluster=TIGHT, seed=1) as three,
    ):
        servers = (one, two, three)
        await one.prepare()
        # Six addresses for nine Services of which four can have a node port: with one seed all guess alike.
        wanted = [
            s.create(resources.SERVICES, service(f"s{i}-{n}", type="NodePort" if n == 0 else "ClusterIP"))
            for i, s in enumerate(servers)
            for n in range(2)
        ]
        made = await asyncio.gather(*wanted)
        addresses = {d["spec"]["clusterIP"] for d in made}
        assert addresses == {f"10.96.0.{n}" for n in range(1, 7)}
        ports = [p["nodePort"] for d in made for p in d["spec"]["ports"] if "nodePort" in p]
        assert len(set(ports)) == len(ports) == 3
        with pytest.raises(StatusError, match="range is full"):
            await two.create(resources.SERVICES, service("late"))
        nodes = await asyncio.gather(*(s.create(resources.NODES, node(f"n{i}")) for i, s in enumerate(servers)))
        assert {d["spec"]["podCIDR"] for d in nodes} == {f"10.244.{n}.0/24" for n in range(3)}
        await three.delete(resources.SERVICES, "s0-1")
        assert (await two.create(resources.SERVICES, service("late")))["spec"]["clusterIP"] in addresses
        assert len(await claims(one)) == 6 + 3 + 3
