"""One client process of `bench.store`: takes orders as lines of JSON, answers with what it did, in lines of JSON.

As cheap as a Python client can be: messages go as bytes, only what the next request needs is decoded. Every slot has a
key of its own and one call in flight, so that transactions never conflict.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import uvloop

from bench._store_cluster import channel, unary
from kybern.config.models import Tls
from kybern.pb.etcd import kv_pb2, watch_pb2
from kybern.pb.v1 import store_pipe_pb2 as pipe_pb2

Order = dict[str, Any]
Report = dict[str, Any]
OPS_PER_TXN = 100


class Slots:
    """Compare-and-swap transactions: one key each, and the revision that it had last."""

    def __init__(self, prefix: str, count: int, value: bytes) -> None:
        self.keys = [f"{prefix}{number:04d}".encode() for number in range(count)]
        self.revisions = [0] * count
        self.value = value

    def fill(self, txn: kv_pb2.TxnRequest, slot: int) -> None:
        """Add a slot's comparison and put to a transaction; the first is not compared: its revision is not known."""
        if self.revisions[slot]:
            txn.compare.add(
                result=kv_pb2.Compare.EQUAL,
                target=kv_pb2.Compare.MOD,
                key=self.keys[slot],
                mod_revision=self.revisions[slot],
            )
        txn.success.add().request_put.CopyFrom(kv_pb2.PutRequest(key=self.keys[slot], value=self.value))


