"""Pods: seconds from asking for 20 replicas until all of them run, beside Docker Swarm.

Both sides have two nodes, each with a Docker engine of its own in a network namespace, and run the same image. Kybern's
is a whole lab with three masters; Swarm has one manager, on the first of its nodes, and nothing to replicate. Rounds
are interleaved; the figures are medians. The ratio is Swarm's time divided by ours: more than 1 is faster than Swarm.

    python -m bench.pods [--replicas 20] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network

import docker
import docker.types

from kybern.api import resources
from kybern.client.grpc import GrpcClient
from kybern.client.interface import Client, EventType
from kybern.client.kinds import PODS
from kybern.config.models import Tls
from lab import images, lifecycle, network, processes, state, teardown
from lab.commands import run
from lab.daemons import program, socket_path
from lab.engine import Engine
from lab.names import Names
from lab.progress import Progress
from lab.state import Claim, Lab, LabFile

IMAGE = "kybern/busybox:1"
COMMAND = ["/bin/sleep", "3600"]
NAME = "bench-pods"
NODES = ("n1", "n2")
# Longest time that a round may take before the benchmark gives up.
PATIENCE = 120.0


def report(name: str, value: float, unit: str, ratio: float | None = None) -> None:
    """One figure, as one line of JSON."""
    print(json.dumps({"name": name, "value": round(value, 3), "unit": unit, "ratio": ratio and round(ratio, 3)}))
    sys.stdout.flush()


# --- Kybern


def deployment(replicas: int) -> dict[str, object]:
    """A Deployment of pods that sleep, like Swarm's tasks."""
    labels = {"app": NAME}
    container = {"name": "main", "image": IMAGE, "command": COMMAND}
    pod = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


async def pods_until(client: Client, since: int, running: set[str], done: Callable[[set[str], set[str]], bool]) -> None:
    """Follow the pods until `done` says so of the names of those that run and of those that there are."""
    present = set(running)
    async for events in client.watch(resources.PODS, "default", labels=f"app={NAME}", since=since):
        for event in events:
            if event.type is EventType.BOOKMARK:
                continue
            pod = PODS.read(event.object)
            if event.type is EventType.DELETED:
                present.discard(pod.name)
                running.discard(pod.name)
            else:
                present.add(pod.name)
                if pod.status.phase == "Running":
                    running.add(pod.name)
        if done(running, present):
            return


async def kybern_round(client: Client, replicas: int) -> tuple[float, float]:
    """Seconds until all pods run, and until all are gone after the Deployment was deleted."""
    running: set[str] = set()
    since = (await client.list(resources.PODS, "default", labels=f"app={NAME}")).revision
    began = time.perf_counter()
    await client.create(resources.DEPLOYMENTS, deployment(replicas), "default")
    async with asyncio.timeout(PATIENCE):
        await pods_until(client, since, running, lambda up, _: len(up) >= replicas)
    up = time.perf_counter() - began
    since = (await client.list(resources.PODS, "default", labels=f"app={NAME}")).revision
    began = time.perf_counter()
    await client.delete(resources.DEPLOYMENTS, NAME, "default")
    async with asyncio.timeout(PATIENCE):
        await pods_until(client, since, running, lambda _, there: not there)
    return up, time.perf_counter() - began


# --- Swarm


