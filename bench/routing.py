"""Service routing: what writing, changing and using the rules of many Services costs.

Runs in a network namespace of its own (root). The peer is the layout that kube-proxy gives the same Services (one list
of all Services, one chain per Service and one per endpoint), written by the same iptables-restore in the same run; its
figures leave out the time that computing it takes.

    python -m bench.routing [--services 1000 10000]
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from kybern.key import Key
from node.network.netlink import in_namespace
from node.network.pods import LinuxPodNetwork
from node.network.settings import NetworkSettings
from node.proxy.iptables import IptablesRouting
from node.proxy.model import PortRoute, Target

SETTINGS = NetworkSettings(
    node="n1",
    address=IPv4Address("192.168.7.11"),
    pods=IPv4Network("10.244.0.0/16"),
    services=IPv4Network("10.96.0.0/16"),
    dns=IPv4Address("10.96.0.10"),
    domain="cluster.local",
)
ENDPOINTS = 2
CONNECTIONS = 400
_CLONE_NEWNET = 0x40000000


def report(name: str, value: float, unit: str, ratio: float | None = None) -> None:
    """One figure, as one line of JSON. A ratio above 1 means: this many times better than the peer."""
    print(json.dumps({"name": name, "value": round(value, 4), "unit": unit, "ratio": ratio and round(ratio, 2)}))
    sys.stdout.flush()


def cluster_ip(number: int) -> IPv4Address:
    """The address of the n-th Service."""
    return IPv4Address(int(SETTINGS.services.network_address) + 256 + number)


def endpoints(number: int, last: IPv4Address) -> list[Target]:
    """The endpoints of the n-th Service, in ranges of other nodes; the last Service leads to `last`."""
    base = int(SETTINGS.pods.network_address) + 512
    return [
        Target(last if number < 0 else IPv4Address(base + (number * 7 + e) % 60000), 8080) for e in range(ENDPOINTS)
    ]


def route(number: int, targets: Sequence[Target]) -> PortRoute:
    """The n-th Service."""
    return PortRoute(
        service=Key("default", f"service-{number}"),
        name="http",
        protocol="tcp",
        port=80,
        cluster_ips=(cluster_ip(number),),
        external_ips=(),
        ingress_ips=(),
        sources=None,
        node_port=0,
        affinity=0,
        endpoints=tuple(sorted(set(targets))),
        local=(),
        internal_local=False,
        external_local=False,
    )


# --- the peer


def peer_chains(number: int, targets: Sequence[Target]) -> tuple[list[str], list[str]]:
    """Chains and rules of one Service in the peer's layout, without its line in the list of all Services."""
    name = f"KUBE-SVC-{number:016d}"
    chains, rules = [f":{name} - [0:0]"], []
    for position, target in enumerate(targets):
        endpoint = f"KUBE-SEP-{number:013d}{position:03d}"
        chains.append(f":{endpoint} - [0:0]")
        left = len(targets) - position
        chance = f" -m statistic --mode random --probability {1 / left:.11f}" if left > 1 else ""
        rules.append(f"-A {name}{chance} -j {endpoint}")
        rules.append(f"-A {endpoint} -s {target.address}/32 -j KUBE-MARK-MASQ")
        rules.append(f"-A {endpoint} -p tcp -m tcp -j DNAT --to-destination {target}")
    return chains, rules


def peer_entry(number: int) -> str:
    """The Service's line in the list of all Services."""
    return (
        f'-A KUBE-SERVICES -d {cluster_ip(number)}/32 -p tcp -m comment --comment "default/service-{number}:http" '
        f"-m tcp --dport 80 -j KUBE-SVC-{number:016d}"
    )


def peer_text(numbers: Sequence[int], last: IPv4Address, *, first: bool) -> str:
    """Input of iptables-restore for those Services; the first time with all that they need."""
    chains, rules = [], []
    if first:
        chains += [":KUBE-SERVICES - [0:0]", ":KUBE-MARK-MASQ - [0:0]"]
        rules += ["-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000"]
        rules += ["-I OUTPUT 1 -j KUBE-SERVICES", "-I PREROUTING 1 -j KUBE-SERVICES"]
    for number in numbers:
        more, mine = peer_chains(number, endpoints(-1 if number == numbers[-1] else number, last))
        chains += more
        rules += [*mine, peer_entry(number)]
    return "\n".join(["*nat", *chains, *rules, "COMMIT", ""])


def restore(text: str) -> float:
    """Seconds that iptables-restore takes."""
    started = time.perf_counter()
    subprocess.run(["iptables-restore", "--noflush"], input=text, text=True, check=True)
    return time.perf_counter() - started


def flush() -> None:
    """An empty packet filter."""
    for table in ("nat", "filter"):
        subprocess.run(["iptables-restore"], input=f"*{table}\nCOMMIT\n", text=True, check=True)


