"""A node's network in a process of its own: the real stack, fed with objects through a Unix socket.

Started inside a host's network namespace. Speaks one JSON document per line: `{"do": ..., ...}` and the answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from kybern import logs
from kybern.api import resources
from kybern.client.fake import FakeClient
from kybern.clock import SystemClock
from kybern.config.models import NodeConfig, Tls
from node.network.interface import NetworkError
from node.network.main import NetworkStack
from node.proxy import proxier

RESOURCES = {r.plural: r for r in (resources.SERVICES, resources.ENDPOINT_SLICES, resources.NODES)}


class Driver:
    """Executes commands on the stack and its API."""

    def __init__(self, config: NodeConfig) -> None:
        self.client = FakeClient(SystemClock())
        # The last revision of each resource.
        self.revisions: dict[str, int] = {}
        self.stack = NetworkStack(config, self.client, SystemClock())

    async def serve(self, path: str) -> None:
        server = await asyncio.start_unix_server(self._connected, path, limit=1 << 26)
        async with server, asyncio.TaskGroup() as tasks:
            tasks.create_task(self.stack.run())

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            command = json.loads(line)
            try:
                answer = {"result": await getattr(self, "do_" + command.pop("do"))(**command)}
            except NetworkError as error:
                answer = {"error": str(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    async def do_put(self, plural: str, documents: list[dict[str, Any]]) -> None:
        for document in documents:
            self.client.put(RESOURCES[plural], document)
        self.revisions[plural] = self.client.revision

    async def do_delete(self, plural: str, name: str, namespace: str = "") -> None:
        await self.client.delete(RESOURCES[plural], name, namespace)
        self.revisions[plural] = self.client.revision

    async def do_ready(self) -> None:
        await self.stack.ready()

    async def do_in_force(self) -> None:
        for informer in (self.stack.informers.services, self.stack.informers.slices, self.stack.informers.nodes):
            await informer.reached(self.revisions.get(informer.kind.resource.plural, 0))
        await self.stack.proxier.in_force()

    async def do_attach(self, sandbox: str, namespace: str) -> tuple[str, float]:
        started = time.perf_counter()
        address = await self.stack.pod_network.attach(sandbox, Path(namespace))
        return address, time.perf_counter() - started

    async def do_detach(self, sandbox: str) -> None:
        await self.stack.pod_network.detach(sandbox)

    async def do_addresses(self) -> dict[str, str]:
        return dict(await self.stack.pod_network.addresses())


def main() -> None:
    """Arguments: path of the socket, file with the first objects, name and address of the node, name server."""
    path, objects, name, address, upstream = sys.argv[1:]
    logs.setup("info")
    # A test does not wait for a minute.
    proxier.RESYNC_INTERVAL = 2.0
    proxier.RESYNC_SHARE = 0.5
    tls = Tls(Path("none"), Path("none"), Path("none"))
    config = NodeConfig(
        name=name,
        address=address,
        agent_address=f"{address}:10250",
        masters=[],
        tls=tls,
        data_dir=Path(path).parent,
        upstream_dns=[upstream],
    )

    first = json.loads(Path(objects).read_text())

    async def run() -> None:
        driver = Driver(config)
        for plural, document in first:
            await driver.do_put(plural, [document])
        await driver.serve(path)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


if __name__ == "__main__":
    main()
