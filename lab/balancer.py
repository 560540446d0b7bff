"""A small TCP balancer: one address that leads to a master for as long as there is one.

It passes TLS through untouched, so it holds no key but the administrator's, with which it asks every master `/readyz`.
A kernel goes on accepting connections for a process that is stopped, and says nothing at all for a host that is cut
off: so only an answer counts, and connections to a master that no longer answers are ended, or clients that keep
theirs (kubectl, informers) would wait for minutes.

    python -m lab.balancer CONFIG.json
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kybern import daemon, logs
from kybern.daemon import Daemon, StartupError

log = logging.getLogger(__name__)

INTERVAL = 0.5
PATIENCE = 1.5
# One late answer on a busy machine is not the loss of a master.
LOSSES = 2


class Config(msgspec.Struct, frozen=True):
    """What to listen on and where to pass it. `ports` are listened on at `address`, and served by every backend."""

    address: str
    ports: list[int]
    # Masters' names and addresses.
    backends: dict[str, str]
    # The port that `/readyz` is asked on.
    probe_port: int
    ca: Path
    cert: Path
    key: Path


@dataclass
class Backend:
    """What is known of one master. `observe` is the only way to change it."""

    name: str
    serving: bool = False
    failures: int = 0

    def observe(self, *, answered: bool) -> bool:
        """Take a probe's result in; whether `serving` changed."""
        before = self.serving
        self.failures = 0 if answered else self.failures + 1
        if answered:
            self.serving = True
        elif self.failures >= LOSSES:
            self.serving = False
        return before != self.serving


def order(backends: Sequence[Backend], load: Mapping[str, int]) -> list[Backend]:
    """Which to try for a new connection: those that serve first, the least loaded of them first.

    The others follow: a probe may be wrong, and an error from a master tells a client more than a closed door.
    """
    return sorted(backends, key=lambda b: (not b.serving, b.failures, load.get(b.name, 0)))


@dataclass
class _Connections:
    """Open connections by backend."""

    open: dict[str, set[asyncio.Task[None]]] = field(default_factory=dict)

    def load(self) -> dict[str, int]:
        return {name: len(tasks) for name, tasks in self.open.items()}

    def end(self, name: str) -> None:
        for task in self.open.get(name, set()):
            task.cancel()


class Balancer:
    """Probes and passes on, until it is cancelled."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.backends = [Backend(name) for name in config.backends]
        self._connections = _Connections()
        self._context = ssl.create_default_context(cafile=str(config.ca))
        self._context.load_cert_chain(config.cert, config.key)

    async def run(self, daemon: Daemon) -> None:
        """Serve until the daemon is to stop.

        Raises:
            StartupError: when a port cannot be listened on.
        """
        async with contextlib.AsyncExitStack() as stack:
            for port in self._config.ports:
                await stack.enter_async_context(await self._listen(port))
            probes = [asyncio.create_task(self._watch(backend)) for backend in self.backends]
            daemon.ready(f"{self._config.address}:{self._config.ports}")
            await daemon.run_until_stopped()
            for task in (*probes, *(t for tasks in self._connections.open.values() for t in tasks)):
                task.cancel()

    async def _listen(self, port: int) -> asyncio.Server:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._serve(port, reader, writer)

        try:
            return await asyncio.start_server(serve, self._config.address, port)
        except OSError as error:
            raise StartupError(f"cannot listen on {self._config.address}:{port}: {error.strerror}") from error

    async def _watch(self, backend: Backend) -> None:
        while True:
            if backend.observe(answered=await self._answers(backend)):
                log.info("%s %s", backend.name, "serves" if backend.serving else "does not serve")
                if not backend.serving and any(b.serving for b in self.backends):
                    self._connections.end(backend.name)
            await asyncio.sleep(INTERVAL)

    async def _answers(self, backend: Backend) -> bool:
        address = self._config.backends[backend.name]
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection(
                    address, self._config.probe_port, ssl=self._context, server_hostname="kubernetes"
                )
                try:
                    writer.write(b"GET /readyz HTTP/1.1\r\nHost: kubernetes\r\nConnection: close\r\n\r\n")
                    status = await reader.readline()
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError, ValueError):
            return False
        return status.split(b" ")[1:2] == [b"200"]

    async def _serve(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for backend in order(self.backends, self._connections.load()):
                try:
                    async with asyncio.timeout(PATIENCE):
                        upstream = await asyncio.open_connection(self._config.backends[backend.name], port)
                except (OSError, TimeoutError):
                    continue
                await self._join(backend.name, (reader, writer), upstream)
                return
        finally:
            writer.transport.abort()

    async def _join(
        self,
        name: str,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Copy both ways until either side has ended, or the backend is given up."""
        tasks = {
            asyncio.create_task(_copy(client[0], upstream[1])),
            asyncio.create_task(_copy(upstream[0], client[1])),
        }
        known = self._connections.open.setdefault(name, set())
        known |= tasks
        try:
            # A side that has ended its half may still read: wait for both, unless one was cut off.
            await asyncio.gather(*tasks, return_exceptions=False)
        except (OSError, asyncio.CancelledError):
            for task in tasks:
                task.cancel()
        finally:
            known -= tasks
            upstream[1].transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        with contextlib.suppress(OSError):
            writer.write_eof()


def main(arguments: Sequence[str] | None = None) -> int:
    """The balancer's process."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        config = msgspec.json.decode(Path(words[0]).read_bytes(), type=Config, dec_hook=lambda kind, v: kind(v))
    except (IndexError, OSError, msgspec.MsgspecError) as error:
        print(f"lab.balancer: cannot read its configuration: {error}", file=sys.stderr)
        return daemon.EXIT_CONFIG
    format_: logs.LogFormat = "text"
    return daemon.run("balancer", Balancer(config).run, log_level="info", log_format=format_)


if __name__ == "__main__":
    sys.exit(main())