# --- measuring


def connect_time(address: str, port: int) -> float:
    """Median seconds to open a connection."""
    seconds = []
    for _ in range(CONNECTIONS):
        started = time.perf_counter()
        with socket.create_connection((address, port), 5):
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def serve_in(namespace: str) -> None:
    """Accept connections in a namespace."""
    descriptor = os.open(namespace, os.O_RDONLY)

    def listen() -> socket.socket:
        made = socket.socket()
        made.bind(("0.0.0.0", 8080))
        made.listen(512)
        return made

    server = in_namespace(descriptor, listen)
    os.close(descriptor)

    def accept() -> None:
        while True:
            server.accept()[0].close()

    threading.Thread(target=accept, daemon=True).start()


class Sandbox:
    """A process with a network namespace of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
        self.path = Path(f"/proc/{self._process.pid}/ns/net")
        own = Path("/proc/self/ns/net").readlink()
        while self.path.readlink() == own:
            time.sleep(0.001)

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


async def wiring() -> tuple[LinuxPodNetwork, Sandbox, str]:
    """Figures for pods; returns one that stays."""
    network = LinuxPodNetwork(SETTINGS)
    await network.configure(IPv4Network("10.244.1.0/24"), {})
    sandboxes = [Sandbox() for _ in range(30)]
    seconds = []
    address = ""
    for number, sandbox in enumerate(sandboxes):
        started = time.perf_counter()
        address = await network.attach(f"sandbox-{number}", sandbox.path)
        seconds.append(time.perf_counter() - started)
    floor = statistics.median(bare_pair(number) for number in range(30))
    report("network.wire_pod", statistics.median(seconds) * 1000, "ms", floor / statistics.median(seconds))
    for sandbox in sandboxes[:-1]:
        sandbox.end()
    return network, sandboxes[-1], address


def bare_pair(number: int) -> float:
    """Seconds that one `ip link add ... type veth` takes: a process, and no addresses."""
    started = time.perf_counter()
    subprocess.run(["ip", "link", "add", f"b{number}", "type", "veth", "peer", "name", f"c{number}"], check=True)
    return time.perf_counter() - started


async def services(count: int, pod: IPv4Address) -> None:
    """Figures for that many Services."""
    numbers = list(range(count))
    flush()
    peer_first = restore(peer_text(numbers, pod, first=True))
    peer_add = statistics.median(restore(peer_text([count + n], pod, first=False)) for n in range(7))
    peer_connect = connect_time(str(cluster_ip(count - 1)), 80)
    flush()
    backend = IptablesRouting(SETTINGS)
    started = time.perf_counter()
    for number in numbers:
        one = route(number, endpoints(-1 if number == count - 1 else number, pod))
        backend.set_service(one.service, [one])
    compiled = time.perf_counter() - started
    await backend.sync()
    first = time.perf_counter() - started
    added = [await seconds_of(backend, count + n, pod) for n in range(7)]
    ours_connect = connect_time(str(cluster_ip(count - 1)), 80)
    direct = connect_time(str(pod), 8080)
    started = time.perf_counter()
    await backend.resync()
    compared = time.perf_counter() - started
    report(f"routing.first_sync.{count}", first, "s", peer_first / first)
    report(f"routing.compile.{count}", compiled, "s")
    report(f"routing.add_one.{count}", statistics.median(added) * 1000, "ms", peer_add / statistics.median(added))
    report(f"routing.compare_all.{count}", compared, "s")
    report(f"routing.connect.{count}", ours_connect * 1e6, "us", peer_connect / ours_connect)
    report(f"routing.connect_directly.{count}", direct * 1e6, "us", direct / ours_connect)


async def seconds_of(backend: IptablesRouting, number: int, pod: IPv4Address) -> float:
    """Seconds from a new Service until its rules are in force."""
    started = time.perf_counter()
    one = route(number, endpoints(-1, pod))
    backend.set_service(one.service, [one])
    await backend.sync()
    return time.perf_counter() - started


async def run(counts: Sequence[int]) -> None:
    """All figures."""
    network, sandbox, address = await wiring()
    try:
        serve_in(str(sandbox.path))
        for count in counts:
            await services(count, IPv4Address(address))
    finally:
        sandbox.end()
        await network.close()


def main() -> None:
    """Arguments: how many Services."""
    parser = argparse.ArgumentParser(description="Measure service routing.")
    parser.add_argument("--services", type=int, nargs="+", default=[1000, 10000])
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("bench.routing: network namespaces need root")
    # This process alone moves, before it has any other thread; the namespace ends with it.
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        sys.exit("bench.routing: cannot make a network namespace")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    asyncio.run(run(arguments.services))


if __name__ == "__main__":
    main()