class Client:
    """Does orders. One connection per member, kept."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._channels: dict[str, grpc.aio.Channel] = {}

    def channel(self, address: str) -> grpc.aio.Channel:
        """The connection to a member."""
        if address not in self._channels:
            self._channels[address] = channel(address, self._tls)
        return self._channels[address]

    async def do(self, order: Order) -> Report:
        """One order: `op`, `address`, `seconds`, `in_flight`, `size`, `prefix`."""
        operations: dict[str, Callable[[Order], Awaitable[list[float]]]] = {
            "cas-pipe": self._cas_pipe,
            "cas-unary": self._cas_unary,
            "txn": self._txn,
            "put": self._put,
            "range": self._range,
            "watch": self._watch,
            "load": self._load,
        }
        cpu, began = time.process_time(), time.perf_counter()
        latencies = await operations[order["op"]](order)
        seconds = time.perf_counter() - began
        return {
            "count": len(latencies),
            "seconds": seconds,
            "cpu": (time.process_time() - cpu) / seconds,
            "p50": statistics.median(latencies) if latencies else 0.0,
        }

    def _open(self, order: Order, method: str) -> Any:
        call: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self.channel(order["address"]).stream_stream(method)
        return call()

    async def _cas_pipe(self, order: Order) -> list[float]:
        slots = Slots(order["prefix"], order["in_flight"], bytes(order["size"]))
        stream: Any = self._open(order, "/kybern.v1.StorePipe/Pipe")
        await self._learn(order, slots)
        client = secrets.randbits(63) | 1
        began: dict[int, tuple[int, float]] = {}
        latencies: list[float] = []
        end = time.perf_counter() + order["seconds"]
        number = 0
        ready = list(range(order["in_flight"]))
        while ready or began:
            if ready:
                request = pipe_pb2.PipeRequest(client=client, answered_below=min(began, default=number + 1))
                now = time.perf_counter()
                for slot in ready:
                    number += 1
                    swap = request.calls.add(id=number).swap
                    swap.key, swap.mod_revision, swap.value = slots.keys[slot], slots.revisions[slot], slots.value
                    began[number] = slot, now
                await stream.write(request.SerializeToString())
            response = pipe_pb2.PipeResponse.FromString(await stream.read())
            now = time.perf_counter()
            ready = []
            revisions = {n: at for run in response.swaps for at, n in enumerate(run.ids, run.revision)}
            for reply in response.replies:
                if not reply.swap.succeeded:
                    raise RuntimeError("a swap without a rival did not succeed")
                revisions[reply.id] = reply.swap.revision
            for answered, revision in revisions.items():
                slot, since = began.pop(answered)
                latencies.append(now - since)
                slots.revisions[slot] = revision
                ready.append(slot)
            if now > end:
                ready = []
        await stream.done_writing()
        stream.cancel()
        return latencies

    async def _learn(self, order: Order, slots: Slots) -> None:
        """At which revisions the keys were set by an earlier order."""
        read = unary(self.channel(order["address"]), "/etcdserverpb.KV/Range")
        first = order["prefix"].encode()
        request = kv_pb2.RangeRequest(key=first, range_end=first + b"\xff", keys_only=True)
        found = kv_pb2.RangeResponse.FromString(await read(request.SerializeToString()))
        known = {kv.key: kv.mod_revision for kv in found.kvs}
        slots.revisions = [known.get(key, 0) for key in slots.keys]

    async def _cas_unary(self, order: Order) -> list[float]:
        slots = Slots(order["prefix"], order["in_flight"], bytes(order["size"]))
        call = unary(self.channel(order["address"]), "/etcdserverpb.KV/Txn")

        async def one(slot: int) -> None:
            request = kv_pb2.TxnRequest()
            slots.fill(request, slot)
            slots.revisions[slot] = done(kv_pb2.TxnResponse.FromString(await call(request.SerializeToString())))

        return await repeat(order, one)

    async def _txn(self, order: Order) -> list[float]:
        """Transactions of `operations` operations (100); every operation counts."""
        operations = order.get("operations", OPS_PER_TXN)
        count = order["in_flight"] * operations
        slots = Slots(order["prefix"], count, bytes(order["size"]))
        call = unary(self.channel(order["address"]), "/etcdserverpb.KV/Txn")

        async def one(number: int) -> None:
            request = kv_pb2.TxnRequest()
            mine = range(number * operations, (number + 1) * operations)
            for slot in mine:
                slots.fill(request, slot)
            revision = done(kv_pb2.TxnResponse.FromString(await call(request.SerializeToString())))
            if order["compare"]:
                for slot in mine:
                    slots.revisions[slot] = revision

        return [latency for latency in await repeat(order, one) for _ in range(operations)]

    async def _put(self, order: Order) -> list[float]:
        call = unary(self.channel(order["address"]), "/etcdserverpb.KV/Put")
        requests = [
            kv_pb2.PutRequest(key=f"{order['prefix']}{n:04d}".encode(), value=bytes(order["size"])).SerializeToString()
            for n in range(order["in_flight"])
        ]
        return await repeat(order, lambda slot: call(requests[slot]))

    async def _range(self, order: Order) -> list[float]:
        """Serializable reads of `keys` keys from `prefix` on; every answer must have them all."""
        call = unary(self.channel(order["address"]), "/etcdserverpb.KV/Range")
        keys = order["keys"]
        first = order["prefix"].encode()
        request = kv_pb2.RangeRequest(
            key=first + b"000000" if keys == 1 else first,
            range_end=b"" if keys == 1 else first + b"\xff",
            limit=keys,
            serializable=True,
        ).SerializeToString()
        size: set[int] = set()

        async def one(_slot: int) -> None:
            answer = await call(request)
            if len(answer) not in size:
                if len(kv_pb2.RangeResponse.FromString(answer).kvs) != keys:
                    raise RuntimeError(f"a range has not {keys} keys")
                size.add(len(answer))

        return await repeat(order, one)

    async def _watch(self, order: Order) -> list[float]:
        """`watches` watches of one prefix on each of `streams` streams, until each has seen `events` events."""
        streams = [self._open(order, "/etcdserverpb.Watch/Watch") for _ in range(order["streams"])]
        first = order["prefix"].encode()
        create = watch_pb2.WatchCreateRequest(key=first, range_end=first + b"\xff")
        request = watch_pb2.WatchRequest(create_request=create).SerializeToString()
        for stream in streams:
            for _ in range(order["watches"]):
                await stream.write(request)
            for _ in range(order["watches"]):
                if not watch_pb2.WatchResponse.FromString(await stream.read()).created:
                    raise RuntimeError("a watch was not created")
        say({"ready": True})

        async def follow(stream: Any) -> int:
            seen = 0
            while seen < order["watches"] * order["events"]:
                seen += len(watch_pb2.WatchResponse.FromString(await stream.read()).events)
            return seen

        counts = await asyncio.gather(*(follow(stream) for stream in streams))
        for stream in streams:
            stream.cancel()
        return [0.0] * sum(counts)

    async def _load(self, order: Order) -> list[float]:
        """Set the keys from number `first` on, `keys` of them, 100 per transaction."""
        call = unary(self.channel(order["address"]), "/etcdserverpb.KV/Txn")
        numbers = iter(range(order["first"], order["first"] + order["keys"], OPS_PER_TXN))
        value = bytes(order["size"])
        last = order["first"] + order["keys"]

        async def work() -> None:
            for start in numbers:
                request = kv_pb2.TxnRequest()
                for number in range(start, min(start + OPS_PER_TXN, last)):
                    put = kv_pb2.PutRequest(key=f"{order['prefix']}{number:06d}".encode(), value=value)
                    request.success.add().request_put.CopyFrom(put)
                await call(request.SerializeToString())

        await asyncio.gather(*(work() for _ in range(order["in_flight"])))
        return [0.0] * order["keys"]


def done(response: kv_pb2.TxnResponse) -> int:
    """The revision that a transaction made.

    Raises:
        RuntimeError: when its comparison did not hold: somebody else wrote, or an answer was wrong.
    """
    if not response.succeeded:
        raise RuntimeError("a transaction without a rival did not succeed")
    return response.header.revision


async def repeat(order: Order, call: Callable[[int], Awaitable[object]]) -> list[float]:
    """Call again and again on every slot until the time is over; how long each call took, in seconds."""
    latencies: list[float] = []
    end = time.perf_counter() + order["seconds"]

    async def work(slot: int) -> None:
        now = time.perf_counter()
        while now < end:
            await call(slot)
            after = time.perf_counter()
            latencies.append(after - now)
            now = after

    await asyncio.gather(*(work(slot) for slot in range(order["in_flight"])))
    return latencies


def say(report: Report) -> None:
    """Answer in one line."""
    print(json.dumps(report), flush=True)


async def main(cert: Path, key: Path, ca: Path) -> None:
    """Do orders until there are no more."""
    client = Client(Tls(cert, key, ca))
    while line := await asyncio.to_thread(sys.stdin.readline):
        say(await client.do(json.loads(line)))


if __name__ == "__main__":
    uvloop.run(main(*map(Path, sys.argv[1:4])))
