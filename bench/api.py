"""What requests cost in the API server's handlers, in one process with the store in memory.

Prints one JSON line per figure: `name`, `value`, `unit`, `ratio`. The peer, measured in turn in the same run, is a
plain put of the same bytes into the same store: what is beyond it is admission's, validation's, field managers' and
the cache's. Run with `python -m bench.api`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from itertools import count
from random import Random

import msgspec
import uvloop

from bench.machinery import pod
from kybern.api import resources
from kybern.client.interface import PatchType
from kybern.client.memory_store import MemoryStore
from kybern.client.store import Put
from master.apiserver.interface import Body, ListOptions, Target, User, WatchOptions, WriteOptions
from master.apiserver.server import ApiServer

ADMIN = User("kubernetes-admin", ("system:masters",))
OPTIONS = WriteOptions(field_manager="bench")
ROUNDS = 15
PER_ROUND = 40
WATCHERS = 50
EVENTS = 400

Step = Callable[[], Awaitable[object]]


class Bench:
    """The requests, on one API server."""

    def __init__(self, store: MemoryStore, server: ApiServer) -> None:
        self.store = store
        self.handlers = server.handlers
        self._numbers = count()
        self._pods = Target(resources.PODS, "default")
        self._raw = msgspec.json.encode(pod())
        document = pod()
        document["metadata"] = {"generateName": "web-", "labels": {"app": "web"}}
        self._body = Body(msgspec.json.encode({k: v for k, v in document.items() if k != "status"}))

    async def prepare(self) -> None:
        """What the requests need: namespace, account, a pod, a lease."""
        for resource, namespace, name in (
            (resources.NAMESPACES, "", "default"),
            (resources.SERVICE_ACCOUNTS, "default", "default"),
            (resources.LEASES, "default", "n1"),
        ):
            body = Body(msgspec.json.encode({"metadata": {"name": name}}))
            await self.handlers.create(ADMIN, Target(resource, namespace), body, OPTIONS)
        self.name: str = msgspec.json.decode(await self.create())["metadata"]["name"]

    async def put(self) -> None:
        """The peer."""
        await self.store.txn((), [Put(b"/bench/%d" % next(self._numbers), self._raw)])

    async def create(self) -> bytes:
        """A pod, as a ReplicaSet creates it."""
        return (await self.handlers.create(ADMIN, self._pods, self._body, OPTIONS)).document

    async def status(self) -> None:
        """A pod's status, as a node agent patches it."""
        patch = b'{"status":{"phase":"Running","message":"%d"}}' % next(self._numbers)
        target = Target(resources.PODS, "default", self.name, "status")
        await self.handlers.patch(ADMIN, target, PatchType.MERGE, patch, OPTIONS)

    async def renew(self) -> None:
        """A heartbeat."""
        patch = b'{"spec":{"renewTime":"2026-01-01T00:00:00.%06dZ"}}' % (next(self._numbers) % 1_000_000)
        await self.handlers.patch(ADMIN, Target(resources.LEASES, "default", "n1"), PatchType.MERGE, patch, OPTIONS)

    async def get(self) -> None:
        """One pod as of now."""
        await self.handlers.get(ADMIN, Target(resources.PODS, "default", self.name))

    async def list(self) -> None:
        """The pods as of now."""
        await self.handlers.list(ADMIN, self._pods, ListOptions())

    async def delivered(self) -> float:
        """Events per second of CPU, the creation of the pods included."""
        seen = [0] * WATCHERS

        async def follow(index: int) -> None:
            options = WatchOptions(resource_version="0")
            async with aclosing(self.handlers.watch(ADMIN, self._pods, options)) as batches:
                async for events in batches:
                    seen[index] += len(events)

        tasks = [asyncio.create_task(follow(i)) for i in range(WATCHERS)]
        await asyncio.sleep(0.2)
        before = sum(seen)
        watched = await self._create_many()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return (sum(seen) - before) / watched

    async def _create_many(self) -> float:
        began = time.process_time()
        await asyncio.gather(*(self.create() for _ in range(EVENTS)))
        await asyncio.sleep(0.1)
        return time.process_time() - began


async def cost(step: Step) -> float:
    """Microseconds of CPU of one step."""
    # What earlier steps have left for the cache to take in is not this one's.
    await asyncio.sleep(0.01)
    began = time.process_time()
    for _ in range(PER_ROUND):
        await step()
    return (time.process_time() - began) / PER_ROUND * 1e6


async def main() -> None:
    """Measure and print."""
    store = MemoryStore()
    async with ApiServer(store, rng=Random(1)) as server:
        bench = Bench(store, server)
        await bench.prepare()
        steps: dict[str, Step] = {
            "put": bench.put,
            "create": bench.create,
            "status": bench.status,
            "renew": bench.renew,
            "get": bench.get,
            "list": bench.list,
        }
        figures: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(ROUNDS):
            for name, step in steps.items():
                figures[name].append(await cost(step))
            # The store in memory looks through its history for every watch; a real one does not.
            await server.cacher.fresh()
            store.compact()
        floor = statistics.median(figures["put"])
        for name, values in figures.items():
            value = statistics.median(values)
            line = {"name": f"api-{name}", "value": round(value, 1), "unit": "us", "ratio": round(value / floor, 2)}
            print(json.dumps(line))
        rate = await bench.delivered()
        # To the events that one write may cause in the time of a plain put.
        ratio = round(rate * floor / 1e6, 2)
        print(json.dumps({"name": "api-watch", "value": round(rate), "unit": "events/s", "ratio": ratio}))
    await store.close()


if __name__ == "__main__":
    uvloop.run(main())
