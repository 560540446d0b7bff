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

RESOURCES = {r.plural: r for r in (resources.SERVICES, resources.ENDPOINT_SLICES, resources.NODES)}


class Driver:
    """Executes commands on the stack and its API."""

    def __init__(self, config: NodeConfig) -> None:
        self.client = FakeClient(SystemClock())
        self.stack = NetworkStack(config, self.client, SystemClock())

    async def serve(self, path: str) -> None:
        server = await asyncio.start_unix_server(self._connected, path)
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

    async def do_delete(self, plural: str, name: str, namespace: str = "") -> None:
        await self.client.delete(RESOURCES[plural], name, namespace)

    async def do_ready(self) -> None:
        await self.stack.ready()

    async def do_attach(self, sandbox: str, namespace: str) -> tuple[str, float]:
        started = time.perf_counter()
        address = await self.stack.pod_network.attach(sandbox, Path(namespace))
        return address, time.perf_counter() - started

    async def do_detach(self, sandbox: str) -> None:
        await self.stack.pod_network.detach(sandbox)

    async def do_addresses(self) -> dict[str, str]:
        return dict(await self.stack.pod_network.addresses())


def main() -> None:
    """Arguments: path of the socket, name and address of the node, name server to forward to."""
    path, name, address, upstream = sys.argv[1:]
    logs.setup("debug" if "-v" in sys.argv else "info")
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

    async def run() -> None:
        await Driver(config).serve(path)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


if __name__ == "__main__":
    main()
