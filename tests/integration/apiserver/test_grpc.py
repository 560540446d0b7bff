"""The gRPC door with real certificates, and the client that goes round all masters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.client.grpc import GrpcClient
from kybern.client.informer import Informer
from kybern.client.interface import EventType, PatchType
from kybern.client.kinds import CONFIG_MAPS
from kybern.client.memory_store import MemoryStore
from kybern.clock import SystemClock
from kybern.config.models import Tls
from kybern.key import Key
from kybern.pb.v1 import objects_pb2 as pb
from kybern.pb.v1 import objects_pb2_grpc
from kybern.rpc.credentials import open_channel
from kybern.rpc.errors import from_rpc
from kybern.rpc.objects import resource_message
from kybern.rpc.server import RpcServer
from master.apiserver.grpc_server import grpc_server
from node.masters import Masters
from tests.integration.apiserver.api import Api, config_map, deployment, node, pod, read
from tests.integration.apiserver.certificates import Certificates, free_address
from tests.integration.apiserver.conftest import api_server


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture
def admin(certificates: Certificates) -> Tls:
    return certificates.issue("kubernetes-admin", "system:masters")


@asynccontextmanager
async def serving(api: Api, certificates: Certificates, address: str = "") -> AsyncIterator[RpcServer]:
    server = grpc_server(api.handlers, address or free_address(), certificates.issue("kube-apiserver", server=True))
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


@asynccontextmanager
async def connected(addresses: list[str], tls: Tls) -> AsyncIterator[GrpcClient]:
    client = GrpcClient(addresses, tls)
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
async def client(api: Api, certificates: Certificates, admin: Tls) -> AsyncIterator[GrpcClient]:
    async with serving(api, certificates) as server, connected([server.address], admin) as client:
        yield client


async def test_the_client_reads_and_writes(client: GrpcClient) -> None:
    created = read(await client.create(resources.CONFIG_MAPS, config_map("one", a="1"), "default"))
    assert created["data"] == {"a": "1"}
    assert read(await client.get(resources.CONFIG_MAPS, "one", "default")) == created
    created["data"]["a"] = "2"
    updated = read(await client.update(resources.CONFIG_MAPS, "one", created, "default"))
    patch = [{"op": "replace", "path": "/data/a", "value": "3"}]
    patched = read(await client.patch(resources.CONFIG_MAPS, "one", patch, "default", type=PatchType.JSON))
    assert (updated["data"], patched["data"]) == ({"a": "2"}, {"a": "3"})
    with pytest.raises(StatusError, match="modified"):
        await client.update(resources.CONFIG_MAPS, "one", created, "default")
    deleted = read(await client.delete(resources.CONFIG_MAPS, "one", "default", uid=created["metadata"]["uid"]))
    listed = await client.list(resources.CONFIG_MAPS, "default")
    assert listed.items == []
    assert listed.revision >= int(deleted["metadata"]["resourceVersion"])
    with pytest.raises(StatusError) as caught:
        await client.get(resources.CONFIG_MAPS, "one", "default")
    assert (caught.value.reason, caught.value.name) == (Reason.NOT_FOUND, "one")


async def test_binding_status_and_scale_go_through_the_client(client: GrpcClient) -> None:
    await client.create(resources.PODS, pod("one"), "default")
    target = {"target": {"kind": "Node", "name": "n1"}}
    bound = await client.create(resources.PODS, target, "default", name="one", subresource="binding")
    assert read(bound)["spec"]["nodeName"] == "n1"
    status = {"status": {"phase": "Running"}}
    running = await client.patch(resources.PODS, "one", status, "default", subresource="status")
    assert read(running)["status"]["phase"] == "Running"
    await client.create(resources.DEPLOYMENTS, deployment("web"), "default")
    await client.patch(resources.DEPLOYMENTS, "web", {"spec": {"replicas": 3}}, "default", subresource="scale")
    scale = await client.get(resources.DEPLOYMENTS, "web", "default", subresource="scale")
    assert read(scale)["spec"] == {"replicas": 3}


async def test_long_lists_come_in_pages(api: Api, client: GrpcClient) -> None:
    text = "x" * 500_000
    for number in range(12):
        await api.create(resources.CONFIG_MAPS, config_map(f"big-{number:02}", text=text))
    listed = await client.list(resources.CONFIG_MAPS, "default")
    assert [read(i)["metadata"]["name"] for i in listed.items] == [f"big-{n:02}" for n in range(12)]


async def test_watches_go_on_from_a_revision(client: GrpcClient) -> None:
    listed = await client.list(resources.CONFIG_MAPS, "default")
    await client.create(resources.CONFIG_MAPS, config_map("one"), "default")
    await client.delete(resources.CONFIG_MAPS, "one", "default")
    seen: list[tuple[EventType, str]] = []
    watch: Any = client.watch(resources.CONFIG_MAPS, "default", since=listed.revision)
    async with aclosing(watch) as batches, asyncio.timeout(30):
        async for events in batches:
            seen += [(e.type, read(e.object)["metadata"]["name"]) for e in events if e.object]
            if len(seen) >= 2:
                break
    assert seen == [(EventType.ADDED, "one"), (EventType.DELETED, "one")]


async def test_fields_are_readable_and_integers_are_integers(api: Api, certificates: Certificates, admin: Tls) -> None:
    created = await api.create(resources.DEPLOYMENTS, deployment("web", 3))
    async with _stub(api, certificates, admin) as stub:
        named = resource_message(resources.DEPLOYMENTS)
        found = await stub.Get(pb.GetRequest(resource=named, namespace="default", name="web"))
        assert found.metadata.name == "web"
        assert found.metadata.generation == 1
        assert found.metadata.managed_fields[0].fields_v1.startswith("{")
        assert found.fields["spec"]["replicas"] == 3
        # What was read as fields can be written as fields, and is the same object.
        update = pb.UpdateRequest(resource=named, namespace="default", name="web", object=found)
        await stub.Update(update)
        assert await api.get(resources.DEPLOYMENTS, "web") == created
        found.fields["spec"]["replicas"] = 5
        await stub.Update(pb.UpdateRequest(resource=named, namespace="default", name="web", object=found))
        assert (await api.get(resources.DEPLOYMENTS, "web"))["spec"]["replicas"] == 5
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Get(pb.GetRequest(resource=named, namespace="default", name="none"))
        assert from_rpc(caught.value).message == 'deployments.apps "none" not found'


@asynccontextmanager
async def _stub(api: Api, certificates: Certificates, admin: Tls) -> AsyncIterator[Any]:
    async with serving(api, certificates) as server:
        channel = open_channel(server.address, admin)
        try:
            yield objects_pb2_grpc.ObjectsStub(channel)
        finally:
            await channel.close()


async def test_the_write_stream_answers_each_write(api: Api, admin: Tls, certificates: Certificates) -> None:
    named = resource_message(resources.CONFIG_MAPS)

    def create(number: int, name: str) -> pb.WriteRequest:
        document = pb.Object()
        document.metadata.name = name
        return pb.WriteRequest(id=number, create=pb.CreateRequest(resource=named, namespace="default", object=document))

    async def requests() -> AsyncIterator[pb.WriteRequests]:
        yield pb.WriteRequests(requests=[create(n, f"c{n}") for n in range(100)])
        yield pb.WriteRequests(requests=[create(100, "Not A Name"), pb.WriteRequest(id=101)])
        delete = pb.DeleteRequest(resource=named, namespace="default", name="none")
        yield pb.WriteRequests(requests=[pb.WriteRequest(id=102, delete=delete)])

    answers: dict[int, pb.WriteResponse] = {}
    async with _stub(api, certificates, admin) as stub:
        async for batch in stub.Write(requests()):
            answers |= {r.id: r for r in batch.responses}
    assert len(answers) == 103
    assert all(answers[n].object.metadata.name == f"c{n}" for n in range(100))
    assert [answers[n].error.code for n in (100, 101, 102)] == [422, 400, 404]
    assert len(await api.names(resources.CONFIG_MAPS)) == 100


async def test_a_node_does_what_nodes_may_and_no_more(api: Api, certificates: Certificates) -> None:
    tls = certificates.issue("system:node:n1", "system:nodes")
    async with serving(api, certificates) as server, connected([server.address], tls) as client:
        await client.create(resources.NODES, node("n1"))
        with pytest.raises(StatusError, match='is not allowed to modify node "n2"') as caught:
            await client.create(resources.NODES, node("n2"))
        assert caught.value.code == 403
        with pytest.raises(StatusError, match='User "system:node:n1" cannot list resource "secrets"'):
            await client.list(resources.SECRETS, "default")
        assert (await client.list(resources.PODS, fields="spec.nodeName=n1")).items == []
        with pytest.raises(StatusError, match="can only list pods"):
            await client.list(resources.PODS)


async def test_a_client_without_a_certificate_of_ours_gets_nowhere(
    api: Api, certificates: Certificates, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Certificates(tmp_path / "other").issue("kubernetes-admin", "system:masters")
    tls = Tls(stranger.cert, stranger.key, certificates.ca)
    async with serving(api, certificates) as server:
        channel = open_channel(server.address, tls)
        try:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                request = pb.GetRequest(resource=resource_message(resources.NODES), name="n1")
                await objects_pb2_grpc.ObjectsStub(channel).Get(request, timeout=10)
            assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        finally:
            await channel.close()


async def test_an_informer_survives_the_loss_of_its_master(
    store: MemoryStore, api: Api, certificates: Certificates, admin: Tls
) -> None:
    async with api_server(store, seed=2) as second:
        one, two = serving(api, certificates), serving(second, certificates)
        async with two as staying:
            leaving = await one.__aenter__()
            async with connected([leaving.address, staying.address], admin) as client:
                informer = Informer(client, CONFIG_MAPS)
                task = asyncio.create_task(informer.run())
                try:
                    await informer.synced()
                    await client.create(resources.CONFIG_MAPS, config_map("before"), "default")
                    await one.__aexit__(None, None, None)
                    created = await second.create(resources.CONFIG_MAPS, config_map("after"))
                    async with asyncio.timeout(60):
                        await informer.reached(int(created["metadata"]["resourceVersion"]))
                    assert {k.name for k in (Key("default", "before"), Key("default", "after")) if informer.get(k)} == {
                        "before",
                        "after",
                    }
                    assert read(await client.get(resources.CONFIG_MAPS, "after", "default"))
                finally:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)


async def test_a_node_goes_on_with_a_master_that_its_configuration_does_not_name(
    api: Api, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The masters of the time when it joined are gone one after the other; the API's endpoints name those that came."""
    tls = certificates.issue("system:node:n1", "system:nodes")
    first = free_address()
    port = first.rpartition(":")[2]
    second = f"127.0.0.2:{port}"
    other = grpc_server(api.handlers, second, certificates.issue("further", server=True, host="127.0.0.2"))
    subset = {"addresses": [{"ip": "127.0.0.1"}, {"ip": "127.0.0.2"}], "ports": [{"name": "https", "port": 6443}]}
    # They must not be on loopback, where there is no cluster but in tests.
    monkeypatch.setattr("master.apiserver.writes.creating.validate", lambda *_: [])
    await api.create(resources.ENDPOINTS, {"metadata": {"name": "kubernetes"}, "subsets": [subset]})
    await other.start()
    try:
        async with connected([first], tls) as client:
            masters = Masters([first], tmp_path, client, client.learn, SystemClock())
            async with serving(api, certificates, first):
                await masters.look()
            # The one that it was configured with is gone.
            async with asyncio.timeout(30):
                await until_answered(client)
        # A new process reads what the one before has learnt.
        async with connected([first], tls) as client:
            running = asyncio.create_task(Masters([first], tmp_path, client, client.learn, SystemClock()).run())
            try:
                async with asyncio.timeout(30):
                    await until_answered(client)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
    finally:
        await other.stop(0)


