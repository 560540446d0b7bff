"""One whole cluster for all tests here: three masters, two nodes, in a lab of its own name.

With KYBERN_TEST_STORE=etcd the masters run on Debian's etcd, and all of it must hold as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab import state
from lab.kubectl import ensure_kubectl
from lab.names import Names
from tests.lab.cluster.clusters import Cluster, chosen_store
from tests.lab.labs import LabCommand


@pytest.fixture(scope="session")
def running() -> Iterator[Cluster]:
    """The cluster, brought up once."""
    program = ensure_kubectl()
    command = LabCommand(f"c{os.getpid()}")
    try:
        command("up", "--masters", "3", "--nodes", "2", "--store", chosen_store(), timeout=300)
        yield Cluster(command, state.open_lab(Names(command.name)), program)
    finally:
        command("down")


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    """The cluster, with everything running and nobody cut off; and so again after the test."""
    running.repair()
    yield running
    running.repair()


@pytest.fixture
def hello(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with examples/hello.yaml rolled out."""
    cluster.kubectl("apply", "-f", "examples/hello.yaml")
    cluster.kubectl("rollout", "status", "deployment/hello", "--timeout=120s")
    yield cluster
    cluster.kubectl("delete", "-f", "examples/hello.yaml", "--ignore-not-found", "--wait=false")
    cluster.until(lambda: not cluster.pods("app=hello"), "hello's pods are gone")
