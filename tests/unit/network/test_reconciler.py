"""The reconciler on virtual time, with a pod network that can fail."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import IPv4Network
from typing import Any

import pytest

from kybern.api import resources
from kybern.client import kinds
from kybern.client.fake import FakeClient
from kybern.client.informer import Informer
from kybern.clock import run_virtual
from kybern.config.models import Cluster, NodeConfig, Tls
from kybern.daemon import StartupError
from node.network.reconciler import INTERVAL, NetworkReconciler
from node.network.routes import DirectReach, Route
from node.network.settings import settings_of
from tests.unit.proxy.objects import SETTINGS


class FakeNetwork:
    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.fail = 0

    async def configure(self, pods: IPv4Network, routes: Mapping[IPv4Network, Route]) -> None:
        if self.fail:
            self.fail -= 1
            raise OSError(1, "making the bridge kyb0: Operation not permitted")
        self.calls.append((str(pods), sorted(map(str, routes))))


def node(name: str, pods: str) -> dict[str, Any]:
    number = name[1:]
    return {
        "metadata": {"name": name},
        "spec": {"podCIDR": pods} if pods else {},
        "status": {"addresses": [{"type": "InternalIP", "address": f"192.168.7.1{number}"}]},
    }


def scenario(steps: Any) -> None:
    async def main() -> None:
        client, network = FakeClient(), FakeNetwork()
        informer = Informer(client, kinds.NODES)
        reconciler = NetworkReconciler(SETTINGS, informer, network, DirectReach())
        tasks = [asyncio.create_task(informer.run()), asyncio.create_task(reconciler.run())]
        try:
            await steps(client, network, reconciler)
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    run_virtual(main())


def test_it_waits_for_the_nodes_range_and_then_follows_the_nodes() -> None:
    async def steps(client: FakeClient, network: FakeNetwork, reconciler: NetworkReconciler) -> None:
        client.put(resources.NODES, node("n1", ""))
        client.put(resources.NODES, node("n2", "10.244.2.0/24"))
        await asyncio.sleep(5)
        assert not network.calls
        assert not reconciler.ready.is_set()
        client.put(resources.NODES, node("n1", "10.244.1.0/24"))
        await asyncio.wait_for(reconciler.ready.wait(), 1)
        assert network.calls[-1] == ("10.244.1.0/24", ["10.244.2.0/24"])
        client.put(resources.NODES, node("n3", "10.244.3.0/24"))
        await client.delete(resources.NODES, "n2")
        await asyncio.sleep(1)
        assert network.calls[-1] == ("10.244.1.0/24", ["10.244.3.0/24"])

    scenario(steps)


def test_it_looks_again_by_itself_and_after_failures() -> None:
    async def steps(client: FakeClient, network: FakeNetwork, reconciler: NetworkReconciler) -> None:
        network.fail = 3
        client.put(resources.NODES, node("n1", "10.244.1.0/24"))
        await asyncio.wait_for(reconciler.ready.wait(), 20)
        done = len(network.calls)
        await asyncio.sleep(2 * INTERVAL + 1)
        assert len(network.calls) == done + 2

    scenario(steps)


@pytest.mark.parametrize("pods", ["nonsense", "10.244.1.1/24", "192.168.0.0/24", "fd00::/64"])
def test_a_range_that_cannot_be_is_not_used(pods: str) -> None:
    async def steps(client: FakeClient, network: FakeNetwork, reconciler: NetworkReconciler) -> None:
        client.put(resources.NODES, node("n1", pods))
        await asyncio.sleep(60)
        assert not network.calls

    scenario(steps)


def config(address: str = "192.168.7.11", **cluster: str) -> NodeConfig:
    from pathlib import Path

    nothing = Path("none")
    return NodeConfig(
        name="n1",
        address=address,
        agent_address="",
        masters=[],
        tls=Tls(nothing, nothing, nothing),
        data_dir=nothing,
        cluster=Cluster(**cluster),  # type: ignore[arg-type]
    )


def test_settings_of_a_good_configuration() -> None:
    found = settings_of(config(domain="Cluster.Example."))
    assert (str(found.pods), str(found.dns), found.domain) == ("10.244.0.0/16", "10.96.0.10", "cluster.example")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (config(address="n1.example.org"), "address: 'n1.example.org' is not an IPv4 address"),
        (config(address="10.244.1.1"), "address 10.244.1.1 lies in the range"),
        (config(pod_cidr="10.244.0.1/16"), "cluster.pod_cidr: '10.244.0.1/16' is not an IPv4 range"),
        (config(service_cidr="10.244.8.0/24", dns_address="10.244.8.10"), "overlap"),
        (config(dns_address="10.97.0.10"), "cluster.dns_address 10.97.0.10 is not in cluster.service_cidr"),
        (config(domain="."), "cluster.domain is empty"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(made: NodeConfig, message: str) -> None:
    with pytest.raises(StartupError, match=message):
        settings_of(made)
