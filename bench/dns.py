"""Cluster DNS: questions per second, and what one costs.

The floor is a server on the same loop that sends every packet back: no Python server answers more. Load comes from two
client processes over loopback. Every server runs in a process of its own; its CPU time is read from the kernel.

    python -m bench.dns [--seconds 3] [--services 1000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network
from multiprocessing.synchronize import Event
from typing import Any, cast

import uvloop

from kybern.api import resources
from kybern.client.fake import FakeClient
from kybern.client.informer import Informers
from kybern.clock import SystemClock
from node.dns.directory import InformerDirectory
from node.dns.responder import Responder
from node.dns.server import DnsServer
from node.dns.upstream import Forwarder, Upstreams
from node.dns.zone import Zone
from node.network.informers import NetworkInformers
from node.network.settings import NetworkSettings
from tests.ports import free_port

HOST = "127.0.0.1"
CLIENTS = 2
# Questions that a client has under way.
WINDOW = 32
ENDPOINTS = 3
SETTINGS = NetworkSettings(
    node="n1",
    address=IPv4Address("192.168.7.11"),
    pods=IPv4Network("10.244.0.0/16"),
    services=IPv4Network("10.96.0.0/16"),
    dns=IPv4Address("10.96.0.10"),
    domain="cluster.local",
)


def report(name: str, value: float, unit: str, ratio: float | None = None) -> None:
    """One figure, as one line of JSON. `ratio` is the part of the floor's figure that is reached."""
    print(json.dumps({"name": name, "value": round(value, 2), "unit": unit, "ratio": ratio and round(ratio, 3)}))
    sys.stdout.flush()


def question(name: str, kind: int = 1) -> bytes:
    """A packet without its id."""
    encoded = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return b"\1\0\0\1\0\0\0\0\0\0" + encoded + b"\0" + struct.pack("!HH", kind, 1)


# --- servers


def serve_echo(port: int, ready: Event) -> None:
    """Send back what comes."""

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.DatagramTransport, transport)

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(data, addr)

    async def run() -> None:
        await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=(HOST, port))
        ready.set()
        await asyncio.Event().wait()

    _run(run)


def serve_dns(port: int, ready: Event, services: int) -> None:
    """The cluster DNS with that many Services, every tenth of them headless."""

    async def run() -> None:
        client = FakeClient(SystemClock())
        for number in range(services):
            for resource, document in documents(number):
                client.put(resource, document)
        informers, clock = Informers(client), SystemClock()
        directory = InformerDirectory(NetworkInformers(informers))
        forwarder = Forwarder(Upstreams([], SETTINGS.dns, clock), clock)
        server = DnsServer(Responder(Zone(SETTINGS, directory), directory, forwarder), HOST, port)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(informers.run())
            await informers.synced()
            tasks.create_task(server.run())
            await server.ready.wait()
            ready.set()

    _run(run)


def documents(number: int) -> list[tuple[Any, dict[str, Any]]]:
    """The n-th Service and its endpoints."""
    name = f"service-{number}"
    headless = number % 10 == 0
    ip = "None" if headless else str(IPv4Address(int(SETTINGS.services.network_address) + 256 + number))
    meta = {"namespace": "default", "name": name}
    spec = {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "http", "port": 80}]}
    base = int(SETTINGS.pods.network_address) + 512 + number * ENDPOINTS
    endpoints = [{"addresses": [str(IPv4Address(base + e))], "conditions": {"ready": True}} for e in range(ENDPOINTS)]
    slice_meta = {**meta, "labels": {"kubernetes.io/service-name": name}}
    ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
    return [
        (resources.SERVICES, {"metadata": meta, "spec": spec}),
        (
            resources.ENDPOINT_SLICES,
            {"metadata": slice_meta, "addressType": "IPv4", "endpoints": endpoints, "ports": ports},
        ),
    ]


def _run(run: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


# --- load


def ask(port: int, questions: Sequence[bytes], seconds: float, counts: Any) -> None:
    """Ask for that long; puts the number of answers and the CPU seconds of this process into `counts`."""
    answered = number = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.connect((HOST, port))
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            for _ in range(WINDOW):
                sock.send(struct.pack("!H", number & 0xFFFF) + questions[number % len(questions)])
                number += 1
            try:
                for _ in range(WINDOW):
                    sock.recv(4096)
                    answered += 1
            except TimeoutError:
                pass
    counts.put((answered, time.process_time()))


def measure(
    target: Callable[..., None], arguments: tuple[Any, ...], questions: Sequence[bytes], seconds: float
) -> tuple[float, float, float]:
    """Answers per second, the server's CPU microseconds per answer, and the clients' CPU share of one core each."""
    context = multiprocessing.get_context("spawn")
    port, ready, counts = free_port(), context.Event(), context.Queue()
    server = context.Process(target=target, args=(port, ready, *arguments), daemon=True)
    server.start()
    if not ready.wait(60):
        raise SystemExit("bench.dns: the server did not start")
    assert server.pid is not None
    before = cpu_seconds(server.pid)
    clients = [context.Process(target=ask, args=(port, questions, seconds, counts)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    results = [counts.get() for _ in clients]
    for client in clients:
        client.join()
    used = cpu_seconds(server.pid) - before
    server.kill()
    server.join()
    answered = sum(result[0] for result in results)
    load = sum(result[1] for result in results) / CLIENTS / seconds
    return answered / seconds, used / answered * 1e6, load


def cpu_seconds(pid: int) -> float:
    """User and system time of a process (proc(5))."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:  # noqa: PTH123 - one line
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Arguments: how long, and how many Services."""
    parser = argparse.ArgumentParser(description="Measure the cluster DNS.")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--services", type=int, default=1000)
    arguments = parser.parse_args()
    count = arguments.services
    known = [question(f"service-{n}.default.svc.cluster.local") for n in range(count)]
    searched = [question(f"www{n}.example.org.default.svc.cluster.local") for n in range(count)]
    # More names than the cache holds: every one is answered anew.
    anew = [question(f"x{n}.default.svc.cluster.local") for n in range(30_000)]
    floor, floor_cpu, load = measure(serve_echo, (), known, arguments.seconds)
    report("dns.floor", floor, "answers/s")
    report("dns.floor.cpu", floor_cpu, "us")
    report("dns.client_load", load, "of a core each")
    for name, questions in (("services", known), ("search_path", searched), ("uncached", anew)):
        rate, cpu, _ = measure(serve_dns, (count,), questions, arguments.seconds)
        report(f"dns.{name}", rate, "answers/s", rate / floor)
        report(f"dns.{name}.cpu", cpu, "us", floor_cpu / cpu)


if __name__ == "__main__":
    main()
