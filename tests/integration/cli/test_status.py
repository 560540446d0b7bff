"""`kybern status` against servers that answer as the daemons do."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from kybern.cli.asking import health
from kybern.cli.cluster import ClusterFile, Ports
from kybern.cli.files import configuration, read_cluster
from kybern.cli.main import run
from kybern.cli.status import Status, gather, table
from kybern.config.loading import load
from kybern.config.models import MasterConfig, NodeConfig, StoreConfig
from kybern.pb.etcd import kv_pb2, maintenance_pb2, maintenance_pb2_grpc
from kybern.pb.v1 import objects_pb2, objects_pb2_grpc
from kybern.rpc.server import RpcServer
from tests.integration.store.group import Relay
from tests.ports import free_port

Context = grpc.aio.ServicerContext[Any, Any]


class Maintenance(maintenance_pb2_grpc.MaintenanceServicer):
    """A member that leads, or knows no leader."""

    def __init__(self, leader: int, errors: Sequence[str]) -> None:
        self._leader = leader
        self._errors = errors

    async def Status(  # noqa: N802
        self, request: maintenance_pb2.StatusRequest, context: Context
    ) -> maintenance_pb2.StatusResponse:
        header = kv_pb2.ResponseHeader(member_id=7, revision=42, raft_term=3)
        return maintenance_pb2.StatusResponse(header=header, leader=self._leader, raftTerm=3, errors=self._errors)


class Objects(objects_pb2_grpc.ObjectsServicer):
    """One node, and a Lease that the master m1 holds."""

    def __init__(self, agent_port: int, ready: str) -> None:
        self._node = {
            "metadata": {"name": "n1"},
            "status": {
                "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "127.0.0.1"}],
                "conditions": [{"type": "Ready", "status": ready}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": agent_port}},
            },
        }

    async def Get(  # noqa: N802
        self, request: objects_pb2.GetRequest, context: Context
    ) -> objects_pb2.Object:
        assert (request.namespace, request.name) == ("kube-system", "kybern-controllers")
        return objects_pb2.Object(json=json.dumps({"spec": {"holderIdentity": "m1"}}).encode())

    async def List(  # noqa: N802
        self, request: objects_pb2.ListRequest, context: Context
    ) -> AsyncIterator[objects_pb2.ListResponse]:
        assert request.resource.resource == "nodes"
        yield objects_pb2.ListResponse(items=[objects_pb2.Object(json=json.dumps(self._node).encode())])


@contextlib.asynccontextmanager
async def cluster(
    first: Path, node: Path, *, leader: int = 7, ready: str = "True", agent: bool = True, errors: Sequence[str] = ()
) -> AsyncIterator[None]:
    """A store member, a master and a node's agent."""
    # Ports of the store are not free to choose with `kybern init`, and tests must not share one.
    file = read_cluster(first)
    ports = Ports(file.ports.rest, file.ports.grpc, free_port())
    moved = ClusterFile(file.endpoint, file.members, file.cluster, ports)
    (first / "cluster.yaml").write_bytes(configuration(moved))
    port = free_port()
    store = RpcServer(f"127.0.0.1:{moved.ports.store}", load(first / "store.yaml", StoreConfig).tls, [])
    maintenance_pb2_grpc.add_MaintenanceServicer_to_server(Maintenance(leader, errors), store.grpc)  # type: ignore[abstract]
    master = RpcServer(f"127.0.0.1:{file.ports.grpc}", load(first / "master.yaml", MasterConfig).tls, [])
    objects_pb2_grpc.add_ObjectsServicer_to_server(Objects(port, ready), master.grpc)  # type: ignore[abstract]
    servers = [store, master]
    if agent:
        servers.append(RpcServer(f"127.0.0.1:{port}", load(node / "node.yaml", NodeConfig).tls, []))
    for server in servers:
        await server.start()
        await server.serving(True)
    try:
        yield
    finally:
        for server in servers:
            await server.stop(0)


def states(status: Status) -> dict[str, tuple[str, bool]]:
    return {f"{r.kind} {r.name}": (r.state, r.leader) for r in status.daemons}


async def test_all_is_well(first: Path, node: Path) -> None:
    async with cluster(first, node):
        found = await gather(first)
    assert states(found) == {
        "store m1": ("Serving", True),
        "master m1": ("Serving", True),
        "node n1": ("Serving", False),
    }
    assert found.problems == []
    assert "revision 42, term 3" in table(found)


async def test_a_node_sees_masters_and_nodes_but_not_the_store(first: Path, node: Path) -> None:
    async with cluster(first, node):
        found = await gather(node)
    assert states(found) == {"master m1": ("Serving", True), "node n1": ("Serving", False)}
    assert found.problems == []


async def test_a_store_without_a_leader_is_a_problem(first: Path, node: Path) -> None:
    async with cluster(first, node, leader=0):
        found = await gather(first)
    assert found.problems == ["the store has no leader: nothing can be written"]


async def test_an_alarm_of_the_store_is_a_problem(first: Path, node: Path) -> None:
    async with cluster(first, node, errors=["memberID:7 alarm:NOSPACE "]):
        found = await gather(first)
    assert found.problems == ["store: the alarm NOSPACE is on: `kybern store status` tells more"]


async def test_a_daemon_that_takes_its_time_is_not_down(first: Path) -> None:
    tls = load(first / "store.yaml", StoreConfig).tls
    server = RpcServer(f"127.0.0.1:{free_port()}", tls, [])
    relay = Relay(server.address)
    await server.start()
    await server.serving(True)
    await relay.listen()
    try:
        relay.pause()
        asking = asyncio.create_task(health(relay.address, tls))
        # Longer than a daemon's own channel waits at first.
        await asyncio.sleep(1)
        relay.resume()
        assert (await asking).serves
    finally:
        await relay.cut()
        await server.stop(0)


async def test_what_the_api_thinks_of_a_node_counts(first: Path, node: Path) -> None:
    async with cluster(first, node, ready="Unknown"):
        found = await gather(first)
    assert states(found)["node n1"] == ("NotReady", False)


async def test_an_agent_that_is_down_is_said_to_be(first: Path, node: Path) -> None:
    async with cluster(first, node, agent=False):
        found = await gather(first)
    assert states(found)["node n1"] == ("Down", False)
    assert found.problems == ["node n1: connection refused: the daemon does not run"]


def test_everything_is_down_and_the_command_says_so(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--output", "json", "--dir", str(first)]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert {d["state"] for d in found["daemons"]} == {"Down"}
    assert "no master answers" in err


def test_a_host_of_no_cluster_is_told_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--dir", str(tmp_path)]) == 1
    assert "kybern init" in capsys.readouterr().err
    assert run(["status", "--output", "xml", "--dir", str(tmp_path)]) == 2
