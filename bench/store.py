"""The store beside Debian's etcd: three members each on this machine, with fsync and mTLS, on the same disk.

Prints one JSON line per figure: `name`, `value`, `unit`, `ratio` (ours to etcd's), and beside these etcd's value
(`peer`), the cores used by the two client processes (`clients`) and by the members (`members`), and the members' CPU
per call (`members_us`: a busy machine changes it least), each ours and etcd's. Sides are measured in turn; values are
medians of the rounds. All speak to the member that leads.
Run with `python -m bench.store`, with `--only NAME` for some figures and `--million` for a million keys. `--only stall`
measures how long our members' loops stand still (`bench._store_stall`), `--only failover` how long nobody can write
after a leader was killed (`bench._store_failover`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop

from bench import _store_failover, _store_stall
from bench._store_cluster import Cluster, certificates, channel, cpu_seconds, unary
from kybern.config.models import Tls
from kybern.pb.etcd import kv_pb2, maintenance_pb2

CLIENTS = 2
WATCHERS = 1000
STREAMS = 4
WATCH_EVENTS = 30
FEW_KEYS = 20_000
MANY_KEYS = 1_000_000
RANGE_KEYS = 1000

STALL_KEYS = 500_000

NAMES = ("cas-256B", "cas-4KiB", "put", "range", "watch", "keys")
# Only measured when they are asked for: they take a minute or more each.
LONG_NAMES = ("stall", "failover")

Order = dict[str, Any]


@dataclass(slots=True)
class Sample:
    """What one run came to: calls per second, their median seconds, cores used by the clients and by the members."""

    rate: float
    p50: float
    clients: float
    members: float


class Loader:
    """A client process."""

    def __init__(self, tls: Tls) -> None:
        command = (sys.executable, "-m", "bench._store_load", str(tls.cert), str(tls.key), str(tls.ca))
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def give(self, order: Order) -> None:
        """Hand over an order; its answer comes from `answer`."""
        if self._process.stdin is None:
            raise RuntimeError("the client process has no standard input")
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    async def answer(self) -> Order:
        """The next line of the process.

        Raises:
            RuntimeError: when it has ended.
        """
        if self._process.stdout is None:
            raise RuntimeError("the client process has no standard output")
        line = await asyncio.to_thread(self._process.stdout.readline)
        if not line:
            raise RuntimeError("a client process has failed")
        answer: Order = json.loads(line)
        return answer

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()


@dataclass(slots=True)
class Bench:
    """Both sides and the client processes."""

    sides: dict[str, Cluster]
    loaders: Sequence[Loader]
    tls: Tls
    seconds: float
    rounds: int

    async def run(self, side: str, order: Order, *, clients: int = CLIENTS) -> Sample:
        """One order on one side, from so many clients; `in_flight` is that of all together."""
        cluster = self.sides[side]
        address = cluster.clients[await cluster.leader()]
        used = self.loaders[:clients]
        before, began = cluster.cpu_seconds(), time.perf_counter()
        for number, loader in enumerate(used):
            mine = {"address": address, "seconds": self.seconds, "prefix": f"/bench/c{number}/"} | order
            mine["in_flight"] = order["in_flight"] // clients
            loader.give(mine)
        reports = [await loader.answer() for loader in used]
        elapsed = time.perf_counter() - began
        return Sample(
            rate=sum(report["count"] / report["seconds"] for report in reports),
            p50=statistics.median(report["p50"] for report in reports),
            clients=sum(report["cpu"] for report in reports),
            members=(cluster.cpu_seconds() - before) / elapsed,
        )

    async def compare(self, runs: dict[str, Callable[[], Awaitable[Sample]]]) -> dict[str, Sample]:
        """Each run once per round, in turn; medians."""
        found: dict[str, list[Sample]] = {name: [] for name in runs}
        for _ in range(self.rounds):
            for name, run in runs.items():
                found[name].append(await run())
        return {name: median(samples) for name, samples in found.items()}

    def rate(self, name: str, ours: Sample, etcd: Sample, unit: str = "/s") -> None:
        """Report a throughput."""
        self._print(name, round(ours.rate), unit, ours.rate / etcd.rate, round(etcd.rate), ours, etcd)

    def latency(self, name: str, ours: Sample, etcd: Sample) -> None:
        """Report a median latency."""
        p50, peer = round(ours.p50 * 1000, 3), round(etcd.p50 * 1000, 3)
        self._print(name, p50, "ms", ours.p50 / etcd.p50, peer, ours, etcd)

    def plain(self, name: str, ours: float, etcd: float, unit: str) -> None:
        """Report something else."""
        line = {
            "name": name,
            "value": ours,
            "unit": unit,
            "ratio": round(ours / etcd, 2) if etcd else None,
            "peer": etcd,
        }
        print(json.dumps(line), flush=True)

    def _print(self, name: str, value: float, unit: str, ratio: float, peer: float, ours: Sample, etcd: Sample) -> None:
        line = {
            "name": name,
            "value": value,
            "unit": unit,
            "ratio": round(ratio, 2),
            "peer": peer,
            "clients": [round(ours.clients, 2), round(etcd.clients, 2)],
            "members": [round(ours.members, 2), round(etcd.members, 2)],
            "members_us": [round(side.members / side.rate * 1e6, 1) for side in (ours, etcd)],
        }
        print(json.dumps(line), flush=True)


def median(samples: Sequence[Sample]) -> Sample:
    """The median of each part."""
    return Sample(
        *(
            statistics.median(getattr(sample, part) for sample in samples)
            for part in ("rate", "p50", "clients", "members")
        )
    )


async def compare_and_swap(bench: Bench, size: int) -> None:
    """Independent transactions, 128 in flight: the pipe, etcd's unary calls, etcd's transactions of 100 operations."""
    label = "256B" if size == 256 else "4KiB"
    orders: dict[str, tuple[str, Order]] = {
        "pipe": ("ours", {"op": "cas-pipe", "in_flight": 128}),
        # As many operations in flight as with the transactions of 100.
        "pipe200": ("ours", {"op": "cas-pipe", "in_flight": 100 * CLIENTS}),
        "unary": ("etcd", {"op": "cas-unary", "in_flight": 128}),
        # One transaction per client: 200 operations in flight.
        "compared": ("etcd", {"op": "txn", "in_flight": CLIENTS, "compare": True}),
        "plain": ("etcd", {"op": "txn", "in_flight": CLIENTS, "compare": False}),
        # As many operations in flight as through the pipe: a client that puts what waits into one transaction.
        "joined": ("etcd", {"op": "txn", "in_flight": CLIENTS, "compare": True, "operations": 128 // CLIENTS}),
    }
    found = await bench.compare(
        {
            name: (lambda side=side, order=order: bench.run(side, order | {"size": size}))  # type: ignore[misc]
            for name, (side, order) in orders.items()
        }
    )
    bench.rate(f"store-cas-{label}-pipe-to-unary", found["pipe"], found["unary"])
    bench.latency(f"store-cas-{label}-p50", found["pipe"], found["unary"])
    bench.rate(f"store-cas-{label}-pipe-to-txn64", found["pipe"], found["joined"])
    bench.rate(f"store-cas-{label}-pipe-to-txn100", found["pipe"], found["compared"])
    bench.rate(f"store-cas-{label}-pipe-to-txn100-without-compare", found["pipe"], found["plain"])
    bench.rate(f"store-cas-{label}-pipe200-to-txn100", found["pipe200"], found["compared"])


async def both(bench: Bench, order: Order, *, clients: int = CLIENTS) -> tuple[Sample, Sample]:
    """The same order on both sides."""
    found = await bench.compare(
        {side: (lambda side=side: bench.run(side, order, clients=clients)) for side in bench.sides}  # type: ignore[misc]
    )
    return found["ours"], found["etcd"]


async def puts(bench: Bench) -> None:
    """Writes of 256 B: one at a time, through the pipe and by unary puts, and 16 unary ones in flight."""
    alone = {"in_flight": 1, "size": 256}
    found = await bench.compare(
        {
            "pipe": lambda: bench.run("ours", {"op": "cas-pipe"} | alone, clients=1),
            "ours": lambda: bench.run("ours", {"op": "put"} | alone, clients=1),
            "etcd": lambda: bench.run("etcd", {"op": "put"} | alone, clients=1),
        }
    )
    # A client of ours against a client of etcd, then a client of etcd on both.
    bench.latency("store-swap-p50-to-put", found["pipe"], found["etcd"])
    bench.latency("store-put-p50", found["ours"], found["etcd"])
    bench.rate("store-put-16", *await both(bench, {"op": "put", "in_flight": 16, "size": 256}))
    bench.rate("store-cas-unary-16", *await both(bench, {"op": "cas-unary", "in_flight": 16, "size": 256}))


async def ranges(bench: Bench) -> None:
    """Serializable reads of 1 and 1000 keys of 256 B, 16 in flight."""
    prefix = "/bench/range/"
    for side in bench.sides:
        order = {"op": "load", "in_flight": 1, "keys": RANGE_KEYS, "first": 0, "size": 256, "prefix": prefix}
        await bench.run(side, order, clients=1)
    for keys in (1, RANGE_KEYS):
        order = {"op": "range", "in_flight": 16, "keys": keys, "prefix": prefix}
        bench.rate(f"store-range-{keys}", *await both(bench, order), "reads/s")


async def watches(bench: Bench) -> None:
    """1,000 watchers of one prefix on four streams: events delivered, and what each costs the members."""
    found = await bench.compare({side: (lambda side=side: fan_out(bench, side)) for side in bench.sides})  # type: ignore[misc]
    ours, etcd = found["ours"], found["etcd"]
    bench.rate("store-watch-1000", ours, etcd, "events/s")


async def fan_out(bench: Bench, side: str) -> Sample:
    """Some writes, four at a time, until every watcher has them all."""
    cluster = bench.sides[side]
    address = cluster.clients[await cluster.leader()]
    prefix = "/bench/watch/"
    order = {
        "op": "watch",
        "address": address,
        "prefix": prefix,
        "streams": STREAMS // CLIENTS,
        "watches": WATCHERS // STREAMS,
        "events": WATCH_EVENTS,
    }
    for loader in bench.loaders:
        loader.give(order)
    for loader in bench.loaders:
        await loader.answer()
    before, began = cluster.cpu_seconds(), time.perf_counter()
    numbers = iter(range(WATCH_EVENTS))
    async with channel(address, bench.tls) as connection:
        put = unary(connection, "/etcdserverpb.KV/Put")

        async def write() -> None:
            for number in numbers:
                request = kv_pb2.PutRequest(key=f"{prefix}{number:04d}".encode(), value=bytes(256))
                await put(request.SerializeToString())

        await asyncio.gather(*(write() for _ in range(4)))
    reports = [await loader.answer() for loader in bench.loaders]
    elapsed = time.perf_counter() - began
    cpu = sum(report["cpu"] * report["seconds"] for report in reports)
    events = sum(report["count"] for report in reports)
    return Sample(events / elapsed, 0.0, cpu / elapsed, (cluster.cpu_seconds() - before) / elapsed)


async def size(bench: Bench, keys: int) -> None:
    """Many keys of 256 B: writing them, memory of the largest member, a snapshot, a follower's stop and restart."""
    label = "1M" if keys == MANY_KEYS else f"{keys // 1000}k"
    found: dict[str, dict[str, float]] = {}
    for side, cluster in bench.sides.items():
        half = keys // CLIENTS
        address = cluster.clients[await cluster.leader()]
        began = time.perf_counter()
        for number, loader in enumerate(bench.loaders):
            loader.give(
                {
                    "op": "load",
                    "address": address,
                    "prefix": "/bench/size/",
                    "in_flight": 2,
                    "first": number * half,
                    "keys": half,
                    "size": 256,
                }
            )
        for loader in bench.loaders:
            await loader.answer()
        loaded = time.perf_counter() - began
        memory = cluster.memory() / 2**20
        used, began = cluster.cpu_seconds(), time.perf_counter()
        size = await snapshot(address, bench.tls)
        taken, taken_cpu = time.perf_counter() - began, cluster.cpu_seconds() - used
        follower = next(name for name in cluster.clients if name != name_of(cluster, address))
        began = time.perf_counter()
        cluster.end(follower)
        stopped = time.perf_counter() - began
        began = time.perf_counter()
        cluster.launch(follower)
        await cluster.until_serving(follower)
        restarted = time.perf_counter() - began
        found[side] = {
            "load": keys / loaded,
            "memory": memory,
            "snapshot": taken,
            "snapshot-cpu": taken_cpu,
            "snapshot-size": size / 2**20,
            "stop": stopped,
            "restart": restarted,
            # A busy machine changes this least.
            "restart-cpu": cpu_seconds(cluster.processes[follower].pid),
        }
    units = {"load": "keys/s", "memory": "MiB", "snapshot-size": "MiB"}
    for part in found["ours"]:
        ours, etcd = (round(found[side][part], 3) for side in ("ours", "etcd"))
        bench.plain(f"store-keys-{label}-{part}", ours, etcd, units.get(part, "s"))