async def until_answered(client: GrpcClient) -> None:
    while True:
        try:
            await client.get(resources.ENDPOINTS, "kubernetes", "default")
        except StatusError as error:
            assert error.transient
        else:
            return


async def test_without_a_master_the_client_says_so(admin: Tls) -> None:
    address = free_address()
    async with connected([address], admin) as client:
        with pytest.raises(StatusError, match="no API server can be reached") as caught:
            await client.get(resources.NODES, "n1")
        assert caught.value.transient


async def test_watches_that_find_no_master_wait_and_all_go_on_when_there_is_one(
    api: Api, certificates: Certificates, admin: Tls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("kybern.client.grpc._CONNECT_TIMEOUT", 0.1)
    address = free_address()

    async def first(client: GrpcClient) -> str:
        watch: Any = client.watch(resources.CONFIG_MAPS, "default", since=0)
        async with aclosing(watch) as batches:
            events = await anext(batches)
        return str(read(events[0].object)["metadata"]["name"])

    async with connected([address], admin) as client:
        watches = [asyncio.create_task(first(client)) for _ in range(2)]
        done, _ = await asyncio.wait(watches, timeout=0.5)
        assert not done
        async with serving(api, certificates, address), asyncio.timeout(30):
            await api.create(resources.CONFIG_MAPS, config_map("one"))
            assert await asyncio.gather(*watches) == ["one", "one"]
    said = [r.getMessage() for r in caplog.records if r.name == "kybern.client.grpc"]
    assert said == [
        f"no API server can be reached ({address}); watches go on as soon as one is",
        f"the API server {address} is reached again",
    ]


async def test_a_client_whose_certificate_was_exchanged_while_it_had_no_connection(
    api: Api, certificates: Certificates, admin: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kybern.client.grpc._CONNECT_TIMEOUT", 0.5)
    address = free_address()
    async with connected([address], admin) as client:
        # From now on it tries to connect, with what it has.
        with pytest.raises(StatusError):
            await client.get(resources.NAMESPACES, "default")
        (tmp_path / "new").mkdir()
        new = Certificates(tmp_path / "new")
        issued = new.issue("kubernetes-admin", "system:masters")
        for mine, other in ((admin.key, issued.key), (admin.cert, issued.cert), (admin.ca, issued.ca)):
            mine.write_bytes(other.read_bytes())
        async with serving(api, new, address), asyncio.timeout(30):
            while True:
                try:
                    await client.get(resources.NAMESPACES, "default")
                except StatusError as error:
                    assert error.reason is Reason.SERVICE_UNAVAILABLE
                else:
                    break
