"""What the tests of a real group share: certificates, configurations on free ports, a machine that remembers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kybern import pki
from kybern.clock import Clock
from kybern.config.models import StoreConfig, Tls
from store.raft.interface import Applied, Levels
from store.raft.messages import Hello
from store.raft.node import RaftNode
from store.raft.transport import TlsTransport
from tests.ports import free_ports

_LEVELS = Levels()


class Recorder:
    """A state machine that keeps what it was given; its result is the command's index."""

    def __init__(self, levels: Levels = _LEVELS) -> None:
        self.levels = levels
        self.level = 1
        self.commands: list[bytes] = []
        self.applied: list[Applied] = []
        self.batches = 0

    def apply(self, command: bytes, applied: Applied) -> object:
        self.commands.append(command)
        self.applied.append(applied)
        return applied.index

    def rise(self, level: int) -> None:
        self.level = max(self.level, level)

    def caught_up(self) -> None:
        self.batches += 1

    def dump(self) -> Iterator[bytes]:
        state, level = (self.commands[:], self.applied[:]), self.level

        def portions() -> Iterator[bytes]:
            yield b"%d %d\n" % (len(state[0]), level)
            for at in range(0, len(state[0]), 100):
                yield b"".join(
                    b"%s %d %d %d\n" % (command, applied.index, applied.term, applied.now_ms)
                    for command, applied in zip(state[0][at : at + 100], state[1][at : at + 100], strict=True)
                )

        return portions()

    def load(self) -> RecorderLoading:
        return RecorderLoading(self)


class RecorderLoading:
    """Commands without line feeds alone: a line each."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._data = bytearray()

    def feed(self, part: bytes) -> None:
        self._data += part

    def finish(self) -> None:
        head, *lines = self._data.decode().split("\n")[:-1]
        count, level = map(int, head.split())
        if len(lines) != count:
            raise ValueError(f"{len(lines)} commands instead of {count}")
        self._recorder.level = level
        rows = [line.rsplit(" ", 3) for line in lines]
        self._recorder.commands = [command.encode() for command, *_ in rows]
        self._recorder.applied = [Applied(int(index), int(term), int(now)) for _, index, term, now in rows]


def authority(directory: Path) -> pki.KeyPair:
    """The authority in a directory, made when it is not there yet."""
    cert, key = directory / "ca.crt", directory / "ca.key"
    if not cert.exists():
        pki.new_authority("store-ca", datetime.now(UTC)).write(cert, key)
    return pki.load_pair(cert, key)


def issue(directory: Path, name: str, group: str = "kybern:store") -> Tls:
    """A certificate for both directions of the authority in the directory."""
    identity = pki.Identity(name, (group,))
    pair = pki.issue(authority(directory), identity, datetime.now(UTC), hosts=["127.0.0.1"], server=True, client=True)
    tls = Tls(directory / f"{name}-{group}.crt", directory / f"{name}-{group}.key", directory / "ca.crt")
    pair.write(tls.cert, tls.key)
    return tls


def configurations(
    directory: Path, count: int = 3, *, heartbeat: float = 0.05, shortest: float = 0.4, longest: float = 0.9
) -> list[StoreConfig]:
    """One configuration per member; data and certificates below `directory`."""
    names = [f"s{i + 1}" for i in range(count)]
    members = {name: f"127.0.0.1:{port}" for name, port in zip(names, free_ports(count), strict=True)}
    return [
        StoreConfig(
            name=name,
            data_dir=directory / name,
            client_address="127.0.0.1:1",
            peer_address=members[name],
            members=members,
            clients=dict.fromkeys(names, "127.0.0.1:1"),
            tls=issue(directory / "pki", name),
            cluster_name="test",
            heartbeat_interval=heartbeat,
            election_timeout_min=shortest,
            election_timeout_max=longest,
        )
        for name in names
    ]


def changed(config: StoreConfig, **changes: Any) -> StoreConfig:
    """The configuration with some fields set otherwise."""
    fields: tuple[str, ...] = getattr(StoreConfig, "__struct_fields__")  # noqa: B009 - not known to type checkers
    return StoreConfig(**{name: getattr(config, name) for name in fields} | changes)


async def until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait for a condition, or fail saying what did not happen."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)


class CuttableTransport(TlsTransport):
    """The real transport with a switch: `cut` closes all connections and lets none be opened until `heal`."""

    isolated = False

    def cut(self) -> None:
        self.isolated = True
        for connection in list(self._all):
            connection.close()

    def heal(self) -> None:
        self.isolated = False

    def accepts(self, identity: pki.Identity, hello: Hello, expected: str) -> str | None:
        return "cut off by the test" if self.isolated else super().accepts(identity, hello, expected)


class Group:
    """Members in this process, each with its machine and its transport."""

    def __init__(self, configs: list[StoreConfig], *, request_timeout: float | None = None) -> None:
        self.configs = {config.name: config for config in configs}
        self.nodes: dict[str, RaftNode] = {}
        self.machines: dict[str, Recorder] = {}
        self.transports: dict[str, CuttableTransport] = {}
        # What members' software can apply, where it is another version's.
        self.software: dict[str, Levels] = {}
        self._timeout = request_timeout

    async def start(self, *names: str) -> None:
        for name in names or self.configs:
            node = RaftNode(self.configs[name], transport=self._transport, request_timeout=self._timeout)
            self.machines[name] = Recorder(self.software.get(name, _LEVELS))
            self.nodes[name] = node
            await node.start(self.machines[name])

    async def stop(self, *names: str) -> None:
        for name in names or list(self.nodes):
            await self.nodes.pop(name).stop()
        # A handshake that was under way ends with its peer, in the loop's next rounds: there may be none afterwards.
        await asyncio.sleep(0.05)

    async def leader(self, but: str = "") -> RaftNode:
        """The one that leads; `but` is left out of the question."""
        asked = {name: node for name, node in self.nodes.items() if name != but}
        await until(lambda: any(node.is_leader for node in asked.values()), "a leader")
        return next(node for node in asked.values() if node.is_leader)

    def name(self, node: RaftNode) -> str:
        return next(name for name, other in self.nodes.items() if other is node)

    async def followers(self) -> list[RaftNode]:
        leader = await self.leader()
        return [node for node in self.nodes.values() if node is not leader]

    async def level(self) -> list[bytes]:
        """What all have applied, once every one of them is up to date."""
        for node in self.nodes.values():
            await node.read_barrier()
        sequences = [machine.commands for name, machine in self.machines.items() if name in self.nodes]
        assert all(sequence == sequences[0] for sequence in sequences)
        return list(sequences[0])

    def _transport(self, config: StoreConfig, clock: Clock) -> CuttableTransport:
        self.transports[config.name] = CuttableTransport(config, clock)
        return self.transports[config.name]