class Swarm:
    """Two hosts of the lab's kind with an engine each; the first manages."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.lab: Lab

    def start(self) -> None:
        """Hosts, engines, images, swarm."""
        with state.locked():
            taken = [*network.networks_in_use(), *(_network_of(c) for c in state.claims().values())]
            subnet = network.free_subnet(taken)
            folder = state.folder_of(self.names.lab)
            state.claim(self.names, Claim(str(folder), str(subnet.network)))
        self.lab = Lab(self.names, folder, LabFile(self.names.lab, str(subnet.network), [], list(NODES)))
        folder.mkdir(parents=True, exist_ok=True)
        network.create(self.names, subnet, NODES)
        for node in NODES:
            # Swarm asks the image's registry before every task; without a route that fails at once, and it takes the
            # image that it has.
            run(*network.enter(self.names, node, "ip", "route", "del", "default"))
        for node in NODES:
            self._engine(node)
        first, second = (self.client(node) for node in NODES)
        first.swarm.init(advertise_addr=subnet.host("n1"), listen_addr=f"{subnet.host('n1')}:2377")
        token = first.swarm.attrs["JoinTokens"]["Worker"]
        second.swarm.join(
            [f"{subnet.host('n1')}:2377"], token, advertise_addr=subnet.host("n2"), listen_addr=subnet.host("n2")
        )

    def _engine(self, node: str) -> None:
        socket = socket_path(self.lab, node, "docker")
        socket.parent.mkdir(parents=True, exist_ok=True)
        # With the bridge and the packet filter of its defaults: Swarm's tasks get an address on it, as our pods do.
        command = [
            program("dockerd"),
            *("--data-root", str(self.lab.data(node) / "docker")),
            *("--exec-root", str(socket.parent / "docker")),
            *("--pidfile", str(socket.parent / "docker.pid")),
            *("--host", f"unix://{socket}"),
            *("--cgroup-parent", f"/{self.names.cgroup(node)}"),
        ]
        process = processes.start(self.names, command, self.lab.log(node, "docker"), host=node)
        self.lab.remember(node, "docker", process)
        if not processes.wait_for(Engine(socket, timeout=5).answers, 60.0, 0.1):
            raise SystemExit(f"bench.pods: the Docker engine of {node} does not serve")
        images.load(socket)

    def client(self, node: str) -> docker.DockerClient:
        """A client of a node's engine."""
        return docker.DockerClient(base_url=f"unix://{socket_path(self.lab, node, 'docker')}", timeout=60)

    def round(self, replicas: int) -> tuple[float, float]:
        """Seconds until all tasks run, and until all containers are gone after the service was removed."""
        manager = self.client("n1")
        engines = [self.client(node) for node in NODES]
        began = time.perf_counter()
        service = manager.services.create(  # type: ignore[no-untyped-call]
            IMAGE,
            command=COMMAND,
            name=NAME,
            mode=docker.types.ServiceMode("replicated", replicas),
            stop_grace_period=0,
        )
        _wait(lambda: sum(t["Status"]["State"] == "running" for t in service.tasks()) >= replicas)
        up = time.perf_counter() - began
        began = time.perf_counter()
        service.remove()
        _wait(lambda: not any(e.containers.list(all=True, ignore_removed=True) for e in engines))
        return up, time.perf_counter() - began


def _network_of(claim: Claim) -> IPv4Network:
    """The network of a lab's claim."""
    return IPv4Network(claim.network)


def _wait(done: Callable[[], bool]) -> None:
    if not processes.wait_for(done, PATIENCE, 0.02):
        raise SystemExit("bench.pods: Swarm did not get there in time")


# --- both


@contextmanager
def sides() -> Iterator[tuple[Lab, Swarm]]:
    """Both clusters, taken down at the end."""
    ours, theirs = Names("bench-pods"), Swarm(Names("bench-swarm"))
    progress = Progress()
    try:
        with progress.step("Swarm"):
            theirs.start()
        yield lifecycle.up(ours, 3, len(NODES), progress), theirs
    finally:
        for names in (ours, theirs.names):
            with progress.step(f"taking {names.lab} down"):
                teardown.remove(names, state.folder_of(names.lab), progress.say)
                state.release(names)


async def measure(lab: Lab, swarm: Swarm, replicas: int, rounds: int) -> None:
    """Interleaved rounds; the first of each side is not counted."""
    files = lab.admin_files()
    masters = [f"{lab.subnet.host(m)}:6444" for m in lab.file.masters]
    client = GrpcClient(masters, Tls(files["cert"], files["key"], files["ca"]))
    measured: list[tuple[float, float, float, float]] = []
    try:
        for number in range(rounds + 1):
            ours = await kybern_round(client, replicas)
            theirs = await asyncio.to_thread(swarm.round, replicas)
            if number:
                measured.append((*ours, *theirs))
    finally:
        await client.close()
    up, gone, swarm_up, swarm_gone = (statistics.median(column) for column in zip(*measured, strict=True))
    report(f"pods_{replicas}_running", up, "s", swarm_up / up)
    report(f"pods_{replicas}_running_swarm", swarm_up, "s")
    report(f"pods_{replicas}_gone", gone, "s", swarm_gone / gone)
    report(f"pods_{replicas}_gone_swarm", swarm_gone, "s")


def main() -> None:
    """Arguments: how many replicas, how many rounds."""
    parser = argparse.ArgumentParser(description="Measure how fast pods start, beside Docker Swarm.")
    parser.add_argument("--replicas", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench.pods: the lab needs root")
    with sides() as (lab, swarm):
        asyncio.run(measure(lab, swarm, arguments.replicas, arguments.rounds))


if __name__ == "__main__":
    main()
