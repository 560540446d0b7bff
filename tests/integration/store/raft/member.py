"""A store member in a process of its own, for tests that kill it.

    python -m tests.integration.store.raft.member CONFIG.json ACKED

Reads commands from stdin, one a line, and answers each with a line of JSON:
    load N       propose without end from N tasks; every acknowledged command is appended to ACKED before it counts
    rest         stop that, and wait until the last proposal has ended
    barrier      a linearizable read
    propose X    one command
    dump PATH    write all applied commands, one a line
    status       leader, term and indices
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import sys
from pathlib import Path

import msgspec
import uvloop

from kybern.config.models import StoreConfig
from store.raft.interface import RaftUnavailable
from store.raft.node import RaftNode
from tests.integration.store.raft.cluster import Recorder


class Member:
    def __init__(self, config: StoreConfig, acked: Path) -> None:
        self.node = RaftNode(config)
        self.machine = Recorder()
        self.prefix = f"{config.name}-{os.getpid()}"
        self.numbers = itertools.count()
        self.acked = os.open(acked, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.workers: list[asyncio.Task[None]] = []
        self.resting = False

    async def work(self) -> None:
        while not self.resting:
            command = f"{self.prefix}-{next(self.numbers)}".encode()
            try:
                await self.node.propose(command)
            except RaftUnavailable:
                await asyncio.sleep(0.05)
            else:
                os.write(self.acked, command + b"\n")

    async def handle(self, line: str) -> object:
        verb, _, argument = line.strip().partition(" ")
        if verb == "load":
            self.resting = False
            self.workers += [asyncio.create_task(self.work()) for _ in range(int(argument))]
        elif verb == "rest":
            self.resting = True
            await asyncio.gather(*self.workers)
            self.workers = []
        elif verb == "barrier":
            await self.node.read_barrier()
        elif verb == "propose":
            await self.node.propose(argument.encode())
        elif verb == "dump":
            await asyncio.to_thread(Path(argument).write_bytes, b"\n".join(self.machine.commands))
        status = self.node.status()
        return {
            "leader": status.leader.name if status.leader else "",
            "term": status.term,
            "applied": status.applied_index,
            "commands": len(self.machine.commands),
        }


async def main(config: StoreConfig, acked: Path) -> None:
    member = Member(config, acked)
    await member.node.start(member.machine)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps({"ready": True}), flush=True)
    while line := await reader.readline():
        try:
            answer = await member.handle(line.decode())
        except RaftUnavailable as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    await member.node.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    text = Path(sys.argv[1]).read_bytes()
    config = msgspec.json.decode(text, type=StoreConfig, dec_hook=lambda kind, value: kind(value))
    uvloop.run(main(config, Path(sys.argv[2])))