def name_of(cluster: Cluster, address: str) -> str:
    """Whose client address it is."""
    return next(name for name, other in cluster.clients.items() if other == address)


async def snapshot(address: str, tls: Tls) -> int:
    """Read a whole snapshot; its length in bytes."""
    length = 0
    async with channel(address, tls) as connection:
        call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = connection.unary_stream(
            "/etcdserverpb.Maintenance/Snapshot"
        )
        async for part in call(maintenance_pb2.SnapshotRequest().SerializeToString()):
            length += len(part)
    return length


@contextlib.asynccontextmanager
async def running(
    folder: Path, tls: Mapping[str, Tls], names: Sequence[str] = ("ours", "etcd"), settings: Mapping[str, object] = {}
) -> AsyncIterator[dict[str, Cluster]]:
    """Both sides, or one, new and empty."""
    sides = {}
    for side in names:
        (folder / side).mkdir(parents=True)
        sides[side] = Cluster(side, folder / side, tls, settings, observed=bool(settings))
    try:
        for cluster in sides.values():
            await cluster.start()
        yield sides
    finally:
        for cluster in sides.values():
            cluster.stop()


async def measure(folder: Path, options: argparse.Namespace) -> None:
    """Start both sides, measure, stop."""
    tls = certificates(folder)
    loaders = [Loader(tls["client"]) for _ in range(CLIENTS)]
    wanted = set(options.only or NAMES)
    try:
        if wanted - {"keys", *LONG_NAMES}:
            async with running(folder / "calls", tls) as sides:
                bench = Bench(sides, loaders, tls["client"], options.seconds, options.rounds)
                parts: dict[str, Callable[[], Awaitable[None]]] = {
                    "cas-256B": lambda: compare_and_swap(bench, 256),
                    "cas-4KiB": lambda: compare_and_swap(bench, 4096),
                    "put": lambda: puts(bench),
                    "range": lambda: ranges(bench),
                    "watch": lambda: watches(bench),
                }
                for name, part in parts.items():
                    if name in wanted:
                        await part()
        if "keys" in wanted:
            # What the other figures left behind, history above all, would count as the keys'.
            async with running(folder / "keys", tls) as sides:
                bench = Bench(sides, loaders, tls["client"], options.seconds, options.rounds)
                await size(bench, MANY_KEYS if options.million else FEW_KEYS)
        if "failover" in wanted:
            async with running(folder / "failover", tls) as sides:
                await _store_failover.failovers(sides, tls["client"], options.kills)
        if "stall" in wanted:
            async with running(folder / "stall", tls, ("ours",), _store_stall.SETTINGS) as sides:
                await _store_stall.stalls(sides["ours"], loaders, tls["client"], options.keys)
    finally:
        for loader in loaders:
            loader.stop()


def main() -> None:
    """Run in a directory that is removed afterwards."""
    parser = argparse.ArgumentParser(prog="python -m bench.store", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only", action="append", choices=NAMES + LONG_NAMES, help="measure this alone; may be repeated"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="medians are of so many runs (default: %(default)s)")
    parser.add_argument("--million", action="store_true", help="a million keys instead of 20,000; takes minutes more")
    parser.add_argument("--kills", type=int, default=20, help="for failover (default: %(default)s)")
    parser.add_argument("--keys", type=int, default=STALL_KEYS, help="for stall (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kybern-bench-store-") as directory:
        uvloop.run(measure(Path(directory), options))


if __name__ == "__main__":
    main()
